"""The template as one deployment of it would stand: conditions taken, parameters and pseudo parameters filled in.

What only AWS can know, the names and ARNs of the resources themselves, stays a reference.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import boto3

from dtr_audit_simulator import PROJECT
from dtr_audit_simulator.aws import template as templates

TEMPLATE = templates.load(PROJECT / "template.yaml")
NEEDED = {"DtrUrl": "https://dtr.example.mil", "RegistryName": "prod-dtr"}
ACCOUNT = "123456789012"
STACK_GUID = "c0ffee00-1234-11f1-9abc-0123456789ab"
_PLACE = re.compile(r"\$\{([A-Za-z0-9:.]+)\}")


def resolve(given: Mapping[str, str] | None = None, *, region: str = "us-gov-west-1") -> templates.Template:
    """Give the translated template for these values of parameters; the others have their defaults.

    Raises ParameterError for a value that the template forbids.
    """
    values = templates.complete_parameters(TEMPLATE, {**NEEDED, **(given or {})})
    decided = templates.decide(_translated(region), values)
    known = {**_pseudo_parameters(region), **{name: _typed(name, value) for name, value in values.items()}}
    return {section: _fill(decided[section], known) for section in ("Resources", "Outputs")}


def references(node: Any) -> Iterator[str]:
    """Give the logical id of every resource that is referred to."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "Ref":
                yield value
            elif key == "Fn::GetAtt":
                yield value[0]
            elif key == "Fn::Sub":
                yield from (place.partition(".")[0] for place in _PLACE.findall(value))
            else:
                yield from references(value)
    elif isinstance(node, list):
        for element in node:
            yield from references(element)


@functools.cache
def _translated(region: str) -> templates.Template:
    return templates.translate(TEMPLATE, region)


@functools.cache
def _pseudo_parameters(region: str) -> dict[str, str]:
    return {
        "AWS::AccountId": ACCOUNT,
        "AWS::Partition": boto3.Session().get_partition_for_region(region),
        "AWS::Region": region,
        "AWS::StackId": f"arn:aws:cloudformation:{region}:{ACCOUNT}:stack/audit/{STACK_GUID}",
        "AWS::StackName": "audit",
        "AWS::URLSuffix": "amazonaws.com",
    }


def _typed(name: str, value: str) -> str | int | list[str]:
    kind = TEMPLATE["Parameters"][name]["Type"]
    if kind == "Number":
        return int(value)
    return value.split(",") if kind == "CommaDelimitedList" else value


def _fill(node: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_fill(element, known) for element in node]
    if not isinstance(node, dict):
        return node
    if node.keys() == {"Ref"}:
        return known.get(node["Ref"], node)
    if node.keys() == {"Fn::Sub"}:
        return _substitute(node["Fn::Sub"], known)
    return _choose({key: _fill(value, known) for key, value in node.items()})


def _choose(filled: dict[str, Any]) -> Any:
    """Work a Fn::Split or Fn::Select out, unless what it takes apart is still a reference."""
    match filled:
        case {"Fn::Split": [separator, str(text)]}:
            return text.split(separator)
        case {"Fn::Select": [index, [*elements]]}:
            return elements[int(index)]
    return filled


def _substitute(text: str | list[Any], known: Mapping[str, Any]) -> Any:
    """Fill a Fn::Sub in; it stays one while it still speaks of a resource."""
    if isinstance(text, list):
        text, given = text
        known = {**known, **{name: _as_text(_fill(value, known)) for name, value in given.items()}}
    filled = _PLACE.sub(lambda place: str(known.get(place[1], place[0])), str(text))
    return {"Fn::Sub": filled} if _PLACE.search(filled) else filled


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        ((function, argument),) = value.items()
        return (
            str(argument) if function == "Fn::Sub" else f"${{{argument if function == 'Ref' else '.'.join(argument)}}}"
        )
    return str(value)
