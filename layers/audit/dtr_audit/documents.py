"""Documents that people keep in the bucket, read as JSON with care."""

import json
from typing import Any

from .errors import AuditError
from .text import clean


def read_json(document: bytes, key: str, *, limit: int, error: type[AuditError]) -> Any:
    """Read a document's JSON; raises `error`, naming the document by its `key`, for what is none or has a key twice.

    Of two keys of one name each reader of JSON takes another. `limit` is in bytes.
    """

    def refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            names = [name for name, _ in pairs]
            twin = next(name for name in names if names.count(name) > 1)
            raise error(f"{key}: the key '{clean(twin, 64)}' stands twice in one object")
        return content

    if len(document) > limit:
        raise error(f"{key}: it is larger than {limit} bytes")
    try:
        return json.loads(document, object_pairs_hook=refuse_twins)
    except (ValueError, RecursionError) as fault:
        raise error(f"{key}: it is not JSON ({clean(str(fault), 120)})") from None
