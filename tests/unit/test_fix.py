"""The lines that sign a finding: they can never push, they stop at a failure, and names from a registry stay names."""

import hashlib
import itertools
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from dtr_audit.core.counts import TrustCounts
from dtr_audit.core.finding import ChangeKind, Finding, State
from dtr_audit.core.fix import fix_commands
from dtr_audit.core.model import Repository, Verdict
from tests.harness.fix_blocks import blocks

DOMAIN = "dtr.example.mil:8443"
IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
KINDS = (
    IMAGE,
    LIST,
    INDEX,
    OCI,
    SCHEMA_1,
    "application/vnd.docker.distribution.manifest.v1+json",
    "",
    "application/json",
)
VERDICTS = (Verdict.UNSIGNED, Verdict.MISMATCHED, Verdict.UNTRUSTED)
MANIFEST = b'{"schemaVersion": 2}\n\n'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
HOSTILE = (
    ("svc$", "$(touch pwned)"),
    ("jürgen", "`touch pwned`"),
    ("doe.jane@agency.mil", "'; touch pwned; '"),
    ("-lead", "--publish"),
    ("a#b", '"; touch pwned; "'),
    ("50%", "1.0 && touch pwned"),
    ("a b", "${IFS}*?[a-z]{b,c}"),
    ("!!", "\\"),
    ("~", "../../x?y#z"),
)
REQUIRED = (
    None,
    TrustCounts(),
    TrustCounts(required_signers=("ci",)),
    TrustCounts(required_signers=("targets/ci", "release"), repository_key_suffices=True),
    TrustCounts(required_signers=("ci", "release"), all_signers=True),
)


def finding(
    namespace: str = "platform", tag: str = "1.0", *, verdict: Verdict = Verdict.UNSIGNED, media_type: str = IMAGE
) -> Finding:
    return Finding(
        registry="prod",
        repository=Repository(namespace, "api"),
        tag=tag,
        state=State.OPEN,
        verdict=verdict,
        reason="",
        digest=DIGEST,
        author="",
        pushed_at="",
        first_seen="",
        last_changed="",
        changed_in="",
        transition=ChangeKind.OPENED,
        media_type=media_type,
    )


@cache
def every_fix() -> list[tuple[str, ...]]:
    return [
        fix_commands(replace(finding(*names, verdict=verdict, media_type=kind), digest=digest), DOMAIN, trust)
        for names, verdict, kind, digest, trust in itertools.product(
            (("platform", "1.0"), *HOSTILE),
            VERDICTS,
            KINDS,
            (DIGEST, "", "sha512:" + "a" * 128, "sha256:$(reboot)"),
            REQUIRED,
        )
    ]


def sign_only(lines: Iterable[str]) -> list[str]:
    return blocks(lines)[-1]


def comments(lines: Iterable[str]) -> str:
    return "\n".join(line for line in lines if line.startswith("#"))


# --- what holds for all of them ---


def test_no_line_of_any_finding_pushes() -> None:
    for lines in every_fix():
        for line in itertools.chain.from_iterable(blocks(lines)):
            words = shlex.split(line.removesuffix(" &&"), comments=False)
            assert not {"docker", "skopeo", "podman", "push", "copy"} & set(words), line
            assert "notary" in words or not {"-X", "--request", "-T", "--upload-file", "--data"} & set(words), line


def test_every_line_but_the_last_of_a_block_ends_in_and() -> None:
    for lines in every_fix():
        for block in blocks(lines):
            assert all(line.endswith(" &&") for line in block[:-1]), block
            assert not block[-1].endswith("&&")


def test_every_block_is_one_list_of_commands_to_a_shell(tmp_path: Path) -> None:
    functions = []
    for number, block in enumerate({tuple(block) for lines in every_fix() for block in blocks(lines)}):
        # A function of one list: what would end the list early, or a quote left open, is an error of the shell's.
        functions.append("\n".join([f"f{number}() {{", "if true &&", *block, "then :; fi", "}"]))
    script = tmp_path / "all.sh"
    script.write_text("\n".join(functions), encoding="utf-8")
    assert len(functions) > 50
    for shell in ("/bin/sh", "/bin/bash"):
        subprocess.run([shell, "-n", str(script)], check=True, timeout=20)  # noqa: S603 - it is only read


def test_comments_hold_nothing_that_a_shell_without_comments_would_run() -> None:
    for lines in every_fix():
        assert re.fullmatch(r"[\w \n#.,:/+-]+", comments(lines)), comments(lines)


def test_names_stand_only_in_quotes_or_in_an_address() -> None:
    for namespace, tag in HOSTILE:
        text = "\n".join(sign_only(fix_commands(finding(namespace, tag), DOMAIN)))
        assert f"GUN={shlex.quote(f'{DOMAIN}/{namespace}/api')} TAG={shlex.quote(tag)} " in text


# --- who, what and when ---


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_owners_lines_are_apart_and_only_they_make_trust_data(verdict: Verdict) -> None:
    owner, signer = blocks(fix_commands(finding(verdict=verdict), DOMAIN))
    assert ["trust init" in line for line in owner].count(True) == (verdict is Verdict.UNSIGNED)
    assert sum("trust delegation add" in line for line in owner) == 2
    assert not [line for line in signer if re.search("trust (init|delegation|key rotate)", line)]
    assert not [line for line in owner if re.search("addhash|key import", line)]


def test_a_mismatched_tag_is_signed_only_after_a_check_and_names_the_upgraded_client() -> None:
    said = comments(fix_commands(finding(verdict=Verdict.MISMATCHED), DOMAIN))
    assert "only after a person has checked that it is the intended image" in said
    assert "upgraded to Docker CLI 29" in said


@pytest.mark.parametrize(
    ("trust", "said", "line"),
    [
        (
            None,
            "Who signs: a person or robot that the owner has made a signer",
            ': "${SIGNER:?the name of the signer}" &&',
        ),
        (TrustCounts(required_signers=("targets/ci",)), "Who must sign: ci.", "SIGNER=ci &&"),
        (
            TrustCounts(required_signers=("ci", "release"), repository_key_suffices=True),
            "Who must sign: one of these, as SIGNER: ci, release, or the owner with the targets key.",
            ': "${SIGNER:?the name of the signer}" &&',
        ),
        (
            TrustCounts(required_signers=("ci", "release"), all_signers=True),
            "Who must sign: each of these, as SIGNER: ci, release.\n# Each of them runs the lines",
            ': "${SIGNER:?the name of the signer}" &&',
        ),
    ],
)
def test_the_lines_say_who_must_sign_and_sign_in_the_roles_of_that_signer(
    trust: TrustCounts | None, said: str, line: str
) -> None:
    lines = fix_commands(finding(), DOMAIN, trust)
    assert said in comments(lines)
    assert all(line in block for block in blocks(lines))
    assert '-r targets/releases -r "targets/$SIGNER"' in sign_only(lines)[-1]


@pytest.mark.parametrize("media_type", [LIST, INDEX])
def test_of_a_list_the_digest_of_the_list_is_signed(media_type: str) -> None:
    lines = fix_commands(finding(media_type=media_type), DOMAIN)
    assert "One signature covers the images for all platforms" in comments(lines)
    assert f"DIGEST={DIGEST.removeprefix('sha256:')} &&" in sign_only(lines)[0]


def test_a_schema_1_image_is_not_signed_but_built_again_or_deleted() -> None:
    lines = fix_commands(finding(media_type=SCHEMA_1), DOMAIN)
    assert blocks(lines) == []
    assert "Build the image again" in comments(lines)
    assert "delete the tag" in comments(lines)


@pytest.mark.parametrize("digest", ["", "sha512:" + "a" * 128, "sha256:$(reboot)"])
def test_without_a_digest_that_can_be_signed_there_are_no_lines_to_run(digest: str) -> None:
    lines = fix_commands(replace(finding(), digest=digest), DOMAIN)
    assert blocks(lines) == []
    assert "delete the tag" in comments(lines)


# --- run in a shell, with programs that note what they are given ---

NOTE = 'printf "%s\\0" "${0##*/}" "$@" >> "$NOTES"; printf "\\1\\0" >> "$NOTES"\n'
NOTARY = f'#!/bin/sh\n{NOTE}case "$*" in *" $FAILS "*) exit 1 ;; esac\n'
CURL = f"""#!/bin/sh
{NOTE}cat >> "$GIVEN"
case "$*" in *" $FAILS "*) exit 22 ;; esac
case "$*" in
  */auth/token*) printf '%s' '{{"access_token":"no", "token":"a.b-c_d="}}' ;;
  *) printf '%s\\n\\n' '{{"schemaVersion": 2}}' ;;
esac
"""
Runner = Callable[..., tuple[int, list[list[str]]]]


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("notary", NOTARY), ("curl", CURL)):
        (programs / name).write_text(text, encoding="ascii")
        (programs / name).chmod(0o700)

    def run(lines: Sequence[str], *, fails: str = "nothing", **changed: str) -> tuple[int, list[list[str]]]:
        notes = tmp_path / "notes"
        notes.write_bytes(b"")
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "NOTES": str(notes),
            "GIVEN": str(tmp_path / "given"),
            "FAILS": fails,
            "SIGNER": "alice",
            "CA": "my ca.pem",
            "NOTARY_AUTH": "bmFtZTpwYXNzd29yZA==",
        } | changed
        done = subprocess.run(  # noqa: S603 - with programs of this test's own
            ["/bin/sh", "-c", "\n".join(lines)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert not (tmp_path / "pwned").exists()
        calls = [[word.decode() for word in call.split(b"\0") if word] for call in notes.read_bytes().split(b"\1\0")]
        return done.returncode, [call for call in calls if call]

    return run


@pytest.mark.parametrize(("namespace", "tag"), [("platform", "1.0"), *HOSTILE])
def test_names_of_any_kind_reach_the_notary_unchanged(run: Runner, namespace: str, tag: str) -> None:
    status, calls = run(fix_commands(finding(namespace, tag), DOMAIN))
    assert status == 0
    gun = f"{DOMAIN}/{namespace}/api"
    assert calls[-1][-10:] == [
        *("-r", "targets/releases", "-r", "targets/alice", "--sha256", DIGEST.removeprefix("sha256:"), "--"),
        *(gun, tag, str(len(MANIFEST))),
    ]
    assert all(call[:3] == ["notary", "-s", f"https://{DOMAIN}"] for call in calls if call[0] == "notary")
    assert all(call[5:7] == ["--tlscacert", "my ca.pem"] for call in calls if call[0] == "notary")


def test_the_registry_is_asked_with_its_certificate_verified_and_the_login_on_no_command_line(
    run: Runner, tmp_path: Path
) -> None:
    _, calls = run(fix_commands(finding("jürgen", "../x?y#z"), DOMAIN))
    asked = [call for call in calls if call[0] == "curl"]
    assert [call[-1] for call in asked] == [
        f"https://{DOMAIN}/auth/token?service=dtr.example.mil%3A8443&scope=repository%3Aj%C3%BCrgen/api%3Apull",
        f"https://{DOMAIN}/v2/j%C3%BCrgen/api/manifests/..%2Fx%3Fy%23z",
    ]
    for call in asked:
        assert call[1] == "-q"  # it must be the first: then no file of options is read
        assert call[call.index("--cacert") + 1] == "my ca.pem"
        assert "https" in call[call.index("--proto") + 1]
        assert not {"-k", "--insecure", "-L", "--location"} & set(call)
        assert not [word for word in call if "bmFtZTpwYXNzd29yZA" in word or "a.b-c_d" in word]
    given = (tmp_path / "given").read_text(encoding="ascii").splitlines()
    assert given == [
        'header = "Authorization: Basic bmFtZTpwYXNzd29yZA=="',
        'header = "Authorization: Bearer a.b-c_d="',
    ]


@pytest.mark.parametrize("fails", ["reset", "key", "init", "delegation", DOMAIN])
def test_a_step_that_fails_is_the_last_of_its_block(run: Runner, fails: str) -> None:
    for block in blocks(fix_commands(finding(), DOMAIN)):
        status, calls = run(block, fails=fails)
        failed = [number for number, call in enumerate(calls) if fails in call[:-1]]
        assert failed in ([], [len(calls) - 1])
        assert (status == 0) is (failed == [])


def test_a_tag_that_has_moved_since_is_not_signed(run: Runner) -> None:
    moved = replace(finding(), digest="sha256:" + "0" * 64)
    status, calls = run(sign_only(fix_commands(moved, DOMAIN)))
    assert status != 0
    assert not [call for call in calls if "addhash" in call]


@pytest.mark.parametrize("missing", ["SIGNER", "CA", "NOTARY_AUTH"])
def test_nothing_is_asked_while_something_is_not_said(run: Runner, missing: str) -> None:
    for block in blocks(fix_commands(finding(), DOMAIN)):
        status, calls = run(block, **{missing: ""})
        assert status != 0
        assert calls == []
