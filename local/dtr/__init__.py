"""A simulated Docker Trusted Registry: see `local.dtr.server` for how to use it."""
