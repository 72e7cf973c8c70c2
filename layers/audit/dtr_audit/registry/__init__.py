"""The registry that is audited: its API, its credentials, its settings."""
