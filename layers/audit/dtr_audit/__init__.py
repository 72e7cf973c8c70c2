"""Audit a Docker Trusted Registry for image tags that are not signed (DISA STIG rule V-235846)."""

__version__ = "0.2.0"
