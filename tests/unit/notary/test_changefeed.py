"""Which hosts carry trust data, as the changefeed tells."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dtr_audit.errors import TrustDataError
from dtr_audit.trust.notary import changefeed
from dtr_audit.trust.notary.changefeed import (
    GUN_LENGTH,
    HOSTS,
    KEY_BYTES,
    PAGES,
    RECORDS,
    TrustHosts,
    read_hosts,
    suggest_domain,
)


class Feed:
    """A changefeed of changes in their order."""

    def __init__(self, *changes: tuple[str, str], ids: str = "{number}") -> None:
        self.records: list[dict[str, Any]] = [
            {"ID": ids.format(number=number), "GUN": gun, "Category": category, "Version": 1, "SHA256": "0" * 64}
            for number, (gun, category) in enumerate(changes, 1)
        ]
        self.asked: list[str] = []

    def fetch_changes(self, records: int, after: str) -> bytes:
        self.asked.append(after)
        start = next((place for place, record in enumerate(self.records, 1) if record["ID"] == after), 0)
        page = self.records[start : start + records]
        return json.dumps({"count": len(page), "records": page or None}).encode()


def updates(*guns: str) -> list[tuple[str, str]]:
    return [(gun, "update") for gun in guns]


def test_repositories_are_counted_by_their_host() -> None:
    feed = Feed(*updates("a.example/x/y", "b.example:4443/x/y", "b.example:4443/x/z", "a.example/x/y"))
    assert read_hosts(feed) == TrustHosts({"b.example:4443": 2, "a.example": 1})


def test_what_was_deleted_does_not_count() -> None:
    feed = Feed(*updates("a.example/x/y", "b.example/x/y"), ("a.example/x/y", "deletion"), *updates("b.example/x/z"))
    assert read_hosts(feed) == TrustHosts({"b.example": 2})


@pytest.mark.parametrize("ids", ["{number}", "7f1c-{number}"])
def test_every_page_is_read_be_the_ids_numbers_or_not(ids: str) -> None:
    feed = Feed(*updates(*(f"a.example/x/r{number}" for number in range(2 * RECORDS + 1))), ids=ids)
    assert read_hosts(feed).repositories == {"a.example": 2 * RECORDS + 1}
    assert feed.asked == ["0", ids.format(number=RECORDS), ids.format(number=2 * RECORDS)]


def test_a_feed_that_is_longer_than_is_read_is_reported_to_be_a_part() -> None:
    feed = Feed(*updates(*(["a.example/x/y"] * (PAGES * RECORDS + 1))))
    hosts = read_hosts(feed)
    assert hosts == TrustHosts({"a.example": 1}, is_whole=False)
    assert len(feed.asked) == PAGES


def test_a_feed_that_leads_back_is_an_error() -> None:
    class Circle(Feed):
        def fetch_changes(self, records: int, after: str) -> bytes:
            return super().fetch_changes(records, "0")

    with pytest.raises(TrustDataError, match="leads back"):
        read_hosts(Circle(*updates(*(["a.example/x/y"] * (RECORDS + 1)))))


def test_names_that_are_no_hosts_are_passed_over() -> None:
    assert read_hosts(Feed(*updates("bad host/x", "<script>/x", "collection", "/x/y"))).repositories == {
        "collection": 1
    }


def test_an_empty_feed_has_no_hosts() -> None:
    assert read_hosts(Feed()) == TrustHosts({})


@pytest.mark.parametrize(
    "record", [None, {}, {"ID": 1, "GUN": "a/b"}, {"ID": "1"}, {"ID": "1", "GUN": ""}, {"ID": "../1", "GUN": "a/b"}]
)
def test_a_change_that_is_none_is_an_error(record: Any) -> None:
    class Odd(Feed):
        def fetch_changes(self, records: int, after: str) -> bytes:
            return json.dumps({"count": 1, "records": [record]}).encode()

    with pytest.raises(TrustDataError, match="not a list of changes"):
        read_hosts(Odd())


def test_the_domain_that_would_work_is_named() -> None:
    hosts = TrustHosts({"dtr.example.com": 12, "10.0.0.5": 1})
    assert suggest_domain(hosts, ("dtr.internal",)) == (
        "the Notary has trust data under dtr.example.com (12 repositories), and under 1 other host, and none under dtr.internal: "
        "set DTR_DOMAINS to dtr.example.com"
    )
    assert suggest_domain(TrustHosts({"a.example": 1}), ("b", "c")).startswith(
        "the Notary has trust data under a.example (1 repository), and none under b, c"
    )


def test_nothing_is_said_where_the_domain_is_right_or_not_all_was_read() -> None:
    assert suggest_domain(TrustHosts({"a.example": 1, "b.example": 5}), ("a.example",)) == ""
    assert suggest_domain(TrustHosts({}, is_whole=False), ("a.example",)) == ""
    assert "nothing was ever signed" in suggest_domain(TrustHosts({}), ("a.example",))


def test_hosts_of_a_repository_are_found_by_its_whole_name() -> None:
    feed = Feed(
        *updates(
            "a.example/x/y", "b.example/x/y", "b.example/x/z", "c.example/x/y/z", "A.example/x/y", "b.example/X/y"
        ),
        ("b.example/x/z", "deletion"),
    )
    hosts = read_hosts(feed)
    assert hosts.find("x/y") == ("A.example", "a.example", "b.example")
    assert hosts.find("x/z") == hosts.find("x") == hosts.find("") == ()
    assert TrustHosts({"a.example": 1}).find("x/y") == ()


def test_hosts_beyond_the_limit_are_passed_over_and_the_feed_is_reported_to_be_a_part() -> None:
    feed = Feed(*updates(*(f"h{number}.example/x/y" for number in range(HOSTS + 1)), "h0.example/x/z"))
    hosts = read_hosts(feed)
    assert (len(hosts.find("x/y")), hosts.is_whole) == (HOSTS, False)
    assert hosts.find("x/z") == ("h0.example",)


def test_feed_with_long_names_and_many_hosts_is_kept_as_short_keys_and_few_hosts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changefeed, "RECORDS", 100)
    letters = "\U0001f600" * (GUN_LENGTH - 40)
    hosts = read_hosts(Feed(*updates(*(f"h{number}.example/r{number}/{letters}" for number in range(250)))))
    assert (len(hosts.hosts), len(hosts.repositories), hosts.is_whole) == (HOSTS, HOSTS, False)
    assert {len(key) for key in hosts._bits} == {KEY_BYTES}
    assert len(hosts._bits) == HOSTS, "of a host that is passed over nothing is kept"
