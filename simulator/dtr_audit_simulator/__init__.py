"""The audit on one machine: an embedded DTR, and the template's own resources in an embedded AWS."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
