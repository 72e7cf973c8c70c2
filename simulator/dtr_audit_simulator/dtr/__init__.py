"""A simulated Docker Trusted Registry: see `dtr_audit_simulator.dtr.server` for how to use it."""
