"""What a benchmark needs of the machine besides Python: what is missing, and what is not measured without it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MissingTool:
    """What a benchmark lacks here; nothing, if nothing is missing."""

    missing: tuple[str, ...]  # each with its remedy
    unmeasured: str  # without it
    is_whole: bool = False  # nothing else is left to be measured then


def missing_tools(tools: Iterable[str]) -> tuple[str, ...]:
    """Say which programs are not there; each is a Debian package of its own name."""
    return tuple(
        f"{tool} is not installed (Debian: apt-get install {tool})" for tool in tools if shutil.which(tool) is None
    )
