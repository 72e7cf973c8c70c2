"""TLS: what a server's certificate is checked with, and which error names its fault."""

import ssl
from collections.abc import Sequence
from typing import Any, TypeVar

import certifi
import requests.utils
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import HTTPError

from dtr_audit.core.text import clean
from dtr_audit.errors import SettingsError
from dtr_audit.http.certificates import ExplainingSocket
from dtr_audit.http.connection import WatchedConnection

_E = TypeVar("_E", bound=BaseException)


class VerifyingAdapter(HTTPAdapter):
    """Connections that trust exactly the authorities of one TLS context, whatever the environment says.

    Of requests only this is used: a session prepares and merges for each request what is the same for all of them, and takes
    cookies, redirects and ~/.netrc into account, of which none is wanted.
    """

    def __init__(self, context: ssl.SSLContext, connections: int) -> None:
        # A given bundle stands alone; certificates are verified whatever the context said.
        self._tls: dict[str, Any] = {"ssl_context": context, "cert_reqs": "CERT_REQUIRED"}
        super().__init__(pool_connections=1, pool_maxsize=connections, pool_block=True)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """Make the pools of direct connections, with the TLS context."""
        super().init_poolmanager(connections, maxsize, block, **self._tls, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Make the pools of connections through a proxy, with the TLS context."""
        return super().proxy_manager_for(proxy, **self._tls, **options)

    def connections_to(self, url: str) -> HTTPConnectionPool:
        """Give the connections to a host, through the proxy that the environment names for it."""
        proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
        try:
            manager = (
                self.proxy_manager_for(proxy if "://" in proxy else f"http://{proxy}") if proxy else self.poolmanager
            )
            pool: HTTPConnectionPool = manager.connection_from_url(url)
        except (RequestException, HTTPError, ValueError):
            raise SettingsError("the proxy of this environment (HTTPS_PROXY) cannot be used") from None
        pool.ConnectionCls = WatchedConnection
        return pool


def make_tls_context(authorities: Sequence[bytes], x509_strict: bool) -> ssl.SSLContext:
    """Make the context that trusts the given authorities alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    context.sslsocket_class = ExplainingSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13's defaults, on every version: what is tested here is what runs in Lambda.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if x509_strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # A name of a host counts where RFC 9525 has it; Docker's clients read no other either.
    context.hostname_checks_common_name = not x509_strict
    if authorities:
        context.load_verify_locations(cadata=b"".join(authorities))
    else:
        context.load_verify_locations(cafile=certifi.where())
    return context


def list_causes(error: BaseException) -> list[BaseException]:
    """List an error and what it wraps, by cause, reason or argument, outermost first."""
    found: list[BaseException] = []
    pending: list[BaseException] = [error]
    while pending and len(found) < 16:
        current = pending.pop(0)
        if current in found:
            continue
        found.append(current)
        wrapped = (current.__cause__, current.__context__, getattr(current, "reason", None), *current.args)
        pending += [inner for inner in wrapped if isinstance(inner, BaseException)]
    return found


def find_cause(kind: type[_E], error: BaseException) -> _E | None:
    """Find the first cause of a kind; None where there is none."""
    return next((inner for inner in list_causes(error) if isinstance(inner, kind)), None)


def innermost_cause(error: BaseException) -> str:
    """Name the plainest cause: an OSError's text where there is one, never a URL or a header."""
    for inner in reversed(list_causes(error)):
        if isinstance(inner, OSError) and inner.strerror:
            return clean(inner.strerror, 200)
    return type(error).__name__
