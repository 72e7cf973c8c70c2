"""What moto and botocore do more often than an embedded AWS needs. Importing this module is all it takes.

- moto keeps every object that it ever made, for a dashboard, so that a long-lived process grows and each collection of its garbage
  takes longer.
- moto looks for ten possible types in each attribute of each DynamoDB item that it answers with.
- moto reads a template as YAML by rules written in Python, also where it is JSON.
- botocore looks for its models of the services, and parses them, again in every session, and each audit has a session of its own.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from botocore.loaders import JSONFileLoader, Loader
from moto.cloudformation.models import Stack
from moto.core.common_models import BaseModel
from moto.core.serialize import BaseJSONSerializer
from moto.s3.models import FakeKey

_BINARY = {"B", "BS"}

_serialize_structure = BaseJSONSerializer._serialize_type_structure


class _HasBinaryError(Exception):
    """An attribute is binary: moto encodes it."""


def _make_without_tracking(cls: type[BaseModel], *_: Any, **__: Any) -> BaseModel:
    return object.__new__(cls)


def _dispose(key: FakeKey) -> None:
    key.dispose()


def _serialize(serializer: BaseJSONSerializer, serialized: dict[str, Any], value: Any, shape: Any, key: str) -> None:
    """Give an attribute of DynamoDB as it is stored; leave everything else to moto."""
    if key and shape.name == "AttributeValue" and type(value) is dict:
        try:
            serialized[key] = _copy(value)
        except _HasBinaryError:
            pass
        else:
            return
    _serialize_structure(serializer, serialized, value, shape, key)


def _copy(attribute: dict[str, Any]) -> dict[str, Any]:
    ((kind, value),) = attribute.items()
    if kind in _BINARY:
        raise _HasBinaryError
    if kind == "M":
        return {kind: {name: _copy(inner) for name, inner in value.items()}}
    if kind == "L":
        return {kind: [_copy(inner) for inner in value]}
    return attribute


_parse_template = Stack.parse_template
_load_file = JSONFileLoader.load_file
_list_services = Loader.list_available_services


def _parse_json_first(template: str) -> Any:
    try:
        return json.loads(template)
    except ValueError:
        return _parse_template(template)


@cache
def _load_model(path: str) -> Any:
    return _load_file(JSONFileLoader(), path)


@cache
def _list_models(kind: str, *folders: str) -> Any:
    return _list_services(Loader(list(folders), include_default_search_paths=False), kind)


# The type of a method may not be assigned to, hence setattr.
setattr(BaseModel, "__new__", _make_without_tracking)  # noqa: B010
setattr(FakeKey, "__del__", _dispose)  # noqa: B010 - moto's own warns unless every object was kept to its end
setattr(BaseJSONSerializer, "_serialize_type_structure", _serialize)  # noqa: B010
setattr(Stack, "parse_template", staticmethod(_parse_json_first))  # noqa: B010
setattr(JSONFileLoader, "load_file", lambda _, path: _load_model(path))  # noqa: B010
setattr(Loader, "list_available_services", lambda loader, type_name: _list_models(type_name, *loader.search_paths))  # noqa: B010
