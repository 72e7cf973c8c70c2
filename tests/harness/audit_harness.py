"""One registry under audit, as the tests see it."""

import gzip
import itertools
import json
from typing import Any

import boto3

from dtr_audit_simulator.aws.invocation import invoke
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.aws.subscribers import Message
from dtr_audit_simulator.dtr.server import Server
from dtr_audit_simulator.http.journal import RequestRecord

_NUMBERS = itertools.count(1)


class Audited:
    """One registry and the deployed function that audits it; its name keeps it apart from every other test's."""

    def __init__(self, stack: Stack, server: Server) -> None:
        self.stack = stack
        self.server = server
        self.name = f"registry-{next(_NUMBERS):04}"  # of one length: messages of two registries are cut at one place
        self.runs = 0
        self.environment = {"DTR_URL": server.url, "REGISTRY_NAME": self.name}
        self._inbox = stack.subscribe_queue({"registry": [self.name]})
        self._mailbox = stack.subscribe_mailbox()

    def close(self) -> None:
        """End the subscription."""
        self._inbox.close()

    def put_secret(self, **secret: str) -> None:
        """Store credentials, by default with the server's own authority."""
        self.stack.put_secret({"ca_bundle": self.server.ca_bundle, **secret})

    def audit(
        self,
        event: dict[str, Any] | None = None,
        *,
        request_id: str = "",
        seconds: float | None = None,
        **environment: str,
    ) -> dict[str, Any]:
        """Invoke the function, by default with the next day's scheduled event, and give the run record."""
        if event is None:
            self.runs += 1
            event = self.event()
        return invoke(
            self.stack,
            "AuditFunction",
            event,
            seconds=seconds,
            request_id=request_id,
            environment={**self.environment, **environment},
        )

    def event(self) -> dict[str, Any]:
        """Give the scheduled event of the last run."""
        return {"scheduled_time": f"2026-11-{self.runs:02d}T03:00:00Z"}

    def keys(self, kind: str) -> list[str]:
        """List what the bucket holds of this registry below `findings/`, `runs/` or `evidence/`."""
        found = self.stack.s3.list_objects_v2(
            Bucket=self.stack.outputs["BucketName"], Prefix=f"{kind}/registry={self.name}/"
        )
        return [entry["Key"] for entry in found.get("Contents", [])]

    def read(self, key: str) -> bytes:
        """Read one object of the bucket."""
        return self.stack.s3.get_object(Bucket=self.stack.outputs["BucketName"], Key=key)["Body"].read()

    def rows(self, run_id: str) -> list[dict[str, Any]]:
        """Read every row that a run has left."""
        parts = [key for key in self.keys("findings") if f"/{run_id}-" in key]
        return [json.loads(line) for key in parts for line in gzip.decompress(self.read(key)).splitlines()]

    def verdicts(self, run_id: str) -> dict[str, str | None]:
        """Give the verdict of each `namespace/repository:tag` of a run; fails if one stands there twice."""
        rows = self.rows(run_id)
        verdicts = {f"{row['namespace']}/{row['repository']}:{row['tag']}": row["verdict"] for row in rows}
        assert len(verdicts) == len(rows)
        return verdicts

    def findings(self) -> dict[str, dict[str, Any]]:
        """Read the findings table's items of this registry, by `namespace/repository:tag`."""
        return {
            f"{item['namespace']}/{item['repository']}:{item['tag']}": item
            for item in self.items("FindingsTableName")
            if item.get("registry") == self.name
        }

    def items(self, output: str) -> list[dict[str, Any]]:
        """Read a whole table."""
        client = boto3.resource("dynamodb").meta.client
        pages = client.get_paginator("scan").paginate(TableName=self.stack.outputs[output])
        return [item for page in pages for item in page["Items"]]

    def messages(self) -> list[Message]:
        """Take the messages that have come since the last time, as a queue gets them."""
        return self._inbox.messages()

    def mails(self) -> list[Message]:
        """Give every message about this registry, as mail shows it."""
        return [mail for mail in self._mailbox.messages() if mail.attributes["registry"] == self.name]


def needed_requests(server: Server) -> list[RequestRecord]:
    """Give what was asked of a registry, without the few requests on which no answer hangs: the changefeed, names of accounts."""
    return [
        one
        for one in server.requests
        if "changefeed" not in one.path
        and "/enzi/" not in one.path
        and "registry:catalog:*" not in one.query.get("scope", ())
    ]
