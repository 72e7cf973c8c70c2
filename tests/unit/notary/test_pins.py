"""The document of pins: what it may say, what it means, and that no fault in it leaves anything unpinned."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dtr_audit
from dtr_audit.errors import SettingsError
from dtr_audit.trust.notary.pins import (
    AUTHORITIES_LENGTH,
    DOCUMENT_BYTES,
    KEY,
    PATTERN_LENGTH,
    PINS,
    ROOT_KEYS,
    parse_pins,
)
from dtr_audit.trust.notary.policy import Pin, TrustPolicy
from dtr_audit.trust.notary.reading import Defect, Outcome
from dtr_audit.trust.notary.verification import verify
from tests.unit.notary.publisher import GUN, NOW, Authority, Notary, Publisher, certified

ROOT = Path(__file__).parents[3]
ID, OTHER_ID = "a" * 64, "0123456789abcdef" * 4
AUTHORITY = Authority()
NO_CERTIFICATE = "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n"


def entry(**changes: Any) -> dict[str, Any]:
    whole = {"pattern": "dtr.example.mil/payments/*", "root_keys": [ID], "authorities": None, **changes}
    return {key: value for key, value in whole.items() if value is not None}


def document(*entries: Any) -> bytes:
    return json.dumps({"pins": entries}).encode()


def fault(content: bytes) -> str:
    with pytest.raises(SettingsError) as raised:
        parse_pins(content)
    text = str(raised.value)
    assert text.startswith(f"{KEY}: ")
    return text.removeprefix(f"{KEY}: ")


def test_a_document_says_which_roots_are_trusted_for_which_repositories() -> None:
    pins = parse_pins(
        document(
            entry(root_keys=[ID, OTHER_ID]),
            entry(pattern="*", root_keys=None, authorities=AUTHORITY.pem),
            entry(pattern="dtr.example.mil/payments/api", authorities=AUTHORITY.pem * 2),
        )
    )
    assert pins == (
        Pin("dtr.example.mil/payments/*", frozenset({ID, OTHER_ID})),
        Pin("*", authorities=AUTHORITY.pem),
        Pin("dtr.example.mil/payments/api", frozenset({ID}), AUTHORITY.pem * 2),
    )


def test_what_is_parsed_is_what_a_root_is_held_against() -> None:
    key, namespace = certified(authority=AUTHORITY), GUN.rpartition("/")[0]
    publisher = Publisher(root_key=key)
    publisher.sign("targets", "1.0")
    served = publisher.publish()
    for one, defect in (
        (entry(pattern=GUN, root_keys=[key.id]), None),
        (entry(pattern=f"{namespace}/*", root_keys=None, authorities=AUTHORITY.pem), None),
        (entry(pattern=GUN, root_keys=[ID]), Defect.NOT_PINNED),
        (entry(pattern="*", root_keys=None, authorities=Authority("Another").pem), Defect.NOT_PINNED),
    ):
        reading = verify(Notary(dict(served)), GUN, None, TrustPolicy(pins=parse_pins(document(one))), NOW)
        assert (reading.defect, reading.outcome is Outcome.VERIFIED) == (defect, defect is None)


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "dtr*",
        "dtr.example.mil*",
        "dtr.example.mil:9443*",
        "dtr.example.mil/*",
        "dtr.example.mil:9443/pay*",
        "dtr.example.mil/payments/*",
        "dtr.example.mil/payments/a*",
        "DTR.example.mil/Payments/api_v1.2-x",
        "[2001:db8::1]:9443/payments/api",
        "dtr.example.mil/doe.jane@agency.mil/tool",
        "dtr.example.mil/_svc/*",
        "dtr.example.mil/-lead*",
        "dtr.example.mil/jürgen/tool",
        "d/" + "p" * (PATTERN_LENGTH - 4) + "/a",
    ],
)
def test_a_pattern_is_a_repository_or_the_beginning_of_one(pattern: str) -> None:
    (pin,) = parse_pins(document(entry(pattern=pattern)))
    assert pin.pattern == pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "/",
        "/*",
        "**",
        "*/api",
        "*.example.mil/*",
        "dtr.example.mil",
        "dtr.example.mil/payments",
        "dtr.example.mil/payments/",
        "dtr.example.mil/payments/api:1.0",
        "dtr.example.mil/pay?ents/api",
        "dtr.example.mil/pay ments/*",
        "dtr.example.mil/../api",
        "dtr.example.mil/./*",
        "dtr.example.mil/\u202epay/api",
        "dtr.example.mil/payments/api/web",
        "dtr.example.mil/payments/api/*",
        "dtr.example.mil//api",
        "dtr.example.mil/*/api",
        "dtr.example.mil/payments/a?i",
        "dtr.example.mil/payments/.*",
        "https://dtr.example.mil/*",
        " dtr.example.mil/*",
        "dtr.example.mil/*\n",
        "dtr.example.mil/payments/\u0430pi",
        "dtr.example.mil/.*",
        "d/" + "p" * (PATTERN_LENGTH - 3) + "/a",
        None,
        7,
        ["dtr.example.mil/*"],
    ],
)
def test_a_pattern_that_no_repository_can_have_is_a_fault(pattern: Any) -> None:
    content = document({"pattern": pattern, "root_keys": [ID]})
    assert fault(content).startswith("$.pins[0].pattern: host/namespace/repository is needed")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"\xff\xfe\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b'{"pins": ' + b"7" * 10_000 + b"}", "it is not JSON"),
        (b"null", '$: {"pins": […]} is needed'),
        (b"[]", '$: {"pins": […]} is needed'),
        (b"{}", '$: {"pins": […]} is needed'),
        (b'{"pins": {}}', '$: {"pins": […]} is needed'),
        (b'{"pins": [], "version": 1}', '$: {"pins": […]} is needed'),
        (b'{"pins": [], "pins": []}', "the key 'pins' stands twice in one object"),
        (b'{"pins": [{"pattern": "a", "p\\u0061ttern": "b"}]}', "the key 'pattern' stands twice in one object"),
        (b" " * (DOCUMENT_BYTES + 1), f"it is larger than {DOCUMENT_BYTES} bytes"),
        (document(*[7] * (PINS + 1)), f"$.pins: {PINS + 1} entries; 1 to {PINS} are needed"),
        (document(entry(), 7), "$.pins[1]: an object is needed"),
        (document(entry(), None), "$.pins[1]: an object is needed"),
        (document(entry(pattern=None)), "$.pins[0].pattern: it is missing"),
        (document(entry(rootkeys=[ID])), "$.pins[0]: 'rootkeys' is no key of a pin"),
        (document(entry(Authorities="")), "$.pins[0]: 'Authorities' is no key of a pin"),
        (document(entry(root_keys=None)), "$.pins[0]: root_keys, authorities or both are needed"),
        (document(entry(root_keys=[])), f"$.pins[0].root_keys: a list of 1 to {ROOT_KEYS} key ids is needed"),
        (document(entry(root_keys=[ID] * (ROOT_KEYS + 1))), "$.pins[0].root_keys: a list of 1 to"),
        (document(entry(root_keys=ID)), "$.pins[0].root_keys: a list of 1 to"),
        (document(entry() | {"root_keys": None, "authorities": AUTHORITY.pem}), "$.pins[0].root_keys: a list of 1 to"),
        (document(entry(root_keys=[ID, ID[:-1]])), "$.pins[0].root_keys[1]: a key id is needed, 64 hexadecimal digits"),
        (document(entry(root_keys=[ID.upper()])), "$.pins[0].root_keys[0]: a key id is needed"),
        (document(entry(root_keys=[f"{ID}\n"])), "$.pins[0].root_keys[0]: a key id is needed"),
        (document(entry(root_keys=[[ID]])), "$.pins[0].root_keys[0]: a key id is needed"),
        (document(entry(authorities="")), "$.pins[0].authorities: certificates in PEM form are needed"),
        (document(entry(authorities="\ud800")), "$.pins[0].authorities: certificates"),
        (document(entry(authorities=NO_CERTIFICATE)), "$.pins[0].authorities: certificates"),
        (document(entry(authorities=AUTHORITY.pem.replace("\n", "\\n"))), "$.pins[0].authorities: certificates"),
        (document(entry(authorities=AUTHORITY.pem[:-40])), "$.pins[0].authorities: certificates"),
        (document(entry(authorities=[AUTHORITY.pem])), "$.pins[0].authorities: certificates"),
        (document(entry() | {"authorities": None}), "$.pins[0].authorities: certificates"),
        (
            document(entry(authorities=AUTHORITY.pem + " " * AUTHORITIES_LENGTH)),
            "$.pins[0].authorities: certificates",
        ),
        (
            document(entry(pattern="a", root_keys=None)),
            "$.pins[0].pattern: host/namespace/repository is needed, or the beginning of that with '*' at its end, at most "
            f"{PATTERN_LENGTH} characters; $.pins[0]: root_keys, authorities or both are needed",
        ),
    ],
)
def test_a_fault_is_named_with_its_place(content: bytes, said: str) -> None:
    assert fault(content).startswith(said)
    assert fault(content) == fault(content), "the same words each time"


def test_a_document_that_pins_nothing_is_a_fault() -> None:
    assert fault(document()) == f"$.pins: 0 entries; 1 to {PINS} are needed"


def test_a_pattern_that_stands_there_twice_is_a_fault() -> None:
    text = fault(document(entry(), entry(pattern="*"), entry(root_keys=[OTHER_ID])))
    assert text == "$.pins[2].pattern: dtr.example.mil/payments/* is that of $.pins[0] too"


def test_pattern_that_stands_twice_in_two_spellings_of_the_host_is_a_fault() -> None:
    text = fault(document(entry(), entry(pattern="DTR.Example.mil:443/payments/*")))
    assert text == "$.pins[1].pattern: DTR.Example.mil:443/payments/* is that of $.pins[0] too"


def test_all_faults_are_counted_and_the_first_are_named() -> None:
    text = fault(document(*[entry(pattern=f"d/p/{number}", root_keys=[]) for number in range(9)]))
    assert text.count("$.pins[") == 5
    assert text.endswith("; and 4 more")


def test_one_fault_takes_every_pin_away() -> None:
    with pytest.raises(SettingsError):
        parse_pins(document(entry(), entry(pattern="*", authorities=NO_CERTIFICATE)))


def test_hostile_texts_are_shown_safe_and_short_or_not_at_all() -> None:
    assert "\x1b" not in fault(document(entry(**{"\x1b[2J" + "k" * 500: 1})))
    assert len(fault(document(entry(**{"k" * 10_000: 1})))) < 200
    values = fault(
        document(entry(authorities="pasted by mistake", root_keys=["pasted by mistake"], pattern="a mistake"))
    )
    assert values.count("$.pins[0]") == 3
    assert "mistake" not in values
    long = entry(pattern="d/p/" + "a" * 500)
    assert len(fault(document(long, long))) < 200


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda one: st.lists(one) | st.dictionaries(st.text() | st.sampled_from(["pattern", "root_keys"]), one),
)


def assert_read_or_refused(content: bytes) -> None:
    try:
        pins = parse_pins(content)
    except SettingsError as error:
        assert str(error).startswith(f"{KEY}: ")
        assert len(str(error)) < 2_000
        str(error).encode()
    else:
        assert pins
        assert all(pin.key_ids or pin.authorities for pin in pins)


@given(ANY)
@settings(deadline=None)
def test_any_json_it_is_it_is_read_or_refused_by_name(content: Any) -> None:
    for whole in (content, {"pins": content}, {"pins": [content]}, {"pins": [entry(), content]}):
        assert_read_or_refused(json.dumps(whole).encode())
    for key in ("pattern", "root_keys", "authorities", "other"):
        assert_read_or_refused(document(entry() | {key: content}))
    assert_read_or_refused(document(entry(root_keys=[ID, content])))


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 8))
@settings(deadline=None)
def test_any_bytes_they_are_they_are_read_or_refused_by_name(piece: bytes, position: int, removed: int) -> None:
    good = document(entry(), entry(pattern="*", root_keys=[OTHER_ID]))
    assert_read_or_refused(piece)
    assert_read_or_refused(good[:position] + piece + good[position + removed :])


def test_a_hostile_document_costs_little_time() -> None:
    # One that cost more than linear time would run into the limit of pytest-timeout.
    for one in (
        {"pattern": "a" * (PATTERN_LENGTH - 1) + "?", "root_keys": [ID]},
        entry(root_keys=["g" * 64] * 13),
        entry(authorities="-----BEGIN CERTIFICATE-----\n" * 28),
    ):
        content = document(*[one] * PINS)
        assert len(content) <= DOCUMENT_BYTES
        fault(content)


@pytest.mark.parametrize(("authorities", "is_loaded"), [(None, False), (AUTHORITY.pem, True)])
def test_cryptography_is_loaded_only_for_authorities(authorities: str | None, is_loaded: bool) -> None:
    content = document(entry(authorities=authorities))
    code = (
        "import sys; from dtr_audit.trust.notary.pins import parse_pins; "
        f"parse_pins({content!r}); print('cryptography' in sys.modules)"
    )
    layer = Path(dtr_audit.__path__[0]).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=layer, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == str(is_loaded)


# --- As documented ----------------------------------------------------------------------------------------------------

SECTION = (ROOT / "docs" / "contracts.md").read_text("utf-8").split("\n## Trust pins\n")[1].split("\n## ")[0]


def example() -> str:
    found = re.search(r"^<!-- example: pins -->\n```json\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_documented_example_is_accepted_once_its_certificate_is_written_out() -> None:
    elided = json.dumps(NO_CERTIFICATE, ensure_ascii=False)
    assert example().count(elided) == 1
    (of_payments, of_all) = parse_pins(example().replace(elided, json.dumps(AUTHORITY.pem)).encode())
    assert (of_payments.covers("dtr.example.mil/payments/api"), of_payments.authorities) == (True, "")
    assert (of_all.covers("dtr.example.mil/web/shop"), of_all.authorities) == (True, AUTHORITY.pem)
    policy = TrustPolicy(pins=(of_all, of_payments))
    assert policy.pin_for("dtr.example.mil/payments/api") == of_payments
    assert policy.pin_for("dtr.example.com/payments/api") is None
    assert fault(example().encode()).startswith("$.pins[1].authorities: certificates in PEM form are needed")


def test_the_documented_keys_and_limits_are_the_real_ones() -> None:
    assert f"`{KEY}`" in SECTION
    assert f"at most {PATTERN_LENGTH} characters" in SECTION
    assert f"1 to {ROOT_KEYS} ids" in SECTION
    assert f"at most {AUTHORITIES_LENGTH:_} characters".replace("_", " ") in SECTION
    assert f"1 to {PINS} pins and at most {DOCUMENT_BYTES:_} bytes".replace("_", " ") in " ".join(SECTION.split())
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", SECTION, re.MULTILINE))
    assert documented == {key for one in json.loads(example())["pins"] for key in one}
