"""The audit on one machine: an embedded DTR, and the template's own resources in an embedded AWS."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

# What is deployed: template.yaml, functions/, statemachine/, queries/ and events/. A wheel brings them in a folder of its own. In a
# clone they lie at its root, with all the rest.
PROJECT = _HERE / "project" if (_HERE / "project").is_dir() else _HERE.parents[1]
