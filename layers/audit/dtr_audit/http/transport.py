"""HTTPS to a party that is hostile until proven otherwise: bounded in size, time and retries, never redirected.

One deadline covers a whole request, from connecting to the last trailer: the watchdog keeps it, and that of the run.

The one seam where the errors of requests, urllib3 and ssl become ours.
"""

import email.utils
import random
import socket
import ssl
import threading
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError, SSLError
from urllib3.exceptions import TimeoutError as TookTooLongError

from dtr_audit.core.text import clean
from dtr_audit.errors import OutOfTimeError, RegistryError, TransientError
from dtr_audit.http.body import CHUNK_BYTES, Body
from dtr_audit.http.certificates import Refused, RefusedCertificateError, read_authorities
from dtr_audit.http.connection import HEAD_BYTES, TooManyLinesError
from dtr_audit.http.exchange import BODY_BYTES, REGISTRY, Answer, Call, Clock, Endpoint, SystemClock
from dtr_audit.http.limiter import ConcurrencyLimiter, Permit
from dtr_audit.http.memory_budget import BUDGET, Charge
from dtr_audit.http.tls import VerifyingAdapter, find_cause, innermost_cause, make_tls_context
from dtr_audit.http.watchdog import WATCHDOG, Watch

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # the longest wait for the next byte
LONG_SILENCE_SECONDS = (
    170.0  # the same for what is read again, since it may have been too slow; less than a request has
)
SLOW_ATTEMPTS = 2  # at a request to which no answer comes in time: each takes a minute or more
REQUEST_SECONDS = 180.0  # of one attempt, from connecting to the last byte of its answer, also while bytes arrive
ATTEMPTS = 5
BACKOFF_SECONDS = 0.5  # the first wait is up to that long, each further one up to twice the last
BACKOFF_LIMIT_SECONDS = 20.0
RETRY_AFTER_LIMIT_SECONDS = 120.0
RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})


# OpenSSL's verification errors that only VERIFY_X509_STRICT raises (x509_vfy.h, OpenSSL 3).
_STRICT_ERRORS = range(80, 95)


class Transport:
    """Requests to one host. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        *,
        ca_bundle: str,
        x509_strict: bool,
        connections: int,
        stop_at: float,
        clock: Clock | None = None,
        endpoint: Endpoint = REGISTRY,
        limiter: ConcurrencyLimiter | None = None,
    ) -> None:
        """Prepare for `url` (https://host[:port]); `stop_at` is on the clock, after it nothing is asked any more.

        `pace` is that of another transport to the same host, if there is one.
        """
        self.url = url
        self._endpoint = endpoint
        self._x509_strict = x509_strict
        self._authorities = read_authorities(ca_bundle, f"secret: {endpoint.bundle_keys}") if ca_bundle else ()
        self._stop_at = stop_at
        self._clock = clock or SystemClock()
        self._adapter = VerifyingAdapter(make_tls_context(self._authorities, x509_strict), connections)
        self._pool = self._adapter.connections_to(url)
        self._has_own_limiter = limiter is None
        self.limiter = limiter or ConcurrencyLimiter(connections, self._clock, endpoint.name)
        self._stopped = threading.Event()
        self.silence_seconds = SILENCE_SECONDS
        self._slow_attempts = SLOW_ATTEMPTS

    def allow_slow_answers(self) -> None:
        """Wait longer for each answer from now on, and for a slow one once."""
        self.silence_seconds = LONG_SILENCE_SECONDS
        self._slow_attempts = 1

    def close(self) -> None:
        """Close every connection; a request under way ends with an error."""
        if self._has_own_limiter and not self._stopped.is_set():
            self.limiter.tell()
        self._stopped.set()
        self._adapter.close()

    def get(
        self,
        path: str,
        *,
        params: Mapping[str, str | bytes] | None = None,
        authorization: str = "",
        accept: str = "application/json",
        is_optional: bool = False,
        limit: int = BODY_BYTES,
        charge: Charge | None = None,
    ) -> Answer:
        """Ask once, and again after a passing fault, unless the question `is_optional`.

        `limit` is the most bytes of an answer 200. Where it is more than a few of them may hold at once, the text is charged to
        `charge`, beside what that holds already; the caller releases it.

        Raises RegistryError when no usable answer came, TransientError where it may come later, and OutOfTimeError when the time is
        up. An answer with any status is given, a retried one after all attempts; a redirect is an error.
        """
        call = Call("GET", path, accept, authorization, is_optional, limit, charge)
        attempts = 1 if is_optional else ATTEMPTS
        slow = 0
        for attempt in range(1, attempts + 1):
            last = attempt == attempts
            try:
                answer = self._ask(call, params=params)
            except _BrokenConnectionError as error:
                slow += error.is_slow
                if last or slow >= self._slow_attempts:
                    tried = f" ({attempt} attempts)" if attempt > 1 else ""
                    kind = TransientError if error.may_pass else RegistryError
                    raise kind(f"{call}: {error}{tried}") from None
                self._wait(_backoff(attempt), call)
                continue
            if answer.status not in RETRIED_STATUSES or last:
                return answer
            asked = _retry_after(answer.headers)
            if asked > RETRY_AFTER_LIMIT_SECONDS:
                raise TransientError(
                    f"{call}: answered {answer.status} and asks to come back in {asked:.0f} s; "
                    f"a request waits {RETRY_AFTER_LIMIT_SECONDS:.0f} s at most",
                    asked,
                )
            self._wait(max(_backoff(attempt), asked), call)
        raise AssertionError("unreachable")  # pragma: no cover

    def post(self, path: str, content: bytes = b"", *, authorization: str = "") -> Answer:
        """Send a JSON document, and never twice: after a fault nobody knows whether it has had its effect.

        Raises as `get` does.
        """
        call = Call("POST", path, "application/json", authorization)
        try:
            return self._ask(call, content=content)
        except _BrokenConnectionError as error:
            raise RegistryError(f"{call}: {error}") from None

    def _ask(
        self, call: Call, *, params: Mapping[str, str | bytes] | None = None, content: bytes | None = None
    ) -> Answer:
        permit = self._take_permit(call)
        waited: float | None = None
        refused = False
        try:
            left = self._seconds_left(call)
            missing = "whole head of an answer"
            watch = WATCHDOG.begin(min(REQUEST_SECONDS, left))
            try:
                response = self._send(call, params, content)
                missing = "end of the answer"
                refused = response.status == 429 or "Retry-After" in response.headers
                if response.status not in RETRIED_STATUSES:
                    waited = self._clock.monotonic() - permit.began
                elif (
                    not call.is_optional and 0 < (asked := _retry_after(response.headers)) <= RETRY_AFTER_LIMIT_SECONDS
                ):
                    # Who asks one of us to wait asks all of us; but nothing that is needed waits for what is not.
                    self.limiter.pause(asked)
                answer = self._take(response, call, watch)
            except _BrokenConnectionError:
                waited = None
                if not watch.expired:
                    raise
            finally:
                WATCHDOG.end(watch)
            if watch.expired:
                # What came may be cut off: without a length, the end of the connection is the end of the body.
                waited = None
                if left <= REQUEST_SECONDS:
                    raise self._out_of_time(call)
                raise _BrokenConnectionError(f"no {missing} came within {REQUEST_SECONDS:g} s", is_slow=True)
            return answer
        finally:
            self.limiter.end(permit, waited, refused=refused)

    def _take_permit(self, call: Call) -> Permit:
        while True:
            while (pause := self.limiter.pause_left) > 0:
                if pause >= self._seconds_left(call):
                    raise OutOfTimeError(
                        f"{call}: {self._endpoint.name} is to be asked again later than the time of this run allows"
                    )
                self._clock.sleep(pause)
            permit = self.limiter.begin(lambda: self._seconds_left(call), at_once=BUDGET.is_large_here)
            if self.limiter.pause_left <= 0:
                return permit
            # All were asked to wait while this one waited for its turn.
            self.limiter.give_back()

    def _send(self, call: Call, params: Mapping[str, str | bytes] | None, content: bytes | None) -> BaseHTTPResponse:
        """Send a request, and give the answer as it begins."""
        left = self._seconds_left(call)
        headers = {
            "Accept": call.accept,
            "Accept-Encoding": "gzip",
            "User-Agent": "dtr-signature-audit",
        }
        if call.authorization:
            headers["Authorization"] = call.authorization
        if content:
            headers["Content-Type"] = "application/json"
        try:
            return self._pool.urlopen(
                call.method,
                f"{call.path}?{urlencode(params)}" if params else call.path,
                body=content,
                headers=headers,
                timeout=Timeout(connect=min(CONNECT_SECONDS, left), read=min(self.silence_seconds, left)),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except SSLError as error:
            refused = find_cause(ssl.SSLCertVerificationError, error)
            if refused is not None:
                raise self._certificate_error(refused) from None
            raise _BrokenConnectionError(f"the TLS connection failed: {innermost_cause(error)}") from None
        except ProxyError:
            raise _BrokenConnectionError(
                "the proxy of this environment (HTTPS_PROXY) does not let it through"
            ) from None
        except (HTTPError, OSError) as error:
            if find_cause(TooManyLinesError, error):
                raise _BrokenConnectionError(f"the answer's headers are larger than {HEAD_BYTES // 1024} KiB") from None
            # Whom nobody answers at all is a timeout too, to urllib3.
            if isinstance(error, TookTooLongError) and not isinstance(error, NewConnectionError):
                raise _BrokenConnectionError(f"no answer in time ({self.silence_seconds:g} s)", is_slow=True) from None
            unresolved = find_cause(socket.gaierror, error)
            # That there is no such name is an answer, which waiting does not change.
            is_unknown = unresolved is not None and unresolved.errno == socket.EAI_NONAME
            raise _BrokenConnectionError(f"no answer: {innermost_cause(error)}", may_pass=not is_unknown) from None

    def _take(self, response: BaseHTTPResponse, call: Call, watch: Watch) -> Answer:
        """Take an answer, whole, and give its connection back."""
        try:
            if response.status < 200:
                # What follows on this connection would be taken for the answer to the next question.
                raise _BrokenConnectionError(f"an interim answer came in place of one ({response.status})")
            if 300 <= response.status < 400:
                raise RegistryError(
                    f"{call}: answered with a redirect ({response.status}), and none is followed. "
                    f"{self._endpoint.url_setting} must be {self._endpoint.name}'s own address, and a proxy on the way "
                    "must not ask "
                    "for a login"
                )
            return Answer(response.status, response.headers, self._read(response, call, watch))
        finally:
            # Of an answer that was read to its end the connection is back in the pool already; any other is closed.
            response.close()
            response.release_conn()

    def _read(self, response: BaseHTTPResponse, call: Call, watch: Watch) -> bytes:
        """Read the body in small steps, none of which takes more than is charged or allowed."""
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in {"identity", "gzip", ""}:
            raise RegistryError(f"{call}: the answer's encoding {clean(encoding, 40)!r} was not asked for")
        inflate = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
        body = Body(call, response.status == 200, lambda: self._check_waiting(call, watch))
        try:
            return self._read_into(body, inflate, response, call)
        except Exception:
            body.drop()
            raise

    def _read_into(
        self, body: "Body", inflate: "zlib._Decompress | None", response: BaseHTTPResponse, call: Call
    ) -> bytes:
        try:
            while chunk := response.read1(CHUNK_BYTES):
                if not body.add(chunk, inflate):
                    return body.whole()
                if inflate and inflate.unused_data:
                    raise RegistryError(f"{call}: the answer goes on after the end of its gzip stream")
                if response.length_remaining == 0:
                    break
                self._seconds_left(call)
        except zlib.error:
            raise _BrokenConnectionError("the answer is not the gzip that it says it is") from None
        except (HTTPError, OSError) as error:
            if find_cause(TooManyLinesError, error):
                raise _BrokenConnectionError("the answer's chunks or trailers have no end") from None
            is_slow = isinstance(error, TookTooLongError)
            raise _BrokenConnectionError(f"the answer broke off: {innermost_cause(error)}", is_slow=is_slow) from None
        # No body at all is no broken one, whatever encoding it claims.
        if inflate and body.received and not inflate.eof:
            raise _BrokenConnectionError("the answer broke off")
        return body.whole()

    def _check_waiting(self, call: Call, watch: Watch) -> None:
        """End the wait for room in memory with the time of the request, whose connection is shut down by then."""
        self._seconds_left(call)
        if watch.expired:
            raise _BrokenConnectionError("other answers took all memory meanwhile")

    def check_time(self, what: str) -> None:
        """Raise OutOfTimeError, of `what`, if the time is up."""
        self._seconds_left(Call("GET", what, "", ""))

    def _seconds_left(self, call: Call) -> float:
        left = self._stop_at - self._clock.monotonic()
        if left <= 0 or self._stopped.is_set():
            raise self._out_of_time(call)
        return left

    def _out_of_time(self, call: Call) -> OutOfTimeError:
        return OutOfTimeError(f"{call}: the time for reading {self._endpoint.name} is over")

    def _wait(self, seconds: float, call: Call) -> None:
        if seconds >= self._seconds_left(call):
            raise RegistryError(f"{call}: it is to be asked again later than the time of this run allows")
        self._clock.sleep(seconds)

    def _certificate_error(self, cause: ssl.SSLCertVerificationError) -> RegistryError:
        said = clean(cause.verify_message, 200).removesuffix(".")
        refused = Refused(
            cause.verify_code,
            cause.sent if isinstance(cause, RefusedCertificateError) else (),
            self._authorities,
            host=urlsplit(self.url).hostname or "",
            server=self._endpoint.name,
            url_setting=self._endpoint.url_setting,
            bundle=self._endpoint.bundle_keys,
            is_strict=self._x509_strict,
        )
        if self._x509_strict and cause.verify_code in _STRICT_ERRORS:
            remedy = (
                "The certificate breaks RFC 5280, which Python 3.13 checks. Best have it issued anew; "
                "or set X509_STRICT to false, which leaves certificates verified and drops this strictness alone"
            )
        elif refusal := refused.explain():
            said, remedy = f"{said}. In other words: {refusal.problem}", refusal.remedy
        elif self._authorities:
            remedy = (
                f"Check that {self._endpoint.bundle_keys} in the secret holds the authority that issued {self._endpoint.name}'s "
                "certificate"
            )
        else:
            remedy = f"If a private authority issued it, put that authority's PEM into {self._endpoint.bundle_keys} in the secret"
        return RegistryError(f"{self.url}: its certificate is refused: {said}. {remedy}")


class _BrokenConnectionError(Exception):
    """A fault of the connection.

    `may_pass` is that it may have passed in some minutes, `is_slow` that the peer was given all the time that one request has.
    """

    def __init__(self, message: str, *, may_pass: bool = True, is_slow: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        self.is_slow = is_slow


def _backoff(attempt: int) -> float:
    """Give a wait in seconds with full jitter, so that many callers do not come back at once."""
    most: float = min(BACKOFF_LIMIT_SECONDS, BACKOFF_SECONDS * 2.0 ** (attempt - 1))
    return random.uniform(0.0, most)  # noqa: S311 - spreading load, not a secret


def _retry_after(headers: Mapping[str, str]) -> float:
    """Give the wait that the answer asks for, in seconds (RFC 9110, 10.2.3: a number or a date)."""
    text = headers.get("Retry-After", "").strip()[:64]
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
