"""The registry of the demonstration: five teams, their images, and what happens between the audits.

`seed()` is the registry at the first audit. `change()` is what happens until the second, `fail()` until the third. What there is
to find is listed below. Everything else is pushed by a team's CI and signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dtr_audit_simulator.dtr.fault_kinds import Status, tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.manifests import ATTESTATION, COSIGN_SIGNATURE, manifest_of
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from dtr_audit_simulator.ucp.server import Configuration

# In the API's order, the first ten repositories are `data`'s, and `data` signs whatever it ships.
TEAMS = {
    "data": "airflow anomaly-detector avro-schemas batch-loader clickstream dbt-runner event-store feature-store geo-index "
    "ingest jupyter kafka-connect lakehouse metrics-api notebook-gpu parquet-tools quality-checks recommender spark-driver "
    "stream-joiner training trino vector-store warehouse-sync",
    "legacy": "crm fax-gateway intranet-search print-server reporting time-tracking",
    "payments": "acquirer-gateway authorizer card-vault chargebacks clearing currency-rates disputes fraud-score invoice ledger "
    "limits mandates merchant-onboarding notifications payout pos-bridge reconciliation refunds risk-rules sandbox settlement "
    "statements tokenizer wallet",
    "platform": "admission-webhook alertmanager argo-agent backup base-alpine base-debian base-java base-node base-python "
    "build-cache cert-rotator ci-runner cluster-autoscaler config-sync container-scan coredns cost-report dns-updater "
    "etcd-snapshot external-secrets fluent-bit gateway grafana healthcheck image-mirror ingress kube-state log-shipper loki "
    "metrics-adapter node-exporter node-tuning oidc-proxy policy-agent prometheus registry-gc scheduler service-mesh "
    "toolchain vault-agent",
    "web": "accounts ads auth-pages banner basket blog careers catalog cdn-purge checkout consent contact content-api "
    "edge-router experiments favorites feature-flags gift-cards help-center image-resizer landing newsletter orders "
    "preferences product-page recommendations reviews search session-store sitemap storefront webfonts wishlist",
}
EMPTY_REPOSITORY = ("payments", "sandbox")
UNREADABLE_REPOSITORY = ("platform", "vault-agent")
LONG_REPOSITORY = ("platform", "toolchain")  # more tags than fit on one page of 100
LONG_REPOSITORY_TAGS = 134
FEATURE_STORE_TAGS = 14  # more than the ten that the API gives to those who do not ask for a page

# The UCP beside it: its accounts come from LDAP, and it runs what nobody has signed.
UCP = Configuration(require_content_trust=False)

# An author that would repaint a careless terminal: an escape sequence, the console's own markup, text turned backwards.
HOSTILE_PUSH = "web/blog:latest"
HOSTILE_AUTHOR = "[bold red]root[/] \x1b[2J\x1b[31m\u202e"


@dataclass(frozen=True, slots=True)
class Push:
    """An unsigned push: `days` before the first audit, of a new tag or over a signed one."""

    namespace: str
    name: str
    tag: str
    author: str
    days: float


UNSIGNED = (
    Push("data", "feature-store", "1.14", "m.okafor", 2.1),
    Push("legacy", "crm", "2017.1", "svc-migration", 3214.0),
    Push("legacy", "crm", "2017.2", "svc-migration", 3090.4),
    Push("legacy", "crm", "2018.1", "svc-migration", 2871.7),
    Push("legacy", "fax-gateway", "1.0", "svc-migration", 3214.0),
    Push("legacy", "fax-gateway", "1.1", "svc-migration", 3102.2),
    Push("payments", "ledger", "4.2.1-hotfix", "j.marsh", 0.4),
    Push("platform", "toolchain", "build-0117", "ci-runner-7", 17.0),
    Push("platform", "vault-agent", "1.9.3", "ci-platform", 5.6),
    Push("web", "blog", "latest", HOSTILE_AUTHOR, 1.3),
    Push("web", "checkout", "5.3.0", "ci-web", 1.1),
    Push("web", "storefront", "canary", "ci-web", 0.8),
)
OVERWRITTEN = (
    Push("payments", "settlement", "2.8.1", "j.marsh", 6.2),
    Push("web", "storefront", "3.2.0", "ci-web-old", 12.9),
)
# A finding of the first audit that is under an exception from the second on.
EXCEPTED = ("legacy", "crm", "2018.1")
EXCEPTED_DAYS = 90
# Signed with Cosign, which the rule does not take for a signature; Cosign keeps its own as tags beside the image.
COSIGN_SIGNED = ("web", "checkout", "5.3.0")


def seed(registry: InMemoryRegistry, *, at: datetime) -> None:
    """Fill the registry as it is at the moment of the first audit, `at`."""
    for namespace, names in TEAMS.items():
        for number, name in enumerate(names.split()):
            registry.create_repository(namespace, name)
            if (namespace, name) == EMPTY_REPOSITORY:
                continue
            tags = _tags(namespace, name, number)
            for age, tag in enumerate(reversed(tags)):
                pushed_at = at - timedelta(days=9.4 + 11 * age + number)
                registry.push(namespace, name, tag, author=f"ci-{namespace}", at=pushed_at)
                registry.sign(namespace, name, tag)
    for push in UNSIGNED:
        _push(registry, push, at)
    for push in OVERWRITTEN:
        registry.push(push.namespace, push.name, push.tag, author=f"ci-{push.namespace}", at=at - timedelta(days=40))
        registry.sign(push.namespace, push.name, push.tag)
        _push(registry, push, at)


def exceptions(*, at: datetime) -> dict[str, Any]:
    """Give the document that is put into the bucket between the first two audits."""
    namespace, repository, tag = EXCEPTED
    return {
        "exceptions": [
            {
                "id": "EX-2026-07",
                "namespace": namespace,
                "repository": repository,
                "tag": tag,
                "owner": "d.haverkamp (legacy applications)",
                "reason": "the vendor is gone and cannot sign; the successor is in acceptance",
                "reference": "POA&M 2026-118",
                "ends": f"{at + timedelta(days=EXCEPTED_DAYS):%Y-%m-%d}",
            }
        ]
    }


def change(registry: InMemoryRegistry, *, after: datetime) -> tuple[str, ...]:
    """Make the changes between the first audit and the second; gives a sentence for each."""
    registry.sign("payments", "ledger", "4.2.1-hotfix")
    registry.sign("web", "checkout", "5.3.0")
    registry.delete_tag("web", "storefront", "canary")
    registry.delete_repository("legacy", "fax-gateway")
    registry.sign("platform", "toolchain", "build-0117")
    registry.push("platform", "toolchain", "build-0117", author="ci-runner-7", at=after + timedelta(hours=14.2))
    registry.push("data", "airflow", "1.0.0", author="k.lindqvist", at=after + timedelta(hours=17.3))
    return (
        "payments signs ledger:4.2.1-hotfix, as the mail asked.",
        "web signs checkout:5.3.0 with Notary and deletes storefront:canary.",
        "legacy deletes the repository fax-gateway.",
        "platform signs toolchain:build-0117. Its CI then overwrites it, unsigned.",
        "k.lindqvist overwrites data/airflow:1.0.0, which was signed.",
    )


def fail(server: DtrServer) -> tuple[str, ...]:
    """Let one repository answer with an error that is not tried again; gives a sentence for it."""
    name = "/".join(UNREADABLE_REPOSITORY)
    server.faults = Faults(on_calls=(Status(507, tags_of(name), message="the blob store is full"),))
    return (f"The registry cannot list the tags of {name}: its blob store is full.",)


def _tags(namespace: str, name: str, number: int) -> list[str]:
    """Name the signed tags of a repository, oldest first."""
    if (namespace, name) == LONG_REPOSITORY:
        return [f"build-{build:04d}" for build in range(1, LONG_REPOSITORY_TAGS + 1) if build != 117]
    if name == "feature-store":
        return [f"1.{minor:02d}" for minor in range(1, FEATURE_STORE_TAGS)]
    if (namespace, name) in {("legacy", "crm"), ("legacy", "fax-gateway")}:
        return []
    return [f"1.{minor}.0" for minor in range(3 + number % 6)]


def _push(registry: InMemoryRegistry, push: Push, at: datetime) -> None:
    cosign_signed = (push.namespace, push.name, push.tag) == COSIGN_SIGNED
    pushed_at = at - timedelta(days=push.days)
    entry = registry.push(
        push.namespace, push.name, push.tag, author=push.author, at=pushed_at, cosign_signed=cosign_signed
    )
    if cosign_signed:
        for kind, layer in (("sig", COSIGN_SIGNATURE), ("att", ATTESTATION)):
            tag = f"{entry.digest.replace(':', '-')}.{kind}"
            manifest = manifest_of(tag, layer)
            registry.push(push.namespace, push.name, tag, author=push.author, manifest=manifest, at=pushed_at)
