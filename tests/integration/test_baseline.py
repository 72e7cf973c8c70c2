"""The customer's own checklist, answered by a run: through the function, the bucket and the topic."""

import hashlib
import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from dtr_audit.aws.archive import Archive
from dtr_audit.core import manifest
from dtr_audit.core.run_record import Status, SupportingFact
from dtr_audit.errors import EvidenceError
from dtr_audit.evidence import ckl, cklb
from dtr_audit.evidence.baseline import SIZE_LIMIT
from dtr_audit.evidence.report import Asset
from dtr_audit_simulator.dtr.fault_kinds import Status as Answer
from dtr_audit_simulator.dtr.fault_kinds import tags_of
from dtr_audit_simulator.dtr.faults import Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer
from tests.evidence.html_report import report
from tests.harness.audit_harness import Audited

FACTS = (
    SupportingFact("as they see it", "yes", "V-235796", Status.NOT_A_FINDING),
    SupportingFact("as they see it", "yes", "V-235840", Status.NOT_REVIEWED),
)
THEIRS = report(facts=FACTS, asset=Asset("Their DTR", release="V2R1"))
CKL = ckl.write(THEIRS, neighbours=True).replace(b"[dtr-signature-audit]", b"Entered by a person.")
CKLB = cklb.write(THEIRS, neighbours=True)


@pytest.fixture
def put(audited: Audited) -> Callable[[bytes], str]:
    """Put a document into the bucket; gives its key."""

    def put(document: bytes) -> str:
        kind = "cklb" if document.startswith(b"{") else "ckl"
        key = f"baseline/{audited.name}.{kind}"
        audited.stack.s3.put_object(Bucket=audited.stack.outputs["BucketName"], Key=key, Body=document)
        return key

    return put


def reviews(document: bytes) -> dict[str, tuple[str | None, ...]]:
    """Give status, details and comments of each rule of a .ckl."""
    return {
        vuln.findtext("STIG_DATA[VULN_ATTRIBUTE='Rule_ID']/ATTRIBUTE_DATA") or "": tuple(
            vuln.findtext(name) for name in ("STATUS", "FINDING_DETAILS", "COMMENTS")
        )
        for vuln in ET.fromstring(document).iter("VULN")  # noqa: S314 - our own text
    }


def test_a_run_leaves_their_checklist_with_its_answer_in_it(
    audited: Audited, registry: InMemoryRegistry, put: Callable[[bytes], str]
) -> None:
    registry.push("team", "app", "1.0")
    key = put(CKL)
    run = audited.audit(BASELINE_KEY=key)

    assert run["evidence"]["merged"].endswith(f"/{run['run_id']}/checklist-merged.ckl")
    merged, theirs = reviews(audited.read(run["evidence"]["merged"])), reviews(CKL)
    status, details, comments = merged.pop("SV-235846r627665_rule")
    _, _, comments_before = theirs.pop("SV-235846r627665_rule")
    assert merged == theirs
    assert status == "Open"
    assert "team/app:1.0" in str(details)
    assert str(comments).startswith(f"{comments_before}\n\n[dtr-signature-audit]")
    # The run's own checklist is that of the asset and release that the settings name, as ever.
    assert list(reviews(audited.read(run["evidence"]["ckl"]))) == ["SV-235846r961740_rule"]
    assert audited.read(key) == CKL
    version = audited.stack.s3.head_object(Bucket=audited.stack.outputs["BucketName"], Key=key)["VersionId"]
    sha256 = hashlib.sha256(CKL).hexdigest()
    assert run["baseline"] == {"key": key, "version_id": version, "sha256": sha256, "problem": None}
    assert run["warnings"] == audited.audit()["warnings"]


def test_the_manifest_knows_the_merged_file_and_not_the_baseline(audited: Audited, put: Callable[[bytes], str]) -> None:
    run = audited.audit(BASELINE_KEY=put(CKLB), EVIDENCE_FORMATS="")
    assert set(run["evidence"]) == {"merged", "manifest"}
    listed = {file.key: file for file in manifest.read(audited.read(run["evidence"]["manifest"])).files}
    merged = audited.read(run["evidence"]["merged"])
    assert listed[run["evidence"]["merged"]].sha256 == hashlib.sha256(merged).hexdigest()
    assert not any(key.startswith("baseline/") for key in listed)


def test_neighbours_are_answered_in_it_where_the_setting_says_so(audited: Audited, put: Callable[[bytes], str]) -> None:
    key = put(CKLB)

    def others(run: dict[str, Any]) -> dict[str, Any]:
        rules = json.loads(audited.read(run["evidence"]["merged"]))["stigs"][0]["rules"]
        return {rule["group_id"]: rule for rule in rules if rule["group_id"] != "V-235846"}

    before = {rule["group_id"]: rule for rule in json.loads(CKLB)["stigs"][0]["rules"][1:]}
    assert others(audited.audit(BASELINE_KEY=key)) == before
    reported = others(audited.audit(BASELINE_KEY=key, NEIGHBOUR_RULES="true"))
    assert set(reported) == {"V-235796", "V-235840"}
    assert all("as they see it" not in rule["finding_details"] for rule in reported.values())


def test_what_could_not_be_read_is_not_reviewed_there_either(
    audited: Audited, registry: InMemoryRegistry, dtr: DtrServer, put: Callable[[bytes], str]
) -> None:
    registry.push("team", "app", "1.0")
    registry.sign("team", "app", "1.0")
    key = put(CKL.replace(b"Not_Reviewed", b"NotAFinding"))
    assert reviews(audited.read(audited.audit(BASELINE_KEY=key)["evidence"]["merged"]))["SV-235846r627665_rule"][0] == (
        "NotAFinding"
    )
    dtr.faults = Faults(on_calls=(Answer(500, tags_of("team/app")),))
    run = audited.audit(BASELINE_KEY=key)
    assert not run["complete"]
    assert reviews(audited.read(run["evidence"]["merged"]))["SV-235846r627665_rule"][0] == "Not_Reviewed"


def test_a_partial_run_leaves_it_alone(
    audited: Audited, registry: InMemoryRegistry, put: Callable[[bytes], str]
) -> None:
    registry.push("team", "app", "1.0")
    run = audited.audit({"scheduled_time": "2026-11-01T03:00:00Z", "namespaces": ["team"]}, BASELINE_KEY=put(b"<"))
    assert (run["evidence"], run["baseline"], run["warnings"]) == ({}, None, audited.audit()["warnings"])


def test_a_comment_of_theirs_may_look_like_markup(audited: Audited, put: Callable[[bytes], str]) -> None:
    document = CKL.replace(b"Entered by a person.", b"]]&gt; &#60;!-- <![CDATA[</COMMENTS>]]>")
    run = audited.audit(BASELINE_KEY=put(document))
    merged, theirs = reviews(audited.read(run["evidence"]["merged"])), reviews(document)
    assert merged.keys() == theirs.keys()
    assert str(merged["SV-235846r627665_rule"][2]).startswith("]]> <!-- </COMMENTS>")


BROKEN = {
    "not there": (None, "it is not there, or may not be read (NoSuchKey): put it there"),
    "no checklist": (b"PK", "it is neither a .ckl nor a .cklb"),
    "cut off": (CKL[:-50], "it cannot be read as XML"),
    "a door for entities": (
        CKL.replace(b"<CHECKLIST>", b'<!DOCTYPE CHECKLIST SYSTEM "file:///etc/passwd"><CHECKLIST>'),
        "it has a document type declaration",
    ),
    "without the rule": (CKL.replace(b"235846", b"999999"), "it has no rule V-235846"),
    "too large": (CKL + b" " * SIZE_LIMIT, "it is larger than 8 MiB"),
}


@pytest.mark.parametrize(("document", "problem"), BROKEN.values(), ids=BROKEN.keys())
def test_a_baseline_that_cannot_be_answered_costs_nothing_else_and_is_reported(
    audited: Audited,
    registry: InMemoryRegistry,
    put: Callable[[bytes], str],
    document: bytes | None,
    problem: str,
) -> None:
    registry.push("team", "app", "1.0")
    registry.sign("team", "app", "1.0")
    key = "baseline/nobody-put-it.ckl" if document is None else put(document)
    run = audited.audit(BASELINE_KEY=key)

    assert (run["status"], run["complete"]) == ("NOT_A_FINDING", True)
    assert set(run["evidence"]) == {"report", "ckl", "cklb", "manifest"}
    (warning,) = run["warnings"]
    url = f"s3://{audited.stack.outputs['BucketName']}/{key}"
    assert warning.startswith(f"{url}, your own checklist, was not answered: {problem}")
    assert run["baseline"]["problem"].startswith(problem)
    is_whole = document is not None and len(document) <= SIZE_LIMIT
    assert run["baseline"]["sha256"] == (hashlib.sha256(document or b"").hexdigest() if is_whole else None)
    assert warning.partition(" was not")[0] in audited.read(run["evidence"]["ckl"]).decode()
    assert len(audited.keys("evidence")) == len(run["evidence"])
    # On a day on which there is nothing else to tell.
    (message,) = audited.messages()
    assert (message.attributes["event"], message.body["warnings"]) == ("baseline_unusable", [warning])
    assert warning in audited.mails()[-1].text


def test_a_fault_is_reported_once_and_again_when_it_comes_back(
    audited: Audited, registry: InMemoryRegistry, put: Callable[[bytes], str]
) -> None:
    registry.push("team", "app", "1.0")
    registry.sign("team", "app", "1.0")

    def reported(document: bytes) -> list[str]:
        audited.audit(BASELINE_KEY=put(document))
        return [message.attributes["event"] for message in audited.messages()]

    days = [reported(document) for document in (CKL[:-9], CKL[:-9], CKL, CKL, CKL[:-9])]
    assert days == [["baseline_unusable"], [], [], [], ["baseline_unusable"]]


def test_a_run_that_reports_no_one_leaves_the_fault_for_the_next(audited: Audited, put: Callable[[bytes], str]) -> None:
    key = put(b"<")
    audited.audit({"scheduled_time": "2026-11-01T03:00:00Z", "alerts": False}, BASELINE_KEY=key)
    assert audited.messages() == []
    audited.audit({"scheduled_time": "2026-11-02T03:00:00Z"}, BASELINE_KEY=key)
    assert [message.attributes["event"] for message in audited.messages()] == ["baseline_unusable"]


class Bucket:
    """S3, as it refuses."""

    def __init__(self, code: str) -> None:
        self._code = code

    def get_object(self, **_: str) -> dict[str, StreamingBody]:
        raise ClientError({"Error": {"Code": self._code, "Message": "no"}}, "GetObject")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        # What S3 says of a key that is not there to whoever may not list the bucket, as in a real deployment.
        ("AccessDenied", r"it is not there, or may not be read \(AccessDenied\): put it there"),
        ("InvalidObjectState", r"S3 does not give it \(InvalidObjectState\): see whether"),
    ],
)
def test_what_s3_does_not_give_is_named(code: str, problem: str) -> None:
    bucket: Any = Bucket(code)
    archive = Archive(bucket, "bucket", "prod", "20261101T030000Z", "2026-11-01", confirm=lambda: None)
    with pytest.raises(EvidenceError, match=problem):
        archive.read("baseline/dtr.ckl", limit=1)


def test_a_note_of_another_tool_for_the_whole_file_is_warned_of_and_costs_nothing(
    audited: Audited, registry: InMemoryRegistry, put: Callable[[bytes], str]
) -> None:
    registry.push("team", "app", "1.0")
    note = b"<!--<Evaluate-STIG><version>1.2407</version></Evaluate-STIG>-->"
    key = put(CKL.replace(b"<CHECKLIST>", note + b"<CHECKLIST>").replace(b"<VULN>", b"<VULN>" + note))
    run = audited.audit(BASELINE_KEY=key)

    assert run["baseline"]["problem"] is None
    reported = (
        f"s3://{audited.stack.outputs['BucketName']}/{key}, your own checklist: it has a note of Evaluate-STIG outside"
    )
    (warning,) = [one for one in run["warnings"] if one.startswith(reported)]
    merged = audited.read(run["evidence"]["merged"])
    # Those of the file and of the two rules that are not answered.
    assert merged.count(note) == 3
    assert warning.encode() in audited.read(run["evidence"]["ckl"])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8-sig"])
def test_a_secret_in_a_checklist_in_another_encoding_is_taken_out_of_the_merged_one(
    audited: Audited, registry: InMemoryRegistry, put: Callable[[bytes], str], encoding: str, dtr: DtrServer
) -> None:
    registry.push("team", "app", "1.0")
    document = CKLB.decode().replace("[dtr-signature-audit]", f"The password is {dtr.admin.password}.")
    key = f"baseline/{audited.name}.cklb"
    content = document.encode(encoding) if encoding == "utf-8-sig" else f"\ufeff{document}".encode(encoding)
    audited.stack.s3.put_object(Bucket=audited.stack.outputs["BucketName"], Key=key, Body=content)
    merged = audited.read(audited.audit(BASELINE_KEY=key)["evidence"]["merged"]).decode(encoding)

    assert dtr.admin.password not in merged
    assert "[removed]" in merged
    rules = json.loads(merged.removeprefix("\ufeff"))["stigs"][0]["rules"]
    assert next(rule["status"] for rule in rules if rule["group_id"] == "V-235846") == "open"
