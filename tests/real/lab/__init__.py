"""The same DTR API in front of a real docker-registry, a real Notary and nginx: see `tests.real.lab.registry`."""
