"""The hosts that images are named by, and the host that a challenge names."""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from dtr_audit.core.hosts import HTTPS_PORT, canonical_host
from dtr_audit.core.redaction import REDACTOR
from dtr_audit.core.text import clean
from dtr_audit.settings import DOMAIN_LENGTH, is_domain

_REALM = re.compile(r'\brealm\s*=\s*(?:"([^"]*)|([^\s",]+))', re.IGNORECASE)


def choose_domains(configured: Collection[str], dtr_host: str, url: str) -> tuple[tuple[str, ...], str]:
    """Choose the domains to ask under, and a warning ('' if none) where the choice is a guess.

    The domain must be the host[:port] used in `docker push`; a wrong one makes every tag look unsigned. The registry's own name
    for itself counts only if it is the host of the settings, in any spelling: domains stand in commands that people copy, and
    what is pinned and remembered depends on them.
    """
    host = urlsplit(url).netloc
    asked = tuple(configured) or (host,)
    if is_domain(dtr_host) and canonical_host(dtr_host) not in map(canonical_host, (host, *configured)):
        return asked, (
            f"the registry calls itself {clean(dtr_host, DOMAIN_LENGTH)} (dtrHost), which is neither the host of DTR_URL nor "
            f"one of DTR_DOMAINS. That name was not used, and {', '.join(asked)} was asked for. If you know the name, and images "
            "are pushed under it, set DTR_DOMAINS"
        )
    if configured:
        return asked, ""
    if is_domain(dtr_host):
        # Clients leave the default port out, some settings name it: signed under either is signed.
        bare = dtr_host.removesuffix(f":{HTTPS_PORT}")
        return ((dtr_host,) if bare == dtr_host else (bare, dtr_host)), ""
    return asked, (
        f"the registry does not name its own domain (dtrHost), so {host} was asked for; "
        "if images are pushed under another name, set DTR_DOMAINS"
    )


def foreign_host(challenge: str, own: str) -> str:
    """Give the first host that a challenge names as the place for tokens and that is not `own`, in any spelling; '' if none is.

    A realm without a host is a name, or a path on the host that was asked.
    """
    # Redacted before it is cut in pieces: a password may hold what they are cut at.
    for quoted, bare in _REALM.findall(REDACTOR.redact(challenge)):
        realm: str = quoted or bare
        try:
            host = urlsplit(realm).netloc
        except ValueError:
            host = realm
        if host and canonical_host(host) != canonical_host(own):
            return host
    return ""
