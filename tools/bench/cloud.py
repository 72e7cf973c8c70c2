"""What the audit asks of AWS, answered fast enough to be measured beside: `python -m tools.bench.cloud`, in a process of its own.

DynamoDB, S3, Secrets Manager and SNS under one address, as `AWS_ENDPOINT_URL` wants it, in memory. Whatever is asked is
counted; what is not known is refused by name. A test holds it against moto. Its counters are read, and it is told what to
hold, at `/bench/…`; it ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from tools.bench.dynamodb import RefusedError, Schema, Table, Tables
from tools.bench.http_server import Answer, Request, Service, open_port, run_until_input_ends

LIST_KEYS = 1_000
_XML = b"text/xml"
_DYNAMODB = "DynamoDB_20120810."
_SECRETS = "secretsmanager."


class Cloud(Service):
    """The services, and the counts of the calls to them."""

    def __init__(self, tables: dict[str, dict[str, Any]]) -> None:
        """Prepare; `tables` are by name, each as the template describes it."""
        self._described = tables
        self.tables = Tables()
        self.objects: dict[str, bytes] = {}  # by bucket and key
        self.published: list[dict[str, str]] = []
        self.calls: Counter[str] = Counter()
        self._secret = ""
        self.reset()

    def reset(self) -> None:
        """Forget everything but the secret, and what is to be refused."""
        self.tables = Tables(self.tables.refuse_every)
        for name, described in self._described.items():
            indexes = {
                index["IndexName"]: Schema.of_template(index["KeySchema"])
                for index in described.get("GlobalSecondaryIndexes", [])
            }
            self.tables.tables[name] = Table(Schema.of_template(described["KeySchema"]), indexes)
        self.objects.clear()
        self.published.clear()
        self.calls.clear()

    def answer(self, request: Request) -> Answer:
        """Answer for the service that is meant."""
        target = request.header("X-Amz-Target")
        if target.startswith(_DYNAMODB):
            return self._ask_dynamodb(target.removeprefix(_DYNAMODB), request.body)
        if target.startswith(_SECRETS):
            return self._give_secret(target.removeprefix(_SECRETS), request.body)
        if request.target.startswith("/bench/"):
            return self._administer(request)
        if request.header("Content-Type").startswith("application/x-www-form-urlencoded"):
            return self._publish(request.body)
        return self._store(request)

    def _ask_dynamodb(self, operation: str, body: bytes) -> Answer:
        self.calls[f"dynamodb:{operation}"] += 1
        try:
            return Answer(200, self.tables.call(operation, json.loads(body)), b"application/x-amz-json-1.0")
        except RefusedError as error:
            kind = f"com.amazonaws.dynamodb.v20120810#{error.kind}"
            said = {"__type": kind, "message": str(error), **error.details}
            return Answer(400, json.dumps(said).encode(), b"application/x-amz-json-1.0")

    def _give_secret(self, operation: str, body: bytes) -> Answer:
        self.calls[f"secretsmanager:{operation}"] += 1
        if operation != "GetSecretValue":
            return Answer(400, b'{"__type":"InvalidRequestException"}', b"application/x-amz-json-1.1")
        name = json.loads(body)["SecretId"]
        secret = {"ARN": name, "Name": name, "SecretString": self._secret, "VersionId": "1" * 32, "CreatedDate": 0}
        return Answer(200, json.dumps(secret).encode(), b"application/x-amz-json-1.1")

    def _publish(self, body: bytes) -> Answer:
        form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        self.calls[f"sns:{form['Action']}"] += 1
        if form["Action"] != "Publish":
            return Answer(400, b"<ErrorResponse><Error><Code>InvalidAction</Code></Error></ErrorResponse>", _XML)
        self.published.append(form)
        return Answer(
            200,
            b'<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>%d</MessageId>'
            b"</PublishResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></PublishResponse>"
            % len(self.published),
            _XML,
        )

    def _store(self, request: Request) -> Answer:
        path, _, query = request.target.partition("?")
        bucket, _, key = unquote(path).strip("/").partition("/")
        place = f"{bucket}/{key}"
        if request.method == "PUT" and key and not query:
            self.calls["s3:PutObject"] += 1
            self.objects[place] = request.body
            return Answer(200, headers=b'ETag: "0"\r\n')
        if request.method == "GET" and key:
            self.calls["s3:GetObject"] += 1
            if place not in self.objects:
                return _s3_error(404, "NoSuchKey")
            return Answer(200, self.objects[place], b"application/octet-stream", b'ETag: "0"\r\n')
        if request.method == "DELETE" and key:
            self.calls["s3:DeleteObject"] += 1
            self.objects.pop(place, None)
            return Answer(204)
        asked = parse_qs(query, keep_blank_values=True)
        if request.method == "GET" and asked.get("list-type") == ["2"]:
            self.calls["s3:ListObjectsV2"] += 1
            return self._list(bucket, asked)
        return _s3_error(501, "NotImplemented")

    def _list(self, bucket: str, asked: dict[str, list[str]]) -> Answer:
        prefix = f"{bucket}/{asked.get('prefix', [''])[0]}"
        after = asked.get("continuation-token", [""])[0]
        most = min(int(asked.get("max-keys", [str(LIST_KEYS)])[0]), LIST_KEYS)
        found = [place for place in sorted(self.objects) if place.startswith(prefix) and place > after]
        shown = found[:most]
        is_cut = len(found) > most
        contents = "".join(
            f"<Contents><Key>{escape(place.partition('/')[2])}</Key><Size>{len(self.objects[place])}</Size></Contents>"
            for place in shown
        )
        following = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if is_cut else ""
        text = (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{escape(bucket)}</Name><KeyCount>{len(shown)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>{following}{contents}</ListBucketResult>"
        )
        return Answer(200, text.encode(), b"application/xml")

    def _administer(self, request: Request) -> Answer:
        path, _, query = request.target.partition("?")
        if path == "/bench/reset":
            self.reset()
        elif path == "/bench/secret":
            self._secret = request.body.decode()
        elif path == "/bench/refuse":
            self.tables.refuse_every = int(query)
        elif path == "/bench/count":
            self.calls.clear()
            for table in self.tables.tables.values():
                table.forget_counts()
        elif path == "/bench/published":
            return Answer(200, json.dumps(self.published).encode())
        elif path != "/bench/counters":
            return _s3_error(404, "NoSuchKey")
        return Answer(200, json.dumps(self._count()).encode())

    def _count(self) -> dict[str, Any]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "calls": dict(self.calls),
            "tables": {
                name: {
                    "items": len(table),
                    "written": table.written,
                    "unprocessed": table.unprocessed,
                    "index_writes": {index: dict(counts) for index, counts in table.index_writes.items()},
                }
                for name, table in self.tables.tables.items()
            },
            "objects": {place: len(content) for place, content in self.objects.items()},
            "processor_seconds": used.ru_utime + used.ru_stime,
        }


def _s3_error(status: int, code: str) -> Answer:
    return Answer(status, f"<Error><Code>{code}</Code></Error>".encode(), b"application/xml")


async def _run(tables: dict[str, dict[str, Any]]) -> None:
    await run_until_input_ends(await open_port(Cloud(tables)))


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.stdin.readline())))
