"""How to sign what a finding names: makes the lines that every message and document prints. Pure; no I/O.

The rule's Fix Text signs by `docker push`. With Docker CLI 29 that pushes without signing, and ends with status 0. So these lines
pull and push nothing: they sign the digest in its place, with the Notary's own client.
"""

import re
import shlex
from urllib.parse import quote

from dtr_audit.core.counts import TrustCounts
from dtr_audit.core.finding import Finding
from dtr_audit.core.model import Verdict

HOW_TO_RUN = (
    "Read the lines that begin with # first: they say what to check, and who signs. Run each block of the other lines in a shell "
    "such as sh or bash, in a folder with the client bundle of the signer. A failure stops the block, and nothing is pushed."
)

_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")
_SCHEMA_1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
_LISTS = frozenset(
    {"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.oci.image.index.v1+json"}
)
_ACCEPTED = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)

# Comments hold no character that another shell might read as more than a letter: some do not know them at a prompt.
_CHECK = {
    Verdict.UNSIGNED: (
        "# Sign this digest only after a person has checked that it is the intended image. If it is not, delete the tag.",
    ),
    Verdict.MISMATCHED: (
        "# The tag was signed, and then a push without a signature replaced the image. A likely cause is a client that was",
        "# upgraded to Docker CLI 29: it pushes without signing, even with DOCKER_CONTENT_TRUST set, and does not warn.",
        "# Sign this digest only after a person has checked that it is the intended image. If it is not, restore the signed one.",
    ),
    Verdict.UNTRUSTED: (
        "# The signature does not count, for the reason that the finding gives. Signing helps if a required signer has not signed,",
        "# or if another digest is signed. For other reasons, such as expired trust data, see docs/isso.md first.",
        "# Sign this digest only after a person has checked that it is the intended image. If it is not, delete the tag.",
    ),
}
_OF_A_LIST = "# The digest is that of a list of images. One signature covers the images for all platforms."
_IN_PLACE = "# The lines pull and push nothing. So they fit images for Windows, OCI images and immutable tags too."
_SET = "# Set CA to a file with the authorities of the registry in PEM, and NOTARY_AUTH to the login in base64: docs/owners.md."
_FOR_SCHEMA_1 = (
    "# The image has a schema 1 manifest. Its digest is not that of the bytes that a client gets, so a signature does not hold.",
    "# Build the image again with a current client, or convert it with skopeo copy --format v2s2, and sign the new digest.",
    "# If the image is not needed any more, delete the tag.",
)
_WITHOUT_DIGEST = (
    "# The registry gives no SHA-256 digest of what the tag holds, so no lines can be given that sign just that image.",
    "# Push the image again and audit again, or delete the tag.",
)
# Only where there is no trust data do the owner's lines make some: a second root would be refused, and would spoil the files of the
# owner's client. A signer's client would make a root of its own. What else is wrong shows when the lines publish.
_WITHOUT_TRUST_DATA = '{ said=$(trust list "$GUN" 2>&1) || case $said in *"does not have trust data"*) %s ;; esac; }'
_BEGIN = _WITHOUT_TRUST_DATA % 'trust init "$GUN" && trust key rotate "$GUN" snapshot --server-managed'
_STOP = _WITHOUT_TRUST_DATA % 'printf "%s\\n" "$said"; false'
_NEEDED = '"${CA:?}" "${NOTARY_AUTH:?}"'


def fix_commands(finding: Finding, domain: str, trust: TrustCounts | None = None) -> tuple[str, ...]:
    """Give the lines that fix one finding: comments that say what to check and who signs, and blocks for a POSIX shell.

    A block is the lines between comments, joined by `&&`; it can be run again. The first is for the repository's owner, the second
    for a signer. `domain` begins the GUN, and serves the Notary; `trust` says which signers the audit requires. What cannot be
    signed as it is has comments alone.
    """
    check = _CHECK.get(finding.verdict, _CHECK[Verdict.UNSIGNED])
    digest = _SHA256.fullmatch(finding.digest)
    if finding.media_type in _SCHEMA_1:
        return _FOR_SCHEMA_1
    if digest is None:
        return _WITHOUT_DIGEST
    return (
        *check,
        *((_OF_A_LIST,) if finding.media_type in _LISTS else ()),
        _IN_PLACE,
        *_say_who(trust),
        _SET,
        "# OWNER of the repository, once for each signer, with the root and targets keys and the cert.pem of the signer:",
        *_join(_let_sign(finding, domain, trust)),
        "# SIGNER, once for each tag, with cert.pem and key.pem of the own client bundle:",
        *_join(_sign(finding, digest[1], domain, trust)),
    )


def is_sha256(digest: str) -> bool:
    """Tell whether a digest is one that can be signed."""
    return _SHA256.fullmatch(digest) is not None


def _join(lines: tuple[str, ...]) -> tuple[str, ...]:
    return (*(f"{line} &&" for line in lines[:-1]), lines[-1])


def _say_who(trust: TrustCounts | None) -> tuple[str, ...]:
    if trust is None or not trust.required_signers:
        return (
            "# Who signs: a person or robot that the owner has made a signer of the repository. If UCP lets run only what",
            "# certain teams have signed, a member of each of them signs.",
        )
    own = ", or the owner with the targets key" if trust.repository_key_suffices else ""
    names = _signers(trust)
    if len(names) == 1:
        return (f"# Who must sign: {names[0]}{own}.",)
    which = "each of these" if trust.all_signers else "one of these"
    return (
        f"# Who must sign: {which}, as SIGNER: {', '.join(names)}{own}.",
        *(("# Each of them runs the lines, each with the own name as SIGNER.",) if trust.all_signers else ()),
    )


def _signers(trust: TrustCounts | None) -> tuple[str, ...]:
    return tuple(name.removeprefix("targets/") for name in trust.required_signers) if trust else ()


def _begin(domain: str, trust: TrustCounts | None) -> tuple[str, ...]:
    """Give the lines that say who signs, and how the Notary is asked."""
    names = _signers(trust)
    only = len(names) == 1
    return (
        f"SIGNER={shlex.quote(names[0])}" if only else ': "${SIGNER:?the name of the signer}"',
        f": {_NEEDED}",
        "export NOTARY_AUTH",
        f'trust() {{ notary -s {shlex.quote(f"https://{domain}")} -d "$HOME/.docker/trust" --tlscacert "$CA" "$@"; }}',
        # What was staged earlier, and never published, must not be published along with this.
        'trust reset --all "$GUN"',
    )


def _let_sign(finding: Finding, domain: str, trust: TrustCounts | None) -> tuple[str, ...]:
    """Give the owner's lines: trust data, if there is none, and the signer's delegations."""
    return (
        f"GUN={shlex.quote(f'{domain}/{finding.repository}')}",
        *_begin(domain, trust),
        _BEGIN if finding.verdict is Verdict.UNSIGNED else _STOP,
        'trust delegation add -p "$GUN" targets/releases cert.pem --all-paths',
        'trust delegation add -p "$GUN" "targets/$SIGNER" cert.pem --all-paths',
    )


def _sign(finding: Finding, digest: str, domain: str, trust: TrustCounts | None) -> tuple[str, ...]:
    """Give the signer's lines: read what the tag holds, see that it is the digest that was found, and sign it with its size."""
    repository = quote(str(finding.repository), safe="/")
    tokens = (
        f"https://{domain}/auth/token?service={quote(domain)}&scope={quote(f'repository:{finding.repository}:pull')}"
    )
    manifest = f"https://{domain}/v2/{repository}/manifests/{quote(finding.tag, safe='')}"
    return (
        f"GUN={shlex.quote(f'{domain}/{finding.repository}')} TAG={shlex.quote(finding.tag)} DIGEST={digest}",
        *_begin(domain, trust),
        # Other users can read a command line, so the login goes through a pipe. With -q no file can switch verification off.
        'get() { printf "header = \\"Authorization: %s\\"\\n" "$1" | '
        f'curl -q -fsS --proto =https --path-as-is --cacert "$CA" -K - -H "Accept: {", ".join(_ACCEPTED)}" "$2"; }}',
        f'TOKEN=$(get "Basic $NOTARY_AUTH" {shlex.quote(tokens)} | tr -d "\\r\\n" | '
        'sed -n "s/.*\\"token\\": *\\"\\([A-Za-z0-9._=+/~-]*\\)\\".*/\\1/p")',
        "MANIFEST=$(mktemp)",
        f'get "Bearer $TOKEN" {shlex.quote(manifest)} > "$MANIFEST"',
        # It fails if the tag has moved since the audit.
        'printf "%s  %s\\n" "$DIGEST" "$MANIFEST" | sha256sum -c -',
        'SIZE=$(wc -c < "$MANIFEST" | tr -d " ")',
        'rm "$MANIFEST"',
        _STOP,
        'trust key import --role "$SIGNER" key.pem',
        'trust addhash -p -r targets/releases -r "targets/$SIGNER" --sha256 "$DIGEST" -- "$GUN" "$TAG" "$SIZE"',
    )
