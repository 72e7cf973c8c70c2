"""The command `dtr-audit`."""
