"""A registry of many pages, read to its last tag."""

import random

import pytest

from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws.stack import EmbeddedAws, Stack
from dtr_audit_simulator.dtr.calls import Profile
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.harness.audit_harness import Audited


@pytest.fixture
def stack(aws: EmbeddedAws) -> Stack:
    """A stack of its own: thousands of findings would slow the embedded DynamoDB down for every other test."""
    parameters = {"DtrUrl": "https://dtr.example.com", "RegistryName": "unnamed"}
    return aws.deploy(PROJECT / "template.yaml", parameters, stack_name="large")


def test_three_hundred_repositories_are_read_to_the_last_tag(stack: Stack) -> None:
    registry = InMemoryRegistry()
    choice = random.Random(42)
    truth: dict[str, str] = {}
    for number in range(300):
        namespace, name = f"team-{number % 7}", f"service.{number}"
        for tag in range(choice.randint(1, 250) if number else 250):
            image = f"{namespace}/{name}:1.{tag}"
            truth[image] = choice.choice(("SIGNED",) * 198 + ("UNSIGNED", "MISMATCHED"))
            registry.push(namespace, name, f"1.{tag}")
            if truth[image] != "UNSIGNED":
                registry.sign(namespace, name, f"1.{tag}")
            if truth[image] == "MISMATCHED":
                registry.push(namespace, name, f"1.{tag}")
    # The server's default page, whatever is asked for; its cursors hold slashes.
    with DtrServer(registry, profile=Profile(maximum_page_size=10)) as dtr:
        audited = Audited(stack, dtr)
        audited.put_secret(username=dtr.admin.name, password=dtr.admin.password)
        cursors: list[str] = []
        dtr.on_request(lambda request: cursors.append(request.parameter("pageStart")), "/api/v0/repositories")
        run = audited.audit()
        audited.close()
    assert run["complete"] is True
    assert run["status"] == "OPEN"
    assert run["repositories"] == {"listed": 300, "audited": 300, "unreadable": 0, "removed": 0}
    assert audited.verdicts(run["run_id"]) == truth
    assert set(audited.findings()) == {image for image, verdict in truth.items() if verdict != "SIGNED"}
    assert run["findings"]["open"] == run["findings"]["opened"] == len(audited.findings())
    assert len(cursors) == 30
    assert all("/" in cursor for cursor in cursors[1:])
