"""A simulated Universal Control Plane."""
