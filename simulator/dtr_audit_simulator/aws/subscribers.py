"""Who gets a stack's messages: a queue, and a mailbox."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient


_RECEIVE = 10  # messages in one ReceiveMessage


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the alert topic as one subscriber got it; `text` is the part meant for its protocol."""

    message_id: str
    subject: str | None
    text: str
    attributes: Mapping[str, Any]

    @property
    def body(self) -> Any:
        """Parse the text, which is JSON for machines. Raises ValueError for a text that is none."""
        return json.loads(self.text)


def _read_attributes(attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: json.loads(attribute["Value"]) if attribute["Type"] in {"String.Array", "Number"} else attribute["Value"]
        for name, attribute in attributes.items()
    }


class QueueSubscriber:
    """An SQS queue subscribed to a topic: what a program of another team would read."""

    def __init__(self, sqs: SQSClient, queue_url: str, unsubscribe: Callable[[], object]) -> None:
        self._sqs = sqs
        self._unsubscribe = unsubscribe
        self.queue_url = queue_url

    def close(self) -> None:
        """End the subscription. moto delivers to the first hundred subscribers of a topic only."""
        self._unsubscribe()
        self._sqs.delete_queue(QueueUrl=self.queue_url)

    def messages(self) -> list[Message]:
        """Take the messages that arrived since the last call, oldest first."""
        taken: list[Message] = []
        while True:
            batch = self._sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=_RECEIVE)
            for received in batch.get("Messages", []):
                envelope = json.loads(received["Body"])
                taken.append(
                    Message(
                        message_id=envelope["MessageId"],
                        subject=envelope.get("Subject"),
                        text=envelope["Message"],
                        attributes=_read_attributes(envelope.get("MessageAttributes", {})),
                    )
                )
                self._sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=received["ReceiptHandle"])
            if not batch.get("Messages"):
                return taken


class Mailbox:
    """What arrives at an address subscribed to a topic by mail. moto sends no mail; it remembers what was published."""

    def __init__(self, topic_arn: str, region: str) -> None:
        from moto.sns.models import sns_backends  # noqa: PLC0415 (as above)

        account = topic_arn.split(":")[4]
        self._topic = sns_backends[account][region].topics[topic_arn]
        self._taken = len(self._topic.sent_notifications)

    def messages(self) -> list[Message]:
        """Take the mails that arrived since the last call, oldest first."""
        published = self._topic.sent_notifications[self._taken :]
        self._taken += len(published)
        return [
            Message(
                message_id=message_id,
                subject=subject,
                text=_mail_text(message),
                attributes=_read_attributes(attributes or {}),
            )
            for message_id, message, subject, attributes, _ in published
        ]


def _mail_text(published: str) -> str:
    """Choose what the email protocol gets of a message published with MessageStructure=json."""
    try:
        by_protocol = json.loads(published)
    except ValueError:
        return published
    if not isinstance(by_protocol, dict) or "default" not in by_protocol:
        return published
    return str(by_protocol.get("email", by_protocol["default"]))
