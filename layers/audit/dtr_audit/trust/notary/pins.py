"""The pins: which roots are trusted for which repositories.

They stand in one document in the bucket, `policy/trust-pins.json`, which people keep and S3 versions:

    {"pins": [{"pattern": "dtr.example.mil/payments/*", "root_keys": ["<64 hexadecimal digits>"],
               "authorities": "-----BEGIN CERTIFICATE-----…"}]}

`policy.Pin` says what they mean. A document that is broken in one place pins nothing: half of it would trust on first use what the
other half was to pin.
"""

import re
from collections.abc import Iterator
from typing import Any

from dtr_audit.core.documents import read_json
from dtr_audit.core.hosts import canonical_gun
from dtr_audit.core.text import clean
from dtr_audit.errors import SettingsError
from dtr_audit.trust.notary.metadata import is_key_id
from dtr_audit.trust.notary.policy import Pin

KEY = "policy/trust-pins.json"
DOCUMENT_BYTES = 1_000_000
PINS = 1_000
PATTERN_LENGTH = 512
ROOT_KEYS = 64  # of one pin
AUTHORITIES_LENGTH = 64_000  # of one pin, in characters: some 40 certificates
FAULTS_NAMED = 5

_KEYS = ("pattern", "root_keys", "authorities")
_HOST = r"[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*"
_NAMESPACE = r"(?!\.\*)[^\s/\\\[\]:;|=,+*?<>'\"]+"  # what LDAP lets an account's name hold
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
# Narrow, because a pattern that no repository can have would leave those that were meant unpinned, and nobody would know.
_PATTERN = re.compile(
    rf"{_HOST}/{_NAMESPACE}/{_NAME}|(?:{_HOST}(?:/{_NAMESPACE}/(?:{_NAME})?|/(?:{_NAMESPACE})?)|(?:{_HOST})?)\*"
)


def parse_pins(document: bytes) -> tuple[Pin, ...]:
    """Read the document's JSON; raises SettingsError that names the first faults, each with its JSON path.

    Its text is the same for the same fault. `cryptography` is loaded only for authorities.
    """
    content = read_json(document, KEY, limit=DOCUMENT_BYTES, error=SettingsError)
    if not isinstance(content, dict) or set(content) != {"pins"} or not isinstance(content["pins"], list):
        raise SettingsError(f'{KEY}: $: {{"pins": […]}} is needed, and no other key')
    entries = content["pins"]
    if not 1 <= len(entries) <= PINS:
        raise SettingsError(f"{KEY}: $.pins: {len(entries)} entries; 1 to {PINS} are needed")
    faults: list[str] = []
    for number, entry in enumerate(entries):
        faults += _faults(entry, f"$.pins[{number}]")
    faults += _repetitions(entries)
    if faults:
        more = f"; and {len(faults) - FAULTS_NAMED} more" if len(faults) > FAULTS_NAMED else ""
        raise SettingsError(f"{KEY}: {'; '.join(faults[:FAULTS_NAMED])}{more}")
    return tuple(
        Pin(entry["pattern"], frozenset(entry.get("root_keys", ())), entry.get("authorities", "")) for entry in entries
    )


def _faults(entry: Any, where: str) -> Iterator[str]:
    """Give what is wrong with one entry."""
    if not isinstance(entry, dict):
        yield f"{where}: an object is needed"
        return
    yield from (f"{where}: '{clean(key, 64)}' is no key of a pin" for key in entry if key not in _KEYS)
    if "pattern" not in entry:
        yield f"{where}.pattern: it is missing"
    elif not _is_pattern(entry["pattern"]):
        yield (
            f"{where}.pattern: host/namespace/repository is needed, or the beginning of that with '*' at its end, at most "
            f"{PATTERN_LENGTH} characters"
        )
    if "root_keys" not in entry and "authorities" not in entry:
        yield f"{where}: root_keys, authorities or both are needed"
    if "root_keys" in entry:
        yield from _faults_of_keys(entry["root_keys"], f"{where}.root_keys")
    if "authorities" in entry and not _are_certificates(entry["authorities"]):
        yield (
            f"{where}.authorities: certificates in PEM form are needed, each of their lines with \\n at its end, at most "
            f"{AUTHORITIES_LENGTH} characters"
        )


def _repetitions(entries: list[Any]) -> Iterator[str]:
    """Give the patterns that stand there twice, in any spelling of the host: only one of the two would count."""
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_pattern(entry.get("pattern")):
            continue
        first = seen.setdefault(canonical_gun(entry["pattern"]), number)
        if first != number:
            yield f"$.pins[{number}].pattern: {clean(entry['pattern'], 64)} is that of $.pins[{first}] too"


def _faults_of_keys(value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, list) or not 1 <= len(value) <= ROOT_KEYS:
        yield f"{where}: a list of 1 to {ROOT_KEYS} key ids is needed"
        return
    for number, key_id in enumerate(value):
        if not isinstance(key_id, str) or not is_key_id(key_id):
            yield f"{where}[{number}]: a key id is needed, 64 hexadecimal digits in lower case"


def _is_pattern(value: Any) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= PATTERN_LENGTH
        and value.isprintable()
        and _PATTERN.fullmatch(value) is not None
        and not {".", ".."}.intersection(value.split("/"))
    )


def _are_certificates(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > AUTHORITIES_LENGTH:
        return False
    from dtr_audit.trust.notary.roots import check_authorities  # noqa: PLC0415 - it loads `cryptography`

    try:
        check_authorities(value)
    except SettingsError:
        return False
    return True
