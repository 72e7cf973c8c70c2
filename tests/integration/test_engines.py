"""The same run through both engines: the same rows, findings, record and messages."""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from local.dtr.faults import Faults, Status, tags_of
from local.dtr.registry import InMemoryRegistry
from local.dtr.server import DtrServer
from local.dtr.transport import Request
from local.stack import Stack
from tests.audited import Audited
from tests.fanned import Fanned


def test_smoke(audited: Audited, registry: InMemoryRegistry) -> None:
    for n in range(120):
        registry.push("web", f"shop{n}", "1")
    registry.sign("web", "shop0", "1")
    fanned = Fanned(audited)
    run = fanned.execute()
    print(json.dumps(run, indent=1))
    print(audited.keys("findings"), audited.keys("work"))
    print([m.body["counts"] for m in audited.messages()])
    for n in range(50):
        registry.sign("web", f"shop{n}", "1")
    registry.delete_repository("web", "shop70")
    run = fanned.execute()
    print(json.dumps(run, indent=1))
    print([m.body["counts"] for m in audited.messages()])
