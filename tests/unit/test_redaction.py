"""What is found of a secret in a text, and what is left alone."""

import base64
import io
import json
import logging
import secrets
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from dtr_audit.aws.logger import SERVICE, make_logger, raise_redacted
from dtr_audit.core import text
from dtr_audit.core.redaction import PIECE_BYTES, REDACTOR, TOKENS_BYTES, Redactor
from dtr_audit.core.text import clean

PASSWORD = "Kq7-Zr2_Lm9xTw4Vb6Nc1Hs8"
USER = "auditor"


@pytest.fixture
def redactor() -> Redactor:
    redactor = Redactor()
    redactor.learn_password(USER, PASSWORD)
    return redactor


@pytest.mark.parametrize("change", [str, str.lower, str.upper, str.swapcase])
@pytest.mark.parametrize("before", range(8))
def test_a_piece_of_16_characters_is_found_wherever_it_begins(redactor: Redactor, before: int, change: object) -> None:
    assert callable(change)
    for at in range(len(PASSWORD) - PIECE_BYTES + 1):
        piece = change(PASSWORD[at : at + PIECE_BYTES])
        assert redactor.redact(f"{'.' * before}{piece}!") == f"{'.' * before}[removed]!"
        assert redactor.redact(f"ü{'.' * before}{piece}€") == f"ü{'.' * before}[removed]€"


def test_a_piece_of_fewer_characters_is_left(redactor: Redactor) -> None:
    for at in range(len(PASSWORD) - 14):
        assert not redactor.holds_secret(f"a {PASSWORD[at : at + 15]} b")


def test_every_form_of_a_password_and_of_its_pair_is_found() -> None:
    for password in (PASSWORD, "pä ss", 'a"b\\c<d>&e?', "hunter2", "ÜBERLÄNGE-passwort"):
        redactor = Redactor()
        redactor.learn_password(USER, password)
        pair = f"{USER}:{password}".encode()
        forms = {
            password,
            quote(password, safe=""),
            json.dumps(password)[1:-1],
            json.dumps(password, ensure_ascii=False)[1:-1],
            base64.b64encode(pair).decode(),
            base64.urlsafe_b64encode(pair).decode().rstrip("="),
            quote(base64.b64encode(pair).decode(), safe=""),
        }
        for form in forms:
            assert redactor.redact(f"<{form}> {form.upper()} {form.lower()}.") == "<[removed]> [removed] [removed]."


@pytest.mark.parametrize(
    ("password", "left", "found"),
    [
        ("tags", ("stags", "tags1", "the tagss"), ("tags", "my-tags", "tags/web", "(TAGS)", "v1.tags_2")),
        ("payments", ("payment", "pay-ments"), ("payments", "mypayments2", "PAYMENTS")),
        (USER, (USER, f"by {USER}"), (base64.b64encode(f"{USER}:{USER}".encode()).decode(),)),
    ],
    ids=["under 8 characters, as a word", "8 characters, anywhere", "the user's name, as a pair only"],
)
def test_a_short_password_is_found_where_no_ordinary_word_holds_it(
    password: str, left: tuple[str, ...], found: tuple[str, ...]
) -> None:
    redactor = Redactor()
    redactor.learn_password(USER, password)
    assert not [one for one in left if redactor.holds_secret(one)]
    assert [one for one in found if redactor.holds_secret(one)] == list(found)


def test_tokens_are_bounded_and_the_latest_and_the_password_stay_known(redactor: Redactor) -> None:
    tokens = [secrets.token_urlsafe(1_000) for _ in range(3 * TOKENS_BYTES // 1_300)]
    for token in tokens:
        redactor.learn_token(token)
        assert redactor.holds_secret(token)
    assert not redactor.holds_secret(tokens[0])
    known = [token for token in tokens if redactor.holds_secret(token)]
    assert TOKENS_BYTES // 2 - 2_000 <= sum(map(len, known)) <= TOKENS_BYTES
    assert known == tokens[-len(known) :]
    assert redactor.holds_secret(f"x{PASSWORD}x")


def test_header_of_a_json_web_token_does_not_spoil_a_document_and_is_removed_elsewhere(redactor: Redactor) -> None:
    certificate = secrets.token_urlsafe(300)
    header, payload, signature = f"eyJ{certificate}", secrets.token_urlsafe(200), secrets.token_urlsafe(64)
    token = f"{header}.{payload}.{signature}"
    redactor.learn_token(token)
    assert not redactor.holds_secret_in_json(f'{{"public": "{certificate[40:90]}"}}'.encode())
    for part in (payload, signature):
        assert redactor.holds_secret_in_json(f'{{"public": "{part[10:60]}"}}'.encode())
    assert redactor.holds_secret_in_json(token.encode())
    assert redactor.redact(f"x {token} x") == "x [removed] x"
    assert redactor.redact(header) == "[removed]"


def test_password_in_the_header_of_a_token_spoils_a_document(redactor: Redactor) -> None:
    redactor.learn_token(f"eyJ{PASSWORD.replace('!', '')}{PASSWORD}.{'a' * 40}.{'b' * 40}")
    assert redactor.holds_secret_in_json(f'{{"public": "{PASSWORD}"}}'.encode())


def test_a_json_document_keeps_its_keys_and_structure(redactor: Redactor) -> None:
    token = '","verdict":"UNSIGNED","reason":"'
    redactor.learn_token(token)
    document = {PASSWORD: 1, "inner": json.dumps({"said": PASSWORD}), "list": ["ok", PASSWORD, None, 2.5], "a": "é"}
    redacted = json.loads(redactor.redact_json(json.dumps(document)))
    assert redacted == {
        PASSWORD: 1,
        "inner": '{"said":"[removed]"}',
        "list": ["ok", "[removed]", None, 2.5],
        "a": "é",
    }
    row = '{"tag":"1","verdict":"UNSIGNED","reason":""}'
    assert json.loads(redactor.redact_json(row)) == json.loads(row)


def test_a_secret_that_is_written_with_escapes_is_found_in_a_document(redactor: Redactor) -> None:
    escaped = "".join(f"\\u{ord(character):04x}" for character in PASSWORD)
    assert redactor.holds_secret_in_json(f'{{"a":"{escaped}"}}'.encode())
    assert redactor.holds_secret_in_json(f'{{"a":"{PASSWORD}"}}'.encode())
    assert not redactor.holds_secret_in_json(rb'{"a":"\u0061\\\"\/"}')


def test_a_file_that_is_no_text_is_left(redactor: Redactor) -> None:
    content = bytes(range(256))
    assert redactor.redact_file(content, "application/octet-stream") == content
    assert redactor.redact_file(f"a {PASSWORD}".encode(), "text/html") == b"a [removed]"


@pytest.mark.parametrize("password", [PASSWORD, "Summer.2026!"])
def test_a_text_is_redacted_before_it_is_cut(password: str) -> None:
    REDACTOR.learn_password(USER, password)
    for length in range(1, 60):
        for before in (length - 1, length - 5, length + text.READ_AHEAD - 3):
            shown = clean("x" * max(0, before) + password + "y" * text.READ_AHEAD, length)
            assert len(shown) <= length
            assert password[:4].lower() not in shown.lower()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    make_logger()
    stream = io.StringIO()
    handler = logging.getLogger(SERVICE).handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    before = handler.setStream(stream)
    others = logging.StreamHandler(stream)
    logging.getLogger().addHandler(others)
    yield stream
    logging.getLogger().removeHandler(others)
    handler.setStream(before)


def test_no_log_of_any_module_or_library_holds_a_secret(log: io.StringIO) -> None:
    REDACTOR.learn_password(USER, PASSWORD)
    logger = make_logger()
    try:
        int(PASSWORD)
    except ValueError:  # which quotes it
        logger.exception("failed %s", PASSWORD, extra={"more": {"deep": [PASSWORD.upper()]}})
        logging.getLogger("a.library").exception("failed %s", PASSWORD)
    logger.warning(f"said {PASSWORD[2:20]}", why=PASSWORD)
    logging.getLogger("a.library").warning(PASSWORD)
    reported = log.getvalue()
    assert reported.count("[removed]") >= 8
    assert not Redactor.holds_secret(REDACTOR, reported)


def test_an_error_without_a_secret_is_raised_as_it_is_and_one_with_it_by_its_name_alone() -> None:
    REDACTOR.learn_password(USER, PASSWORD)

    @raise_redacted
    def fail(reported: str) -> None:
        raise KeyError(reported) from OSError(reported)

    with pytest.raises(KeyError, match="harmless") as harmless:
        fail("harmless")
    assert isinstance(harmless.value.__cause__, OSError)
    with pytest.raises(Exception, match=r"\[removed\]") as raised:
        fail(PASSWORD)
    assert type(raised.value).__name__ == "KeyError"
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)
