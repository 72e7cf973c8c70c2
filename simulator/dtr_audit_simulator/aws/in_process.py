"""moto without a server: botocore's requests are answered in the process that makes them.

    with InProcessAws() as aws:
        boto3.client("s3").list_buckets()  # answered by moto; nothing leaves the process
        aws.endpoint                       # the same state over HTTP, for another process

moto's own server opens a connection and a thread for each request, which costs more than the answer. Every client made while the
block is open is answered here. A request to AWS that moto has no answer for gets 404: none leaves the process. A request to
any other host is not AWS's, and goes its way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, cached_property, lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from moto import backends
from moto.backend_index import backend_url_patterns
from moto.core.base_backend import BackendDict
from moto.core.models import DEFAULT_ACCOUNT_ID, botocore_stubber
from moto.core.request import Request, normalize_request
from moto.core.utils import get_equivalent_url_in_aws_domain
from werkzeug.exceptions import HTTPException

import dtr_audit_simulator.aws.moto_costs  # noqa: F401 (importing it is all it takes)

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

Answer = tuple[int, Mapping[str, str], str | bytes]
Respond = Callable[[Request], Answer]
_AWS = re.compile(r"https?://[^/:]+\.amazonaws\.com(\.cn)?[:/]")
_ROUTES = 16_384  # URLs whose handler is remembered

_NOT_FOUND: Answer = (404, {}, "The embedded AWS does not know this address.")


class InProcessAws:
    """moto's answers for this process. Its state belongs to the process, so one is open at a time."""

    def __init__(self) -> None:
        self._server: ThreadedMotoServer | None = None
        self.respond: Respond = respond  # what answers; a test may stand before it

    def __enter__(self) -> Self:
        BackendDict.reset()
        setattr(botocore_stubber, "process_request", self._answer)  # noqa: B010 - the type of a method may not be assigned to
        botocore_stubber.enabled = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        botocore_stubber.enabled = False
        delattr(botocore_stubber, "process_request")
        if self._server is not None:
            self._server.stop()

    @cached_property
    def endpoint(self) -> str:
        """The URL of a server with the same state, on the loopback interface; started when it is first asked for."""
        from moto.moto_server.threaded_moto_server import ThreadedMotoServer  # noqa: PLC0415 - seldom needed

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        return f"http://{host}:{port}"

    def _answer(self, request: AWSPreparedRequest) -> Answer | None:
        if not _AWS.match(request.url):
            return None
        # moto reads the region out of the host, and IAM's host in GovCloud names none.
        request.url = request.url.replace("//iam.us-gov.amazonaws.com", "//iam.us-gov-west-1.amazonaws.com")
        return self.respond(normalize_request(request))


def respond(request: Request) -> Answer:
    """Give moto's answer to a request: status, headers and body."""
    url = request.raw_url
    handle = _find_handler(url.partition("?")[0])
    if handle is None:
        return _NOT_FOUND
    try:
        return cast(Answer, handle(request, url, request.headers))
    except HTTPException as error:
        return error.code or 500, dict(error.get_headers()), error.get_body()


@lru_cache(maxsize=_ROUTES)
def _find_handler(url: str) -> Callable[[Any, str, Any], Any] | None:
    """Find who answers a URL, as moto's own stubber does for each request."""
    parsed, _ = get_equivalent_url_in_aws_domain(url)
    plain = f"{parsed.scheme}://{parsed.netloc}{parsed.path}"
    for service, pattern in backend_url_patterns:
        if pattern.match(plain):
            for compiled, handle in _routes(service):
                if compiled.match(plain):
                    return handle
    return None


@cache
def _routes(service: str) -> list[tuple[re.Pattern[str], Callable[[Any, str, Any], Any]]]:
    regions = backends.get_backend(cast(Any, service))[DEFAULT_ACCOUNT_ID]
    backend = regions["us-east-1" if "us-east-1" in regions else "aws"]
    return [(re.compile(url), handle) for url, handle in backend.urls.items()]
