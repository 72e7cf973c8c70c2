"""How much work one repository may be, and that what was too much is not done again."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from dtr_audit.trust.notary import effort as limits
from dtr_audit.trust.notary.cache import parse_refusal
from dtr_audit.trust.notary.effort import Effort, EffortError
from dtr_audit.trust.notary.policy import TrustPolicy
from dtr_audit.trust.notary.reading import Outcome, TrustReading
from dtr_audit.trust.notary.verification import verify
from tests.unit.notary.publisher import GUN, NOW, Notary, Publisher, elliptic

ANYTHING = TrustPolicy()


class Processor:
    """A thread's processor time that passes with each look."""

    def __init__(self, step: float) -> None:
        self._now = 0.0
        self._step = step

    def __call__(self) -> float:
        self._now += self._step
        return self._now


def crowded(signatures: int, *, delegations: int = 20) -> Publisher:
    """Let each of many delegations have many invalid signatures of a key that counts."""
    publisher = Publisher()
    publisher.sign("targets", "1.0")
    key, stray = elliptic(), elliptic()
    wrong = replace(key, private=stray.private)
    for number in range(delegations):
        publisher.delegate(f"targets/{number}", key).signed_by = [*[wrong] * signatures, key]
        publisher.sign(f"targets/{number}", "1.0")
    return publisher


def branching(paths: int) -> Publisher:
    """Let a delegation with many paths delegate to others with as many."""
    publisher = Publisher()
    key = elliptic()
    prefix = "x" * 64
    names = [f"{prefix}{number}" for number in range(paths)]
    publisher.delegate("targets/a", key, paths=names)
    for number in range(40):
        publisher.delegate(f"targets/a/{number}", key, paths=names)
        publisher.sign(f"targets/a/{number}", f"{prefix}1")
    publisher.sign("targets", "1.0")
    return publisher


def read(notary: Notary, refused: str = "", effort: Effort | None = None) -> TrustReading:
    return verify(notary, GUN, None, ANYTHING, NOW, refused=refused, effort=effort)


@pytest.mark.parametrize("publisher", [crowded(120), branching(1_000)], ids=["signatures", "delegated paths"])
def test_trust_data_that_costs_too_much_is_unreadable_and_refused_at_once_while_it_is_unchanged(
    publisher: Publisher,
) -> None:
    notary = Notary(publisher.publish())

    reading = read(notary)

    assert (reading.outcome, reading.memory) == (Outcome.UNREADABLE, None)
    assert "costs more than is done for one repository" in reading.reason
    notary.asked.clear()
    again = read(notary, reading.refused)
    assert notary.asked == ["root", "timestamp"]
    assert (again.outcome, again.reason, again.refused) == (reading.outcome, reading.reason, reading.refused)


def test_refusal_ends_with_the_trust_data_that_it_was_about() -> None:
    publisher = crowded(120)
    refused = read(Notary(publisher.publish())).refused
    for role in [role for role in publisher.roles if role.startswith("targets/")]:
        publisher.roles[role].signed_by = None
    reading = read(Notary(publisher.publish()), refused)
    assert (reading.outcome, reading.refused) == (Outcome.VERIFIED, "")


def test_refusal_outlasts_a_notary_that_does_not_answer() -> None:
    refused = read(Notary(crowded(120).publish())).refused
    broken = read(Notary({"root": b"no JSON"}), refused)
    assert (broken.outcome, broken.refused) == (Outcome.UNREADABLE, refused)


def test_refusal_under_other_limits_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    notary = Notary(crowded(120).publish())
    refused = read(notary).refused
    monkeypatch.setattr(limits, "LIMITS", "other")
    monkeypatch.setattr(limits, "SIGNATURE_CHECKS", 100_000)
    assert read(notary, refused).outcome is Outcome.VERIFIED


def test_processor_time_of_one_repository_is_bounded() -> None:
    notary = Notary(crowded(1).publish())
    assert read(notary, effort=Effort(Processor(limits.CPU_SECONDS / 10))).outcome is Outcome.UNREADABLE
    assert read(notary, effort=Effort(Processor(0.0))).outcome is Outcome.VERIFIED


def test_honest_trust_data_of_many_signers_is_far_below_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIGNATURE_CHECKS", "PATH_COMPARISONS"):
        monkeypatch.setattr(limits, name, getattr(limits, name) // 10)
    publisher = Publisher()
    for number in range(100):
        publisher.delegate(f"targets/{number}", elliptic(), paths=["", "release-"])
        for tag in range(50):
            publisher.sign(f"targets/{number}", f"{tag}")
    publisher.expires["targets"] = NOW + timedelta(days=1)
    assert read(Notary(publisher.publish())).outcome is Outcome.VERIFIED


@pytest.mark.parametrize("value", [None, [], {}, {"refused": 1}, {"refused": "x" * 1_000}])
def test_refusal_that_is_none_refuses_nothing(value: object) -> None:
    assert parse_refusal(json.loads(json.dumps(value))) == ("", False)


def test_effort_beyond_a_limit_is_an_error() -> None:
    effort = Effort()
    effort.compare_paths(limits.PATH_COMPARISONS, 1)
    with pytest.raises(EffortError):
        effort.compare_paths(1, 1)
