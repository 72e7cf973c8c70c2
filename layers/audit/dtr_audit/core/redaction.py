"""Secrets, kept out of every text that leaves the process.

`REDACTOR` is the process's own. The clients of the registry, the Notary and UCP teach it each secret before they send it. Every
text on its way to a log, the record, the rows, the tables, the messages, the evidence, the terminal or another step passes through
it. Decision 0031 says what is found, and what is not.
"""

import base64
import codecs
import json
import re
import sys
import threading
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

PIECE_BYTES = 16  # of a secret: from this length on a part of it is found, too
WORD_BYTES = 8  # a secret that is shorter is found as a word of its own only
TOKENS_BYTES = 128 * 1024  # of the latest tokens; older ones have expired
REMOVED = "[removed]"

# Of any 16 bytes in a row, 8 begin at a multiple of 8: so a text is searched by its aligned blocks of 8 bytes alone, and each of
# them is looked up among all blocks of 8 bytes that the secrets hold.
_BLOCK = 8
_RUN = PIECE_BYTES - _BLOCK  # blocks that begin one byte after the other, behind the first, in a piece
HEADERS = 8  # of tokens: one token server gives all of its tokens the same
_JWT_HEADER = re.compile(r"\AeyJ[A-Za-z0-9_-]*\.(?=[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z)")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)


class Redactor:
    """Finds the secrets that it has learned, in any letter case. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Forget every secret."""
        self._kept: set[str] = set()
        self._tokens: dict[str, int] = {}  # with their lengths in bytes, the oldest first
        self._headers: tuple[bytes, ...] = ()  # of the latest tokens
        self._blocks: set[int] = set()  # of the secrets of PIECE_BYTES and more
        self._short: tuple[tuple[bytes, re.Pattern[bytes]], ...] = ()  # the others, whole

    # -- what is secret ----------------------------------------------------------------------------------------------

    def learn_password(self, username: str, password: str) -> None:
        """Learn a password, and the pair that HTTP Basic makes of it.

        A password that is the user name hides nothing: then the pair alone is a secret.
        """
        pair = f"{username}:{password}".encode()
        secrets = {base64.b64encode(pair).decode(), base64.urlsafe_b64encode(pair).decode()}
        secrets |= {secret.rstrip("=") for secret in secrets}
        if password.casefold() != username.casefold():
            secrets.add(password)
        with self._lock:
            new = secrets - self._kept
            self._kept |= new
            self._add(new)

    def learn_token(self, token: str) -> None:
        """Learn a token. Of many the latest are kept."""
        header = _JWT_HEADER.match(token)
        with self._lock:
            if header is not None:
                self._headers = (*self._headers, _fold(header[0]))[-HEADERS:]
            if token in self._tokens:
                return
            self._tokens[token] = len(token.encode())
            size = sum(self._tokens.values())
            if size <= TOKENS_BYTES:
                self._add((token,))
                return
            # Half of the room is made at once: to forget costs as much as to learn all the others again.
            for oldest in list(self._tokens)[:-1]:
                if size <= TOKENS_BYTES // 2:
                    break
                size -= self._tokens.pop(oldest)
            self._blocks, self._short = _compile((*self._kept, *self._tokens))

    def _add(self, secrets: Iterable[str]) -> None:
        blocks, short = _compile(secrets)
        self._blocks |= blocks
        self._short = tuple({**dict(self._short), **dict(short)}.items())

    # -- where it stands ---------------------------------------------------------------------------------------------

    def holds_secret(self, text: str) -> bool:
        """Tell whether a text holds a secret, or a piece of one."""
        return self._may_hold(folded := _fold(text)) and bool(self._spans(folded))

    def holds_secret_in_json(self, document: bytes) -> bool:
        """Tell whether a JSON document holds a secret, written with or without escapes.

        Pieces of a token's header alone do not count. It names the algorithm, and often holds the token server's certificate,
        pieces of which are in an honest Notary's documents too.
        """
        text = document.decode("utf-8", "replace")
        return self._holds_more_than_headers(text) or (
            "\\" in text and self._holds_more_than_headers(_ESCAPE.sub(_unescape, text))
        )

    def _holds_more_than_headers(self, text: str) -> bool:
        folded = _fold(text)
        if not self._may_hold(folded):
            return False
        headers = self._headers
        pieces = [folded[start:stop] for start, stop in self._spans(folded)]
        if not all(any(piece in header for header in headers) for piece in pieces):
            return True
        # A registry chooses its tokens: a password in one of their headers is a password still.
        passwords = Redactor()
        passwords._add(self._kept)
        return passwords.holds_secret(text)

    def redact(self, text: str) -> str:
        """Take secrets, and pieces of them, out of a text. To be done before the text is cut, or half of one stays."""
        folded = _fold(text)
        if not self._may_hold(folded):
            return text
        spans = self._spans(folded)
        if not spans:
            return text
        raw = text.encode("utf-8", "surrogatepass")
        kept: list[bytes] = []
        end = 0
        for start, stop in spans:
            kept += (raw[end:start], REMOVED.encode())
            end = stop
        return b"".join((*kept, raw[end:])).decode("utf-8", "replace")

    def redact_json(self, text: str) -> str:
        """Take secrets out of the texts in a JSON document; its keys and its structure stay."""
        if not self.holds_secret(text):
            return text
        values = self.redact_values(json.loads(text))
        return json.dumps(values, separators=(",", ":"), ensure_ascii=text.isascii())

    def redact_values(self, value: Any) -> Any:
        """Take secrets out of the texts in a JSON value; one that is a JSON document itself stays one."""
        if isinstance(value, str):
            if value.startswith("{"):
                try:
                    return self.redact_json(value)
                except (ValueError, RecursionError):
                    pass  # a text like any other
            return self.redact(value)
        if isinstance(value, dict):
            return {key: self.redact_values(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_values(inner) for inner in value]
        return value

    def redact_file(self, content: bytes, content_type: str) -> bytes:
        """Take secrets out of a file in UTF-8 or UTF-16; gives any other file as it is."""
        detected = "utf-16-le" if content.startswith(codecs.BOM_UTF16_LE) else json.detect_encoding(content)
        encoding = {"utf-16": "utf-16-be", "utf-16-le": "utf-16-le", "utf-16-be": "utf-16-be"}.get(detected, "utf-8")
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            return content
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        text = text.removeprefix(mark)
        return (mark + (self.redact_json(text) if content_type == "application/json" else self.redact(text))).encode(
            encoding
        )

    def _may_hold(self, folded: bytes) -> bool:
        for form, _ in self._short:
            if form in folded:
                return True
        return len(folded) >= PIECE_BYTES and not self._blocks.isdisjoint(_aligned(folded))

    def _spans(self, folded: bytes) -> list[tuple[int, int]]:
        """Give where secrets stand, in order, none of them touching the next."""
        found = [match.span() for form, whole in self._short if form in folded for match in whole.finditer(folded)]
        blocks, last = self._blocks, len(folded) - _BLOCK
        done = 0
        if len(folded) >= PIECE_BYTES:
            for number, block in enumerate(_aligned(folded)):
                at = number * _BLOCK
                if block not in blocks or at < done:
                    continue
                first = at
                while first and _block(folded, first - 1) in blocks:
                    first -= 1
                while at < last and _block(folded, at + 1) in blocks:
                    at += 1
                done = at + 1
                if at - first >= _RUN:
                    found.append((first, at + _BLOCK))
        spans: list[tuple[int, int]] = []
        for start, stop in sorted(found):
            if spans and start <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(stop, spans[-1][1]))
            else:
                spans.append((start, stop))
        return spans


def _compile(secrets: Iterable[str]) -> tuple[set[int], tuple[tuple[bytes, re.Pattern[bytes]], ...]]:
    """Give the blocks of all long forms of some secrets, and their short forms."""
    blocks: set[int] = set()
    short: dict[bytes, re.Pattern[bytes]] = {}
    for form in {_fold(form) for secret in secrets for form in _forms(secret)} - {b""}:
        if len(form) >= PIECE_BYTES:
            blocks.update(_block(form, at) for at in range(len(form) - _BLOCK + 1))
        else:
            short[form] = _whole(form)
    return blocks, tuple(short.items())


def _forms(secret: str) -> set[str]:
    """Give a secret as it is, and as URLs, JSON, HTML and HTTP headers write it."""
    in_text = secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        in_text,
        in_text.replace('"', "&quot;").replace("'", "&#x27;"),
        in_text.replace('"', "&quot;").replace("'", "&#39;"),
        secret.encode("utf-8", "surrogatepass").decode("latin-1"),  # how a header in UTF-8 is read
    }


def _fold(text: str) -> bytes:
    """Write a text in lower case, each character at the place that it has in UTF-8."""
    if text.isascii():
        return text.lower().encode()
    raw = text.encode("utf-8", "surrogatepass")
    folded = text.lower().encode("utf-8", "surrogatepass")
    return folded if len(folded) == len(raw) else raw.lower()


def _aligned(folded: bytes) -> memoryview:
    return memoryview(folded)[: len(folded) // _BLOCK * _BLOCK].cast("Q")


def _block(folded: bytes, at: int) -> int:
    return int.from_bytes(folded[at : at + _BLOCK], sys.byteorder)


def _whole(form: bytes) -> re.Pattern[bytes]:
    """Match a short secret: as a word of its own, if it is so short that other words may hold it."""
    pattern = re.escape(form)
    if len(form) < WORD_BYTES:
        pattern = rb"(?<![a-z0-9\x80-\xff])" + pattern + rb"(?![a-z0-9\x80-\xff])"
    return re.compile(pattern)


def _unescape(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else found[2]


REDACTOR = Redactor()
