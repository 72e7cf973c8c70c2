"""The signature over a run's manifest: made with a key in KMS, checked by openssl, by `cryptography`, and by `verify`."""

import base64
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectTimeoutError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from dtr_audit.aws import kms
from dtr_audit.aws.clients import AwsClients
from dtr_audit.core import manifest, signature
from dtr_audit.errors import EvidenceError
from dtr_audit_cli.__main__ import main
from dtr_audit_cli.verification import VerificationError, Verified, find_place, read_public_key, verify
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from tests.harness.audit_harness import Audited

# What openssl is told besides the key, the signature and the file, as docs/isso.md has it.
OPENSSL = {
    "ECC_NIST_P256": ["-sha256"],
    "ECC_NIST_P384": ["-sha384"],
    "RSA_2048": ["-sha256", "-sigopt", "rsa_padding_mode:pss"],
    "RSA_3072": ["-sha256", "-sigopt", "rsa_padding_mode:pss"],
}

FAR_SECONDS = 600.0  # no test lasts so long


class Key:
    """A key in KMS, as its owner has it."""

    def __init__(self, spec: str, usage: str = "SIGN_VERIFY") -> None:
        self.spec = spec
        self._client: Any = boto3.client("kms")
        made = self._client.create_key(KeySpec=spec, KeyUsage=usage)
        self.arn: str = made["KeyMetadata"]["Arn"]

    def public(self) -> bytes:
        """Give the public key as `aws kms get-public-key` gives it."""
        public: bytes = self._client.get_public_key(KeyId=self.arn)["PublicKey"]
        return public

    def write(self, folder: Path) -> Path:
        """Write the public key into a file, as docs/isso.md says."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "trusted.pem"
        reported = [openssl(), "pkey", "-pubin", "-inform", "DER", "-out", str(file)]
        subprocess.run(reported, input=self.public(), check=True)  # noqa: S603 (all of it is ours)
        return file

    def close(self) -> None:
        self._client.close()


def openssl() -> str:
    found = shutil.which("openssl")
    assert found, "these tests need openssl"
    return found


@pytest.fixture
def key(audited: Audited) -> Iterator[Key]:
    with closing(Key("ECC_NIST_P256")) as key:
        yield key


@pytest.fixture
def other(audited: Audited) -> Iterator[Key]:
    with closing(Key("ECC_NIST_P256")) as key:
        yield key


def left_by(audited: Audited, run: Mapping[str, Any]) -> dict[str, bytes]:
    """Read the manifest and what lies beside it, by file name."""
    prefix = f"evidence/registry={audited.name}/{run['run_id']}/"
    names = [key.removeprefix(prefix) for key in audited.keys("evidence") if key.startswith(prefix + manifest.NAME)]
    return {name: audited.read(prefix + name) for name in names}


def folder_of(audited: Audited, folder: Path) -> Path:
    """Copy what the bucket holds, as `out/` does."""
    for kind in ("findings", "runs", "evidence"):
        for key in audited.keys(kind):
            file = folder / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(audited.read(key))
    return folder


def verified(folder: Path, trusted: Path | None = None) -> list[Verified]:
    return list(verify(*find_place(str(folder)), read_public_key(trusted) if trusted else None))


def finish_not(audited: Audited, run: Mapping[str, Any]) -> None:
    """Let a run look as if its attempt had been cut off at its very end."""
    audited.stack.resource_client.update_item(
        TableName=audited.stack.outputs["RunsTableName"],
        Key={"pk": audited.name, "sk": run["run_id"]},
        UpdateExpression="REMOVE finished",
    )


# --- What is signed, and how ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", OPENSSL)
def test_openssl_verifies_the_signature_over_the_manifest_as_it_lies_there(
    audited: Audited, registry: InMemoryRegistry, tmp_path: Path, spec: str
) -> None:
    registry.push("team", "app", "1.0")
    with closing(Key(spec)) as key:
        run = audited.audit(SIGNING_KEY_ARN=key.arn)
        trusted = key.write(tmp_path)
    for name, content in left_by(audited, run).items():
        (tmp_path / name).write_bytes(content)
    check = [
        openssl(),
        "dgst",
        *OPENSSL[spec],
        "-verify",
        str(trusted),
        "-signature",
        "manifest.json.sig",
        "manifest.json",
    ]

    def ask() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603 (all of it is ours)

    assert (ask().returncode, ask().stdout.strip()) == (0, "Verified OK")
    (tmp_path / "manifest.json").write_bytes((tmp_path / "manifest.json").read_bytes() + b" ")
    assert ask().returncode == 1


def test_the_signature_is_over_the_very_bytes_of_the_manifest(audited: Audited, key: Key) -> None:
    files = left_by(audited, audited.audit(SIGNING_KEY_ARN=key.arn))
    public = load_der_public_key(key.public())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(files["manifest.json.sig"], files["manifest.json"], ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        public.verify(files["manifest.json.sig"], files["manifest.json"][:-1], ec.ECDSA(hashes.SHA256()))


def test_an_rsa_signature_has_the_salt_that_kms_gives_it(audited: Audited) -> None:
    with closing(Key("RSA_2048")) as key:
        files = left_by(audited, audited.audit(SIGNING_KEY_ARN=key.arn))
        public = load_der_public_key(key.public())
    assert isinstance(public, rsa.RSAPublicKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=hashes.SHA256().digest_size)
    public.verify(files["manifest.json.sig"], files["manifest.json"], pss, hashes.SHA256())


def test_what_lies_beside_the_signature_names_the_key(audited: Audited, key: Key) -> None:
    run = audited.audit(SIGNING_KEY_ARN=key.arn)
    files = left_by(audited, run)
    assert set(files) == {"manifest.json", "manifest.json.sig", "manifest.json.sig.json"}
    about = json.loads(files["manifest.json.sig.json"])
    assert set(about) == {"format", "algorithm", "key", "public_key"}
    assert (about["key"], about["algorithm"]) == (key.arn, "ECDSA_SHA_256")
    lines = about["public_key"].splitlines()
    assert (lines[0], lines[-1]) == ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----")
    assert base64.b64decode("".join(lines[1:-1])) == key.public()
    assert run["evidence"]["signature"].endswith(f"/{run['run_id']}/manifest.json.sig")


def test_the_record_in_the_manifest_is_the_record_in_the_bucket(audited: Audited, key: Key, tmp_path: Path) -> None:
    """It was signed before it was written: what it says of the signature must not differ."""
    run = audited.audit(SIGNING_KEY_ARN=key.arn)
    record = json.loads(audited.read(*[one for one in audited.keys("runs") if run["run_id"] in one]))
    assert record["evidence"] == run["evidence"]
    (found,) = verified(folder_of(audited, tmp_path / "out"), key.write(tmp_path))
    assert found.faults == ()
    assert found.signature == "signed by the key given"


def test_a_partial_run_is_signed_too(audited: Audited, registry: InMemoryRegistry, key: Key, tmp_path: Path) -> None:
    registry.push("team", "app", "1.0")
    event = {"scheduled_time": "2026-11-01T03:00:00Z", "namespaces": ["team"]}
    run = audited.audit(event, SIGNING_KEY_ARN=key.arn)
    assert run["evidence"] == {}
    (found,) = verified(folder_of(audited, tmp_path / "out"), key.write(tmp_path))
    assert (found.faults, found.signature) == ((), "signed by the key given")


def test_without_a_key_nothing_is_signed_and_kms_is_not_asked(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AwsClients, "kms", property(lambda _: pytest.fail("KMS is asked")))
    run = audited.audit()
    assert set(left_by(audited, run)) == {"manifest.json"}
    assert "signature" not in run["evidence"]
    assert run["warnings"] == []


# --- When it cannot be signed -----------------------------------------------------------------------------------------------


def assert_kept_but_not_signed(audited: Audited, run: Mapping[str, Any], because: str) -> None:
    """See that a run is whole in every other way, and says so wherever it speaks."""
    (warning,) = run["warnings"]
    assert warning.startswith("the manifest of this run is not signed: ")
    assert because in warning
    assert run["complete"] is True
    assert "signature" not in run["evidence"]
    files = left_by(audited, run)
    assert files["manifest.json.sig"] == b""
    (item,) = [one for one in audited.items("RunsTableName") if (one["pk"], one["sk"]) == (audited.name, run["run_id"])]
    assert item["warnings"] == [warning]
    assert "finished" in item


@pytest.mark.parametrize(
    ("spec", "usage"),
    [("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"), ("RSA_2048", "ENCRYPT_DECRYPT"), ("ECC_NIST_P521", "SIGN_VERIFY")],
)
def test_a_key_of_another_kind_is_named_as_that_and_costs_nothing_else(
    audited: Audited, registry: InMemoryRegistry, spec: str, usage: str
) -> None:
    registry.push("team", "app", "1.0")
    registry.push("team", "web", "1.0")
    registry.sign("team", "web", "1.0")
    with closing(Key(spec, usage)) as key:
        run = audited.audit(SIGNING_KEY_ARN=key.arn)
    assert_kept_but_not_signed(audited, run, "ECC_NIST_P256, ECC_NIST_P384 or RSA is needed")
    (message,) = audited.messages()
    assert message.body["warnings"] == run["warnings"]


def test_a_key_that_is_not_there_is_reported_with_the_remedy(audited: Audited, key: Key, tmp_path: Path) -> None:
    run = audited.audit(SIGNING_KEY_ARN=f"{key.arn[:-4]}0000")
    assert_kept_but_not_signed(audited, run, "there is no such key in the region of the audit")
    (found,) = verified(folder_of(audited, tmp_path / "out"))
    assert (found.faults, found.signature) == ((), "not signed")


@pytest.mark.parametrize("code", ["AccessDeniedException", "KMSInvalidStateException", "ThrottlingException"])
def test_any_kms_answers_is_reported_by_its_code_alone(code: str) -> None:
    class Refusing:
        def get_public_key(self, **_: Any) -> Mapping[str, Any]:
            raise ClientError({"Error": {"Code": code, "Message": "must-never-leak"}}, "GetPublicKey")

        def sign(self, **_: Any) -> Mapping[str, Any]:
            pytest.fail("it is asked to sign all the same")

    with pytest.raises(EvidenceError, match=f"answered GetPublicKey with {code}") as reported:
        kms.sign(b"", Refusing(), "arn")
    assert "must-never-leak" not in str(reported.value)


def test_a_kms_that_cannot_be_reached_is_reported() -> None:
    class Unreachable:
        def get_public_key(self, **_: Any) -> Mapping[str, Any]:
            raise ConnectTimeoutError(endpoint_url="https://kms")

        sign = get_public_key

    with pytest.raises(EvidenceError, match="could not be asked"):
        kms.sign(b"", Unreachable(), "arn")


def test_a_kms_that_does_not_answer_costs_a_run_no_more_than_its_time(
    audited: Audited, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in subnets without a way to KMS."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = Config(connect_timeout=FAR_SECONDS, read_timeout=FAR_SECONDS, retries={"total_max_attempts": 1})
        with closing(boto3.client("kms", endpoint_url=endpoint, config=config)) as client:
            monkeypatch.setattr(AwsClients, "kms", client)
            monkeypatch.setattr("dtr_audit.pipeline.report.SIGNING_SECONDS", 0.1)
            run = audited.audit(SIGNING_KEY_ARN=key.arn)
            assert_kept_but_not_signed(audited, run, "did not answer in time")


def test_a_retry_that_cannot_sign_leaves_no_signature_of_an_earlier_attempt(
    audited: Audited, key: Key, tmp_path: Path
) -> None:
    run = audited.audit(SIGNING_KEY_ARN=key.arn)
    assert left_by(audited, run)["manifest.json.sig"]
    finish_not(audited, run)
    again = audited.audit(audited.event(), SIGNING_KEY_ARN=f"{key.arn[:-4]}0000")
    assert again["run_id"] == run["run_id"]
    assert_kept_but_not_signed(audited, again, "no such key")
    (found,) = verified(folder_of(audited, tmp_path / "out"))
    assert (found.faults, found.signature) == ((), "not signed")


def test_a_retry_signs_what_it_wrote_itself(audited: Audited, key: Key, tmp_path: Path) -> None:
    run = audited.audit(SIGNING_KEY_ARN=key.arn)
    finish_not(audited, run)
    audited.audit(audited.event(), SIGNING_KEY_ARN=key.arn)
    (found,) = verified(folder_of(audited, tmp_path / "out"), key.write(tmp_path))
    assert (found.faults, found.signature) == ((), "signed by the key given")


# --- What verify says of it -------------------------------------------------------------------------------------------------


@pytest.fixture
def results(audited: Audited, registry: InMemoryRegistry, key: Key, tmp_path: Path) -> Path:
    registry.push("team", "app", "1.0")
    audited.audit(SIGNING_KEY_ARN=key.arn)
    return folder_of(audited, tmp_path / "out")


def only(folder: Path, name: str) -> Path:
    (found,) = folder.rglob(name)
    return found


def rewrite_as_a_forger_would(results: Path) -> None:
    """Change a file, and the manifest with it, so that all sums agree."""
    forged = only(results, "checklist.ckl")
    forged.write_text("NotAFinding")
    listed = manifest.read(only(results, "manifest.json").read_bytes())
    files = [
        manifest.describe(file.key, forged.read_bytes()) if file.key.endswith("checklist.ckl") else file
        for file in listed.files
    ]
    only(results, "manifest.json").write_bytes(manifest.write(listed.registry, listed.run_id, files))


def sign_as_a_forger_would(results: Path, key: Key) -> None:
    client = boto3.client("kms")
    made = kms.sign(only(results, "manifest.json").read_bytes(), client, key.arn)
    client.close()
    only(results, "manifest.json.sig").write_bytes(made.value)
    only(results, "manifest.json.sig.json").write_bytes(made.describe())


def test_a_key_that_lies_beside_the_files_is_no_verification_and_is_said_to_be_none(results: Path) -> None:
    (found,) = verified(results)
    assert found.faults == ()
    assert found.signature.startswith(
        "signed by the key that lies beside it, which proves nothing: give the --public-key"
    )


def test_a_forged_manifest_is_not_signed_by_the_key_given(results: Path, key: Key, tmp_path: Path) -> None:
    rewrite_as_a_forger_would(results)
    (found,) = verified(results, key.write(tmp_path))
    assert [fault.partition(": ")[2] for fault in found.faults] == [
        "manifest.json.sig is not its signature by the key given"
    ]
    (unaided,) = verified(results)
    assert unaided.faults[0].endswith("manifest.json.sig is not its signature by the key beside it")


def test_a_forger_with_a_key_of_their_own_is_found_by_the_key_given_alone(
    results: Path, key: Key, other: Key, tmp_path: Path
) -> None:
    rewrite_as_a_forger_would(results)
    sign_as_a_forger_would(results, other)
    assert verified(results)[0].faults == ()  # which is why it says that it proves nothing
    (found,) = verified(results, key.write(tmp_path))
    assert len(found.faults) == 1
    assert found.signature == "NOT signed by the key given"


@pytest.mark.parametrize("taken", [True, False], ids=["taken away", "emptied"])
def test_one_who_gives_a_key_is_reported_of_a_manifest_without_a_signature_as_of_a_fault(
    results: Path, key: Key, tmp_path: Path, taken: bool
) -> None:
    value = only(results, "manifest.json.sig")
    value.unlink() if taken else value.write_bytes(b"")
    (found,) = verified(results, key.write(tmp_path))
    assert found.signature == "not signed"
    assert [fault.partition(": ")[2] for fault in found.faults] == ["not signed, so the key given says nothing of it"]
    assert verified(results)[0].faults == ()


HOSTILE = {
    "nothing": b"",
    "no JSON": b"\xff\xfe",
    "deep": b"[" * 15_000,
    "another format": b'{"format": "other", "public_key": "-----BEGIN PUBLIC KEY-----"}',
    "no key": json.dumps({"format": signature.FORMAT}).encode(),
    "a number": json.dumps({"format": signature.FORMAT, "public_key": 7}).encode(),
    "half a character": json.dumps({"format": signature.FORMAT, "public_key": "\ud800"}).encode(),
    "not a key": json.dumps({"format": signature.FORMAT, "public_key": "-----BEGIN PUBLIC KEY-----\nAA"}).encode(),
    "endless": b'{"public_key": "' + b"A" * 100_000,
}


@pytest.mark.parametrize("content", HOSTILE)
def test_what_lies_beside_the_signature_decides_nothing_any_it_is(
    results: Path, key: Key, tmp_path: Path, content: str
) -> None:
    only(results, "manifest.json.sig.json").write_bytes(HOSTILE[content])
    (found,) = verified(results)
    assert found.faults == ()
    assert found.signature == "a signature lies beside it, which was not checked: give its --public-key"
    (found,) = verified(results, key.write(tmp_path))
    assert (found.faults, found.signature) == ((), "signed by the key given")


@pytest.mark.parametrize("content", [b"", b"\x30\x00", b"-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----\n"])
def test_a_key_given_that_is_none_is_an_error_and_not_a_pass(results: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "no.pem"
    file.write_bytes(content)
    assert main(["verify", str(results), "--public-key", str(file)]) == 2
    with pytest.raises(VerificationError, match=r"no\.pem: a public key of the kind"):
        read_public_key(file)
    assert main(["verify", str(results), "--public-key", str(tmp_path / "missing.pem")]) == 2


def test_a_key_on_another_curve_is_refused_by_what_is_needed(tmp_path: Path, audited: Audited) -> None:
    with (
        closing(Key("ECC_NIST_P521")) as key,
        pytest.raises(VerificationError, match="ECC_NIST_P256, ECC_NIST_P384 or"),
    ):
        read_public_key(key.write(tmp_path))


def test_a_key_is_taken_as_kms_gives_it(results: Path, key: Key, tmp_path: Path) -> None:
    file = tmp_path / "trusted.der"
    file.write_bytes(key.public())
    assert verified(results, file)[0].signature == "signed by the key given"


def test_the_command_says_it_and_its_status_reports_it(
    results: Path, key: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trusted = str(key.write(tmp_path))
    assert main(["verify", str(results)]) == 0
    assert main(["verify", str(results), "--public-key", trusted]) == 0
    reported = capsys.readouterr().out.splitlines()
    assert "which proves nothing" in reported[0]
    assert reported[1].endswith(" files, all as written; signed by the key given")
    rewrite_as_a_forger_would(results)
    assert main(["verify", str(results), "--public-key", trusted]) == 1
    reported = capsys.readouterr().out.splitlines()
    assert reported[0].endswith(" files, 1 not as written; NOT signed by the key given")
    assert "is not its signature by the key given" in reported[1]
