"""template.yaml as CloudFormation sees it: read, its parameters checked, its SAM macro expanded.

Needs neither credentials nor a network. The tests and the embedded AWS both start here, so there is one reading of
the template and no second description of what it deploys.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import boto3
import yaml
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

Template = dict[str, Any]


class ParameterError(ValueError):
    """A value that CloudFormation would not take for a parameter of the template."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # ten times as fast, where it is built
    """YAML with CloudFormation's short forms: `!Ref x` becomes `{"Ref": "x"}`, `!Sub x` `{"Fn::Sub": "x"}`."""


def _expand_short_form(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


@dataclass(frozen=True, slots=True)
class _Session:
    """All that the translator asks of a boto3 session; a real one would want the user's profile to exist."""

    region_name: str


_Loader.add_multi_constructor("!", _expand_short_form)


def load(path: Path) -> Template:
    """Read a template as written, with the short forms of its functions spelled out."""
    with path.open(encoding="utf-8") as file:
        template = yaml.load(file, Loader=_Loader)  # noqa: S506 (_Loader is a SafeLoader)
    if not isinstance(template, dict) or "Resources" not in template:
        raise ValueError(f"{path} is no CloudFormation template: it has no Resources.")
    return template


def with_definitions(template: Template, folder: Path) -> Template:
    """Write the state machines' definitions into the template; `folder` is where their paths begin."""
    whole = copy.deepcopy(template)
    for resource in whole["Resources"].values():
        path = resource.get("Properties", {}).pop("DefinitionS3Location", None)
        if path is not None:
            resource["Properties"]["DefinitionString"] = (folder / path).read_text(encoding="utf-8")
    return whole


def translate(template: Template, region: str) -> Template:
    """Expand the SAM macro as CloudFormation would in `region`; the code is said to lie in a bucket `artifacts`."""
    packaged = copy.deepcopy(template)
    for logical_id, resource in packaged["Resources"].items():
        for key in ("CodeUri", "ContentUri"):
            if key in resource.get("Properties", {}):
                resource["Properties"][key] = f"s3://artifacts/{logical_id}"
        if "DefinitionS3Location" in resource.get("Properties", {}):
            resource["Properties"]["DefinitionS3Location"] = {"Bucket": "artifacts", "Key": logical_id}
    translator = Translator({}, Parser(), boto_session=cast(boto3.Session, _Session(region)))
    translated: Template = translator.translate(packaged, parameter_values={}, passthrough_metadata=True)
    translator.metrics.publish()  # its timings, to nobody: unpublished, they become a warning on the console
    return translated


def decide(template: Template, values: Mapping[str, str]) -> Template:
    """Take the template's conditions for these values of its parameters: what a stack made with them would hold.

    The values become the parameters' defaults, so that whoever reads only the result knows them.
    """
    nothing = {"Ref": "AWS::NoValue"}

    def finish(node: Any) -> Any:
        if isinstance(node, list):
            return [finished for element in node if (finished := finish(element)) != nothing]
        if not isinstance(node, dict):
            return node
        if node.keys() == {"Fn::If"}:
            condition, chosen, otherwise = node["Fn::If"]
            return finish(chosen if holds(condition, template, values) else otherwise)
        # Resources and outputs name their condition; in a statement of a policy the key holds a mapping.
        needed = node.get("Condition")
        if isinstance(needed, str) and not holds(needed, template, values):
            return nothing
        kept = {
            key: finish(value) for key, value in node.items() if not (key == "Condition" and isinstance(value, str))
        }
        return {key: value for key, value in kept.items() if value != nothing}

    decided: Template = finish({section: template[section] for section in template if section != "Conditions"})
    for name, value in values.items():
        decided["Parameters"][name]["Default"] = value
    return decided


def holds(condition: str, template: Template, values: Mapping[str, str]) -> bool:
    """Tell whether a condition of the template is true for these values of its parameters."""
    return _is_true(template["Conditions"][condition], template, values)


def _is_true(expression: dict[str, Any], template: Template, values: Mapping[str, str]) -> bool:
    [(function, argument)] = expression.items()
    if function == "Condition":
        return holds(argument, template, values)
    if function == "Fn::Equals":
        left, right = (_as_text(operand, values) for operand in argument)
        return left == right
    parts = [_is_true(part, template, values) for part in argument]
    return not parts[0] if function == "Fn::Not" else {"Fn::And": all, "Fn::Or": any}[function](parts)


def _as_text(operand: Any, values: Mapping[str, str]) -> str:
    if not isinstance(operand, dict):
        return str(operand)
    [(function, argument)] = operand.items()
    if function == "Ref":
        return values[argument]
    if function != "Fn::Join":
        raise ValueError(
            f"A condition of the template uses {function}, which is not read here: teach it to _as_text()."
        )
    separator, joined = argument
    texts = joined if isinstance(joined, list) else _as_text(joined, values).split(",")
    return str(separator).join(_as_text(text, values) for text in texts)


def complete_parameters(template: Template, given: Mapping[str, str]) -> dict[str, str]:
    """Give every parameter a value, the default where none is given, checked by the template's own constraints.

    Raises ParameterError as CloudFormation would refuse the deployment, with the template's constraint text.
    """
    declared: dict[str, dict[str, Any]] = template.get("Parameters", {})
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise ParameterError(f"The template has no parameter {unknown[0]}. It has: {', '.join(declared)}.")
    values: dict[str, str] = {}
    for name, parameter in declared.items():
        if name not in given and "Default" not in parameter:
            raise ParameterError(f"{name} is needed: {parameter['Description']}")
        values[name] = str(given.get(name, parameter.get("Default")))
        if not _fits(parameter, values[name]):
            raise ParameterError(f"{name} is {values[name]!r}; it {parameter['ConstraintDescription']}")
    return values


def _fits(parameter: Mapping[str, Any], value: str) -> bool:
    elements = value.split(",") if parameter["Type"] == "CommaDelimitedList" else [value]
    if "AllowedValues" in parameter and value not in {str(allowed) for allowed in parameter["AllowedValues"]}:
        return False
    if "AllowedPattern" in parameter and not all(
        re.fullmatch(parameter["AllowedPattern"], element) for element in elements
    ):
        return False
    if parameter["Type"] == "Number":
        if not re.fullmatch(r"-?[0-9]{1,9}", value):
            return False
        return bool(parameter.get("MinValue", -math.inf) <= int(value) <= parameter.get("MaxValue", math.inf))
    return True
