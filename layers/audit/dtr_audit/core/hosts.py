"""Names of hosts, compared: `LocalHost`, `localhost:443` and `localhost.` are one host.

DTR and the Notary compare text. What is sent to them keeps the spelling that the settings or the registry use.
"""

import ipaddress
from functools import lru_cache

HTTPS_PORT = 443
CACHED = 1_024  # hosts; a registry has a few names


@lru_cache(maxsize=CACHED)
def canonical_host(host: str) -> str:
    """Give the form of `host[:port]` that is equal for all spellings of one host.

    Lower case, no default port, no dot at the end, IDNA as ASCII, IPv6 compressed. A text that is no host is only lower-cased.
    """
    name, port = _split(host.lower())
    name = _canonical_name(name)
    if port.isascii() and port.isdigit():
        port = str(int(port)) if len(port) <= len("65535") else port
    return name if port in {"", str(HTTPS_PORT)} else f"{name}:{port}"


def canonical_gun(gun: str) -> str:
    """Give `host/namespace/repository`, or the beginning of one with `*` behind it, with its host in the canonical form."""
    host, slash, path = gun.partition("/")
    # The beginning of a host's name is compared as text, in lower case.
    return f"{canonical_host(host)}/{path}" if slash else gun.lower()


def _split(host: str) -> tuple[str, str]:
    at = host.rfind(":")
    is_port = at > host.rfind("]")
    return (host[:at], host[at + 1 :]) if is_port else (host, "")


def _canonical_name(name: str) -> str:
    if name.startswith("[") and name.endswith("]"):
        try:
            return f"[{ipaddress.IPv6Address(name[1:-1]).compressed}]"
        except ValueError:
            return name
    name = name.removesuffix(".")
    if not name.isascii():
        try:
            return name.encode("idna").decode("ascii")
        except UnicodeError:
            return name
    return name
