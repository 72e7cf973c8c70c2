"""A Security Hub that is as strict as AWS's: moto's, behind the limits that AWS documents and moto does not ask for.

    with StrictSecurityHub(monkeypatch) as hub:  # from here on, the embedded one
        hub.switch_on("us-east-1")
        hub.refused.add("web/shop:1")

Limits of shapes are read from botocore's model of the service: what is required, enumerations, patterns, and the lengths that
stand in its texts. Source of the others: AWS Security Hub Partner Integration Guide, "Guidelines for using the
BatchImportFindings API" (100 findings a call, 240 KB each, 6 MB a call, own account only), and the API reference of
BatchImportFindings (what an update cannot change) and of AwsSecurityFinding (times).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import boto3
import botocore.session

if TYPE_CHECKING:
    import pytest

CALL_FINDINGS = 100
CALL_BYTES = 6 * 1000 * 1000
FINDING_BYTES = 240 * 1000
# For people, not for whoever provides findings.
OF_PEOPLE = {"Note", "UserDefinedFields", "VerificationState", "Workflow"}
# To be given as FindingProviderFields.
OF_PROVIDERS = {"Confidence", "Criticality", "RelatedFindings", "Severity", "Types"}
TIMES = {"CreatedAt", "UpdatedAt", "FirstObservedAt", "LastObservedAt"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
NAMESPACES = {"Software and Configuration Checks", "TTPs", "Effects", "Unusual Behaviors"}
# ProductFields, by the text of the model.
FIELDS, KEY_LENGTH, VALUE_LENGTH = 50, 128, 2048

Document = dict[str, Any]


@cache
def _shape() -> Any:
    model = botocore.session.get_session().get_service_model("securityhub")
    called: Any = model.operation_model("BatchImportFindings").input_shape
    return called.members["Findings"].member


def complaints(document: Document) -> list[str]:
    """Tell what AWS would not take in one finding."""
    found = list(_of_shape(document, _shape(), "Finding"))
    found += [f"{name} is for people" for name in OF_PEOPLE & document.keys()]
    found += [f"{name} belongs to FindingProviderFields" for name in OF_PROVIDERS & document.keys()]
    found += [f"{name} is no time" for name in TIMES if not TIME.fullmatch(document.get(name, ""))]
    if len(json.dumps(document).encode()) > FINDING_BYTES:
        found.append("larger than 240 KB")
    fields = document.get("ProductFields", {})
    if len(fields) > FIELDS or any(len(key) > KEY_LENGTH or len(fields[key]) > VALUE_LENGTH for key in fields):
        found.append("too much in ProductFields")
    for kind in document.get("FindingProviderFields", {}).get("Types", []):
        if kind.split("/")[0] not in NAMESPACES or len(kind.split("/")) > 3:
            found.append(f"the type {kind}")
    _, partition, _, region, account, _ = document["ProductArn"].split(":", 5)
    if document["ProductArn"] != f"arn:{partition}:securityhub:{region}:{account}:product/{account}/default":
        found.append("another's ProductArn")
    if document["AwsAccountId"] != account:
        found.append("another's AwsAccountId")
    return found


def _of_shape(value: Any, shape: Any, place: str) -> Iterator[str]:
    if shape.type_name == "structure":
        yield from (f"{place}.{name} is missing" for name in shape.required_members if name not in value)
        for name, part in value.items():
            if name not in shape.members:
                yield f"{place}.{name} is unknown"
            else:
                yield from _of_shape(part, shape.members[name], f"{place}.{name}")
    elif shape.type_name == "list":
        most = shape.metadata.get("max") or _number(r"Maximum number of (\d+) item", shape)
        least = shape.metadata.get("min") or _number(r"Minimum number of (\d+) item", shape) or 0
        if not least <= len(value) <= (most or len(value)):
            yield f"{place} has {len(value)} items"
        for number, part in enumerate(value):
            yield from _of_shape(part, shape.member, f"{place}[{number}]")
    elif shape.type_name == "map":
        for key, part in value.items():
            yield from _of_shape(key, shape.key, f"{place}.{key}")
            yield from _of_shape(part, shape.value, f"{place}.{key}")
    elif shape.type_name == "string":
        yield from _of_text(value, shape, place)
    else:
        raise NotImplementedError(f"{place}: a {shape.type_name}")


def _of_text(value: Any, shape: Any, place: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{place} is no text"
    elif shape.enum and value not in shape.enum:
        yield f"{place} is {value}"
    elif "pattern" in shape.metadata and not re.fullmatch(shape.metadata["pattern"], value):
        yield f"{place} is empty, or has more than one line"
    elif len(value) > (_number(r"Maximum (?:length )?of (\d+)", shape) or len(value)):
        yield f"{place} has {len(value)} characters"


def _number(pattern: str, shape: Any) -> int | None:
    found = re.search(pattern, re.sub(r"<[^>]+>", "", shape.documentation))
    return int(found[1]) if found else None


def name_of(document: Document) -> str:
    """Give `namespace/repository:tag`."""
    fields = document["ProductFields"]
    namespace, repository, tag = (fields[f"dtr-signature-audit/{name}"] for name in ("namespace", "repository", "tag"))
    return f"{namespace}/{repository}:{tag}"


class StrictSecurityHub:
    """The Security Hub of the embedded AWS, in every region of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Here, not above: moto reads the AWS profile when it is imported.
        from moto.securityhub.exceptions import SecurityHubClientError  # noqa: PLC0415
        from moto.securityhub.models import SecurityHubBackend  # noqa: PLC0415

        self.calls: list[list[Document]] = []  # as they came in
        self.refused: set[str] = set()  # images whose finding fails by itself
        self.poison: set[str] = set()  # images whose finding makes a whole call malformed
        self.takes_calls = -1  # so many more; then it throttles
        self.silent = threading.Event()  # set: it never answers
        self.miscounts = False  # tells of a failure and not of which
        self.meanwhile: Callable[[], object] = lambda: None  # happens while it takes a call
        self.released = threading.Event()
        self._error = SecurityHubClientError
        self._import = SecurityHubBackend.batch_import_findings
        self._regions: set[str] = set()
        hub = self

        def batch_import_findings(backend: Any, findings: list[Document]) -> tuple[int, int, list[Document]]:
            return hub._take(backend, findings)

        monkeypatch.setattr(SecurityHubBackend, "batch_import_findings", batch_import_findings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        for region in list(self._regions):
            self.switch_off(region)

    def switch_on(self, region: str) -> None:
        """Begin."""
        self._call("enable_security_hub", region)
        self._regions.add(region)

    def switch_off(self, region: str) -> None:
        """End, and forget."""
        self._call("disable_security_hub", region)
        self._regions.discard(region)

    def findings(self, region: str, registry: str) -> dict[str, Document]:
        """Read what is there of a registry, by image, as any client does."""
        client = boto3.client("securityhub", region_name=region)
        pages = client.get_paginator("get_findings").paginate()
        found: list[Document] = [{**document} for page in pages for document in page["Findings"]]
        client.close()
        return {
            name_of(document): document
            for document in found
            if document["ProductFields"]["dtr-signature-audit/registry"] == registry
        }

    def sent(self) -> list[set[str]]:
        """Give the images of each call since the last time."""
        calls = [{name_of(document) for document in call} for call in self.calls]
        self.calls.clear()
        return calls

    def _call(self, operation: str, region: str) -> None:
        client = boto3.client("securityhub", region_name=region)
        getattr(client, operation)()
        client.close()

    def _take(self, backend: Any, findings: list[Document]) -> tuple[int, int, list[Document]]:
        if not backend.enabled:
            raise self._error("InvalidAccessException", "Account is not subscribed to AWS Security Hub")
        if self.silent.is_set():
            self.released.wait()
        if self.takes_calls == 0:
            raise self._error("LimitExceededException", "Rate exceeded")
        self.takes_calls -= 1
        self.calls.append(findings)
        if len(findings) > CALL_FINDINGS or len(json.dumps(findings).encode()) > CALL_BYTES:
            raise self._error("InvalidInputException", "too much for one call")
        if {name_of(document) for document in findings} & self.poison:
            raise self._error("InvalidInputException", "Invalid parameter")
        stored = {finding.id: finding.data for finding in backend.findings}
        failed = {}
        for document in findings:
            wrong = complaints(document)
            before = stored.get(document["Id"])
            if before and not _moment(before["UpdatedAt"]) < _moment(document["UpdatedAt"]):
                wrong.append("UpdatedAt is not later than it was")
            if document["ProductArn"].split(":")[3] != backend.region_name:
                wrong.append("another region")
            if name_of(document) in self.refused:
                wrong.append("refused by the test")
            if wrong:
                failed[document["Id"]] = {
                    "Id": document["Id"],
                    "ErrorCode": "InvalidInput",
                    "ErrorMessage": "; ".join(wrong),
                }
        taken = [document for document in findings if document["Id"] not in failed]
        self._import(backend, taken)
        self.meanwhile()
        if self.miscounts:
            return len(failed) + 1, len(taken) - 1, list(failed.values())
        return len(failed), len(taken), list(failed.values())


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
