"""What moto and botocore do more often than an embedded AWS needs. Importing this module is all it takes.

- moto keeps every object that it ever made, for a dashboard, so that a long-lived process grows and each collection of its garbage
  takes longer.
- moto looks for ten possible types in each attribute of each DynamoDB item that it answers with.
- moto reads a template as YAML by rules written in Python, also where it is JSON.
- moto lists the methods of a service's class for each request, and makes an RSA key for each subscription of a topic.
- botocore looks for its models of the services, and parses them, again in every session, and each audit has a session of its own.
  Likewise it builds the methods of each client, its endpoint rules, its event handlers and its user agent again.
- botocore signs each request. moto reads the key id and the region of a signature, and does not verify it.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

from botocore import hooks, regions
from botocore.auth import SigV4Auth
from botocore.client import ClientCreator
from botocore.endpoint_provider import EndpointProvider
from botocore.hooks import EventAliaser, HierarchicalEmitter, NodeList
from botocore.loaders import JSONFileLoader, Loader
from botocore.session import Session
from botocore.useragent import UserAgentComponent
from cryptography.hazmat.primitives.asymmetric import rsa
from moto.cloudformation.models import Stack
from moto.core import responses
from moto.core.common_models import BaseModel
from moto.core.serialize import BaseJSONSerializer
from moto.core.utils import method_names_from_class
from moto.s3.models import FakeKey
from moto.sns.models import Subscription

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


# What botocore's type stubs leave out is taken by name.
_alias: Any = getattr(EventAliaser, "_alias_event_name")  # noqa: B009
_create_methods: Any = getattr(ClientCreator, "_create_methods")  # noqa: B009
_register_builtin: Any = getattr(Session, "_register_builtin_handlers")  # noqa: B009
_Trie: Any = getattr(hooks, "_PrefixTrie")  # noqa: B009
_user_agent = UserAgentComponent.to_string

_aliases: dict[str, str] = {}  # of every session: its table of aliases is botocore's own
_methods: dict[str, dict[str, Any]] = {}  # by service
_providers: dict[int, EndpointProvider] = {}  # by the parsed rules, which `_load_model` keeps
_builtin: list[HierarchicalEmitter] = []  # with botocore's own handlers, once a session has registered them


def _alias_once(aliaser: EventAliaser, event_name: str) -> str:
    try:
        return _aliases[event_name]
    except KeyError:
        name: str = _alias(aliaser, event_name)
        return _aliases.setdefault(event_name, name)


def _create_methods_once(creator: ClientCreator, service_model: Any) -> dict[str, Any]:
    name = service_model.service_name
    if name not in _methods:
        _methods[name] = _create_methods(creator, service_model)
    return dict(_methods[name])


def _provide_endpoints(*, ruleset_data: Any, **others: Any) -> EndpointProvider:
    if id(ruleset_data) not in _providers:
        _providers[id(ruleset_data)] = EndpointProvider(ruleset_data=ruleset_data, **others)
    return _providers[id(ruleset_data)]


def _copy_builtin_handlers(session: Any, events: EventAliaser) -> None:
    emitter = session._original_handler
    if not _builtin:
        _register_builtin(session, events)
        _builtin.append(copy.copy(emitter))
    vars(emitter).update(vars(copy.copy(_builtin[0])))


def _copy_trie(trie: Any) -> Any:
    copied = _Trie()
    copied._root = _copy_node(trie._root)
    return copied


def _copy_node(node: dict[str, Any]) -> dict[str, Any]:
    values = node["values"]
    children = {name: _copy_node(child) for name, child in node["children"].items()}
    return {"chunk": node["chunk"], "children": children, "values": values and NodeList(*map(list, values))}


@cache
def _make_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


# The type of a method may not be assigned to, hence setattr.
setattr(BaseModel, "__new__", _make_without_tracking)  # noqa: B010
setattr(FakeKey, "__del__", _dispose)  # noqa: B010 - moto's own warns unless every object was kept to its end
setattr(BaseJSONSerializer, "_serialize_type_structure", _serialize)  # noqa: B010
setattr(Stack, "parse_template", staticmethod(_parse_json_first))  # noqa: B010
setattr(JSONFileLoader, "load_file", lambda _, path: _load_model(path))  # noqa: B010
setattr(Loader, "list_available_services", lambda loader, type_name: _list_models(type_name, *loader.search_paths))  # noqa: B010
setattr(EventAliaser, "_alias_event_name", _alias_once)  # noqa: B010
setattr(_Trie, "__copy__", _copy_trie)  # noqa: B010
setattr(ClientCreator, "_create_methods", _create_methods_once)  # noqa: B010
setattr(regions, "EndpointProvider", _provide_endpoints)  # noqa: B010
setattr(Session, "_register_builtin_handlers", _copy_builtin_handlers)  # noqa: B010
setattr(UserAgentComponent, "to_string", cache(_user_agent))  # noqa: B010
setattr(SigV4Auth, "canonical_request", lambda *_: "")  # noqa: B010
setattr(responses, "method_names_from_class", cache(method_names_from_class))  # noqa: B010
setattr(Subscription, "private_key", lambda _: _make_key())  # noqa: B010
