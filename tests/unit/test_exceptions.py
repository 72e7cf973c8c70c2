"""The document of exceptions: what it may say, what it means, and that no fault in it goes unseen."""

import io
import json
from datetime import date, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from dtr_audit.aws.exceptions_document import fetch_exceptions
from dtr_audit.core.exceptions import (
    DOCUMENT_BYTES,
    EXCEPTIONS,
    KEY,
    OWNER_LENGTH,
    PATTERN_LENGTH,
    REASON_LENGTH,
    Exceptions,
    parse_exceptions,
)
from dtr_audit.core.finding import Excepted
from dtr_audit.core.model import Repository
from dtr_audit.errors import ExceptionsError

DAY = date(2026, 11, 22)
DIGEST = "sha256:" + "a" * 64


def entry(**changes: Any) -> dict[str, Any]:
    whole = {
        "id": "EX-7",
        "namespace": "legacy",
        "repository": "*",
        "tag": "*",
        "owner": "j.doe@example.mil",
        "reason": "vendor image, replacement under way",
        "reference": "POA&M 2026-14",
        "ends": "2027-03-31",
        **changes,
    }
    return {key: value for key, value in whole.items() if value is not None}


def document(*entries: Any) -> bytes:
    return json.dumps({"exceptions": entries}).encode()


def fault(content: bytes) -> str:
    with pytest.raises(ExceptionsError) as raised:
        parse_exceptions(content)
    text = str(raised.value)
    assert text.startswith(f"{KEY}: ")
    return text.removeprefix(f"{KEY}: ")


def covering(*entries: dict[str, Any], name: str, tag: str = "1.0", digest: str = DIGEST, day: date = DAY) -> str:
    """Give the id of the exception that covers an image, or ''."""
    exceptions = Exceptions(parse_exceptions(document(*entries)), day=day)
    excepted = exceptions.of(Repository(*name.split("/")), tag, digest)
    return excepted.exception_id if excepted else ""


def test_a_document_says_who_answers_for_what_and_until_when() -> None:
    (one,) = parse_exceptions(document(entry(digest=DIGEST)))
    assert one.excepted == Excepted(
        "EX-7", "j.doe@example.mil", "vendor image, replacement under way", "POA&M 2026-14", "2027-03-31"
    )
    assert (one.namespace, one.repository, one.tag, one.digest) == ("legacy", "*", "*", DIGEST)
    (least,) = parse_exceptions(document(entry(reference=None)))
    assert (least.excepted.reference, least.digest) == ("", "")
    assert parse_exceptions(document()) == []


@pytest.mark.parametrize(
    ("patterns", "name", "tag", "is_covered"),
    [
        ({}, "legacy/crm", "1.0", True),
        ({}, "legacy2/crm", "1.0", False),
        ({}, "my-legacy/crm", "1.0", False),
        ({"namespace": "*"}, "anything/crm", "1.0", True),
        ({"namespace": "leg?cy"}, "legacy/crm", "1.0", True),
        ({"namespace": "leg?cy"}, "legcy/crm", "1.0", False),
        ({"namespace": "Legacy"}, "legacy/crm", "1.0", False),
        ({"repository": "crm"}, "legacy/crm", "1.0", True),
        ({"repository": "crm"}, "legacy/crm-web", "1.0", False),
        ({"repository": "crm*"}, "legacy/crm", "1.0", True),
        ({"tag": "1.*"}, "legacy/crm", "1.0", True),
        ({"tag": "1.*"}, "legacy/crm", "1x0", False),
        ({"tag": "*.*-rc?"}, "legacy/crm", "2.11-rc1", True),
        ({"tag": "*.*-rc?"}, "legacy/crm", "2.11-rc10", False),
        ({"digest": DIGEST}, "legacy/crm", "1.0", True),
        ({"digest": "sha256:" + "b" * 64}, "legacy/crm", "1.0", False),
    ],
)
def test_a_pattern_fits_the_whole_name_or_not_at_all(
    patterns: dict[str, str], name: str, tag: str, is_covered: bool
) -> None:
    assert bool(covering(entry(**patterns), name=name, tag=tag)) is is_covered


def test_an_exception_with_a_digest_covers_no_tag_of_which_the_digest_is_unknown() -> None:
    assert not covering(entry(digest=DIGEST), name="legacy/crm", digest="")


@pytest.mark.parametrize(
    ("days", "holds", "soon"), [(-1, False, False), (0, True, True), (7, True, True), (8, True, False)]
)
def test_an_exception_holds_through_its_last_day_and_ends_soon_a_week_before(
    days: int, holds: bool, soon: bool
) -> None:
    one = entry(ends=(DAY + timedelta(days=days)).isoformat())
    exceptions = Exceptions(parse_exceptions(document(one)), day=DAY)
    assert bool(exceptions.of(Repository("legacy", "crm"), "1.0", DIGEST)) is holds
    assert (len(exceptions.active), len(exceptions.ended)) == (int(holds), int(not holds))
    if holds:
        assert exceptions.ends_soon(exceptions.active[0]) is soon


def test_of_several_exceptions_the_one_that_holds_longest_speaks() -> None:
    long, short = entry(id="X-LONG", ends="2027-06-30"), entry(id="A-SHORT", namespace="*", ends="2027-01-31")
    over = entry(id="OVER", ends="2026-11-21")
    for order in ((long, short, over), (over, short, long)):
        assert covering(*order, name="legacy/crm") == "X-LONG"
        assert covering(*order, name="other/crm") == "A-SHORT"
    assert covering(entry(id="B"), entry(id="A"), name="legacy/crm") == "A"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"\xff\xfe\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"null", '$: {"exceptions": […]} is needed'),
        (b"[]", '$: {"exceptions": […]} is needed'),
        (b'{"exceptions": {}}', '$: {"exceptions": […]} is needed'),
        (b'{"exceptions": [], "version": 1}', '$: {"exceptions": […]} is needed'),
        (b'{"exceptions": [], "exceptions": []}', "the key 'exceptions' stands twice in one object"),
        (b" " * (DOCUMENT_BYTES + 1), f"it is larger than {DOCUMENT_BYTES} bytes"),
        (document(*[entry()] * (EXCEPTIONS + 1)), f"$.exceptions: {EXCEPTIONS + 1} entries; {EXCEPTIONS} are the most"),
        (document(entry(), 7), "$.exceptions[1]: an object is needed"),
        (document(entry(), entry(namespace="other")), "$.exceptions[1].id: EX-7 is that of $.exceptions[0] too"),
        (document(entry(ends=None)), "$.exceptions[0].ends: it is missing"),
        (document(entry(owner=None)), "$.exceptions[0].owner: it is missing"),
        (document(entry(until="2027-01-01")), "$.exceptions[0]: 'until' is no key of an exception"),
        (document(entry(ends="2027-02-30")), "$.exceptions[0].ends: the last day on which it holds is needed"),
        (document(entry(ends="20270228")), "$.exceptions[0].ends: "),
        (document(entry(ends="2027-03-31T00:00:00Z")), "$.exceptions[0].ends: "),
        (document(entry(ends=20270331)), "$.exceptions[0].ends: "),
        (document(entry(ends="never")), "$.exceptions[0].ends: "),
        (document(entry(ends="")), "$.exceptions[0].ends: "),
        (document(entry(id="")), "$.exceptions[0].id: 1 to 64 letters"),
        (document(entry(id="a" * 65)), "$.exceptions[0].id: "),
        (document(entry(id="EX 7")), "$.exceptions[0].id: "),
        (document(entry(id=7)), "$.exceptions[0].id: "),
        (document(entry(namespace="")), "$.exceptions[0].namespace: "),
        (document(entry(namespace="legacy/*")), "$.exceptions[0].namespace: "),
        (document(entry(repository="[ab]")), "$.exceptions[0].repository: "),
        (document(entry(tag="a" * (PATTERN_LENGTH + 1))), "$.exceptions[0].tag: "),
        (document(entry(tag=["1.0"])), "$.exceptions[0].tag: "),
        (document(entry(owner="  ")), "$.exceptions[0].owner: a text of 1 to"),
        (document(entry(owner="x" * (OWNER_LENGTH + 1))), "$.exceptions[0].owner: "),
        (document(entry(reason="x" * (REASON_LENGTH + 1))), "$.exceptions[0].reason: "),
        (
            document(entry(reason=None, reference="")),
            "$.exceptions[0].reason: it is missing; $.exceptions[0].reference: ",
        ),
        (document(entry(digest="latest")), "$.exceptions[0].digest: a whole digest is needed"),
        (document(entry(digest="sha256:" + "A" * 64)), "$.exceptions[0].digest: "),
    ],
)
def test_a_fault_is_named_with_its_place(content: bytes, said: str) -> None:
    assert fault(content).startswith(said)


@pytest.mark.parametrize("name", ["doe.jane@agency.mil", "_svc", "svc$", "jürgen", "-lead", "a#b", "50%", "é" * 100])
def test_pattern_covers_names_that_ldap_allows(name: str) -> None:
    assert covering(entry(namespace=name), name=f"{name}/tool") == "EX-7"
    assert covering(entry(namespace=f"{name[:-1]}?"), name=f"{name}/tool") == "EX-7"
    assert covering(entry(namespace=name), name=f"{name}x/tool") == ""


@pytest.mark.parametrize("name", ["a b", "a\u00a0b", "\u202ea", "a\x7f", "\ud800", "a,b", "a|b", "a:b", "a\\b"])
def test_pattern_that_no_name_has_is_a_fault(name: str) -> None:
    assert fault(document(entry(namespace=name))).startswith("$.exceptions[0].namespace: 1 to 256 characters")


def test_all_faults_are_counted_and_the_first_are_named() -> None:
    text = fault(document(*[entry(id=f"EX-{number}", ends="soon") for number in range(9)]))
    assert text.count("$.exceptions[") == 5
    assert text.endswith("; and 4 more")


def test_one_fault_takes_every_exception_away() -> None:
    with pytest.raises(ExceptionsError):
        parse_exceptions(document(entry(), entry(id="EX-8", ends="soon")))


def test_hostile_texts_are_made_safe() -> None:
    (one,) = parse_exceptions(document(entry(owner="j\x1b[2Jdoe\u202e", reason="a\nb", reference="\ud800")))
    assert one.excepted.owner == "j�[2Jdoe�"
    assert one.excepted.reason == "a�b"
    assert one.excepted.reference == "�"
    assert "\x1b" not in fault(document(entry(**{"\x1b[2J" + "k" * 500: 1})))
    assert len(fault(document(entry(**{"k" * 10_000: 1})))) < 200


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda one: st.lists(one) | st.dictionaries(st.text(), one),
    )
)
def test_any_json_it_is_it_is_read_or_refused_by_name(content: Any) -> None:
    for whole in (content, {"exceptions": content}, {"exceptions": [content]}, {"exceptions": [entry(), content]}):
        try:
            parse_exceptions(json.dumps(whole).encode())
        except ExceptionsError as error:
            assert str(error).startswith(KEY)


def test_many_hostile_patterns_cost_little_time() -> None:
    entries = [
        entry(id=f"EX-{number}", namespace="*", repository="*", tag="*".join("a" * 100) + f"*{number}")
        for number in range(EXCEPTIONS)
    ]
    exceptions = Exceptions(parse_exceptions(document(*entries)), day=DAY)
    # Patterns that are matched by backtracking would run into the limit of pytest-timeout.
    for number in range(20):
        assert exceptions.of(Repository("n", f"r{number}"), "a" * 127 + "b", DIGEST) is None


# --- Reading it -------------------------------------------------------------------------------------------------------


class Bucket:
    """S3 as one reader sees it."""

    def __init__(self, content: bytes | None, *, fails: str = "", of: str = "") -> None:
        self.content = content
        self.fails = fails
        self.of = of

    def _fail(self, operation: str) -> None:
        if operation == self.of:
            if self.fails == "no connection":
                raise EndpointConnectionError(endpoint_url="https://bucket")
            raise ClientError({"Error": {"Code": self.fails, "Message": "request 0123456789"}}, operation)

    def list_objects_v2(self, **_: Any) -> dict[str, Any]:
        self._fail("list")
        return {"Contents": [{"Key": KEY}]} if self.content is not None else {}

    def get_object(self, **_: Any) -> dict[str, Any]:
        self._fail("get")
        return {"Body": io.BytesIO(self.content or b""), "VersionId": "v1"}


def read(bucket: Bucket) -> Exceptions:
    found = fetch_exceptions(bucket, "bucket")  # type: ignore[arg-type]
    if isinstance(found, ExceptionsError):
        raise found
    return found.open(DAY)


def test_no_document_is_no_exception() -> None:
    exceptions = read(Bucket(None))
    assert (exceptions.active, exceptions.ended, exceptions.version_id) == ((), (), "")


def test_another_document_beside_it_is_not_it() -> None:
    class Beside(Bucket):
        def list_objects_v2(self, **_: Any) -> dict[str, Any]:
            return {"Contents": [{"Key": f"{KEY}.bak"}]}

    assert read(Beside(document(entry()))).active == ()


def test_the_document_is_read_with_its_version() -> None:
    exceptions = read(Bucket(document(entry())))
    assert [one.exception_id for one in exceptions.active] == ["EX-7"]
    assert exceptions.version_id == "v1"


def test_a_document_that_is_removed_while_it_is_read_is_none() -> None:
    assert read(Bucket(document(entry()), fails="NoSuchKey", of="get")).active == ()


@pytest.mark.parametrize("operation", ["list", "get"])
@pytest.mark.parametrize("code", ["AccessDenied", "SlowDown", "NoSuchBucket"])
def test_a_document_that_cannot_be_read_is_never_none(operation: str, code: str) -> None:
    with pytest.raises(ExceptionsError) as raised:
        read(Bucket(document(entry()), fails=code, of=operation))
    assert str(raised.value) == f"{KEY}: it could not be read ({code})", "the same words each time"


def test_no_answer_is_reported_by_its_kind() -> None:
    with pytest.raises(ExceptionsError, match=r"could not be read \(EndpointConnectionError\)"):
        read(Bucket(document(entry()), fails="no connection", of="list"))


def test_a_document_is_not_read_past_its_limit() -> None:
    bucket = Bucket(b" " * (3 * DOCUMENT_BYTES))
    with pytest.raises(ExceptionsError, match="larger"):
        read(bucket)
