"""The HTTPS server of the simulated registry."""
