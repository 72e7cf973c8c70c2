"""Answers that a fault has replaced, blown up or cut off."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from dtr_audit_simulator.dtr.fault_kinds import (
    Body,
    Closed,
    Cookies,
    EndlessBody,
    GzipBomb,
    Gzipped,
    Redirect,
    Slow,
    Status,
    Unending,
)
from dtr_audit_simulator.dtr.faults import Struck
from dtr_audit_simulator.http.transport import Delivery, Response


def replaced(struck: Struck) -> Body | Redirect | Status | EndlessBody | Unending | GzipBomb | None:
    """Give the first strike that replaces the answer."""
    for call_fault in struck.on_calls:
        if isinstance(call_fault, (Body, Redirect, Status, EndlessBody, Unending, GzipBomb)):
            return call_fault
    return None


def oversized(call_fault: EndlessBody | Unending | GzipBomb) -> Response:
    """Make an answer that is larger than any reader wants."""
    match call_fault:
        case EndlessBody():
            return endless_body(call_fault)
        case Unending():
            return unending(call_fault)
        case GzipBomb():
            return gzip_bomb(call_fault)


def endless_body(call_fault: EndlessBody) -> Response:
    """Make an answer without end."""
    row = b'{"name":"endless","inNotary":true,"hashMismatch":false},'
    chunk = row * max(1, call_fault.chunk // len(row))

    def stream() -> Iterator[bytes]:
        yield b"["
        while True:
            yield chunk

    return Response(200, stream=stream)


def unending(call_fault: Unending) -> Response:
    """Make an answer one part of which has no end."""
    before, piece = call_fault.part.value
    # Without pauses many pieces go at once: what is to be measured is the reader, not this server.
    repeated = piece if call_fault.pause else piece * max(1, 65_536 // len(piece))
    pieces = itertools.chain([before], itertools.repeat(repeated))
    return Response(200, wire=lambda: pieces, delivery=Delivery(body_pause=call_fault.pause))


def gzip_bomb(call_fault: GzipBomb) -> Response:
    """Make a small answer that is huge once decompressed."""

    def stream() -> Iterable[bytes]:
        chunks: Iterable[bytes] = _filled_list(call_fault.size, call_fault.element)
        for _ in range(call_fault.layers):
            chunks = _compressed(chunks)
        return chunks

    encoding = ", ".join(["gzip"] * call_fault.layers)
    return Response(200, headers=(("Content-Encoding", encoding),), stream=stream)


def _filled_list(size: int, element: bytes) -> Iterator[bytes]:
    yield b"["
    # After the last comma there is one more element.
    end = b"[]]" if element.endswith(b",") else b"]"
    left = max(0, size - 1 - len(end)) // len(element)
    many = max(1, 1_048_576 // len(element))
    while left > 0:
        yield element * min(left, many)
        left -= many
    yield end


def _compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    for chunk in chunks:
        yield compressor.compress(chunk)
    yield compressor.flush()


def spoiled(response: Response, struck: Struck) -> Response:
    """Apply the strikes that spoil an answer's delivery."""
    for call_fault in struck.on_calls:
        match call_fault:
            case Closed(after_bytes=None):
                response = _delivered(response, unanswered=True)
            case Closed(after_bytes=int(sent)):
                response = _delivered(response, cut_after=sent)
            case Slow():
                response = _delivered(
                    response,
                    delay=call_fault.delay,
                    head_pause=call_fault.head_pause,
                    body_pause=call_fault.body_pause,
                    body_piece=call_fault.body_piece,
                )
            case Gzipped():
                headers = (*response.headers, ("Content-Encoding", "gzip"))
                response = replace(
                    response, body=gzip.compress(response.body, 1) + call_fault.followed_by, headers=headers
                )
            case Cookies():
                response = replace(response, headers=(*response.headers, *_COOKIES))
            case _:
                pass
    return response


_COOKIES = (
    ("Set-Cookie", "session=s3ss10n-c00kie; Path=/; HttpOnly; Secure"),
    ("Set-Cookie", "AWSALB=sticky; Path=/; Domain=.example; Max-Age=604800"),
    ("Set-Cookie", "malformed; =; ;;"),
)


def _delivered(response: Response, **changes: Any) -> Response:
    return replace(response, delivery=replace(response.delivery, **changes))
