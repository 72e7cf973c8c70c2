"""What stands beside the rule is told as it was seen, over TLS; what could not be seen is told as that, and costs nothing."""

import base64
import html
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from dtr_audit.core.credentials import Credentials
from dtr_audit.core.readings import RelatedSettings
from dtr_audit.core.run_record import Status as RuleStatus
from dtr_audit.core.run_record import SupportingFact
from dtr_audit.http.deadline import ask_aside
from dtr_audit.registry.credentials import parse_secret
from dtr_audit.registry.dtr import DtrClient
from dtr_audit.registry.related_settings import ANSWER_LENGTH, begin_to_look
from dtr_audit.registry.ucp import ANSWER_BYTES, LINE_DOTS, NAME_LENGTH, UcpClient
from dtr_audit_simulator.dtr.accounts import Account
from dtr_audit_simulator.dtr.calls import Profile
from dtr_audit_simulator.dtr.fault_kinds import (
    EVERY_CALL,
    Body,
    CallFault,
    Calls,
    Closed,
    EndlessBody,
    GzipBomb,
    Redirect,
    Slow,
    Status,
    deep_json,
)
from dtr_audit_simulator.dtr.faults import HOSTILE_NAMES, LOGIN_PAGE, SETTINGS, Faults
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer, Server
from dtr_audit_simulator.http.authority import CertificateAuthority, Defect
from dtr_audit_simulator.ucp.server import AUTHENTICATION, CONFIGURATION, LOGIN, LOGOUT, Configuration, UcpServer
from tests.harness.audit_harness import Audited
from tests.harness.fake_clock import FakeClock

SCAN_STATUS = Calls("/api/v0/imagescan/status")
OPEN, PASSED, NOT_REVIEWED = RuleStatus.OPEN, RuleStatus.NOT_A_FINDING, RuleStatus.NOT_REVIEWED
FAR_SECONDS = 600.0  # no test lasts so long
PAUSE_SECONDS = 60.0  # before each byte
THREAD_NAMES = {"registry": "surroundings-0", "ucp": "surroundings-1"}
LEFT_SECONDS = 0.05  # of the time for the look, once all is in that comes

ON_PUSH, ANALYTICS, SCANNING = "V-235796", "V-235798", "V-235840"
LDAP, TRUST = "V-235780", "V-235847"
SIGNERS = "UCP: who must have signed them"
EXEMPT = "UCP: repositories whose images run unsigned"


@dataclass
class Secret:
    """The secret as it stands; tests change its keys."""

    keys: dict[str, Any]
    readings: int = 0

    def fetch(self, *, fresh: bool = False) -> Credentials:
        assert not fresh
        self.readings += 1
        return parse_secret(json.dumps(self.keys))


class Place:
    """A registry that is logged in to, a UCP elsewhere, and one look around."""

    def __init__(self, dtr: DtrServer, ucp: UcpServer) -> None:
        self.dtr = dtr
        self.ucp = ucp
        self.secret = Secret(
            {
                "username": dtr.admin.name,
                "password": dtr.admin.password,
                "ca_bundle": dtr.ca_bundle,
                "ucp_username": ucp.admin.name,
                "ucp_password": ucp.admin.password,
                "ucp_ca_bundle": ucp.ca_bundle,
            }
        )
        self.ucp_url = f"https://127.0.0.1:{ucp.port}"
        self.x509_strict = True
        self.client = DtrClient(
            dtr.url, self.secret, x509_strict=True, concurrency=2, page_size=100, stop_at=time.monotonic() + FAR_SECONDS
        )
        self.client.connect()

    def look(self, *, stop_at: float = float("inf")) -> RelatedSettings:
        seen = self._begin(stop_at)()
        self.check_harmless(seen)
        return seen

    def look_until(self, fake_clock: FakeClock, slow: str, event: threading.Event) -> RelatedSettings:
        """Look until the event has come for whom is `slow`, and the other one has ended; then the time is nearly over."""
        before = set(threading.enumerate())
        looked = self._begin(float("inf"))
        begun = {thread.name: thread for thread in set(threading.enumerate()) - before}
        event.wait()
        for server, name in THREAD_NAMES.items():
            if server != slow and name in begun:
                begun[name].join()
        fake_clock.sleep(FAR_SECONDS - LEFT_SECONDS)
        seen = looked()
        assert begun[THREAD_NAMES[slow]].is_alive()
        self.check_harmless(seen)
        return seen

    def _begin(self, stop_at: float) -> Callable[[], RelatedSettings]:
        return begin_to_look(
            self.client,
            self.secret,
            ucp_url=self.ucp_url,
            x509_strict=self.x509_strict,
            stop_at=stop_at,
            seconds=FAR_SECONDS,
        )

    def ucp_client(self) -> UcpClient:
        credentials = self.secret.fetch().ucp
        assert credentials is not None
        return UcpClient(self.ucp_url, credentials, x509_strict=True, stop_at=time.monotonic() + FAR_SECONDS)

    def check_harmless(self, seen: RelatedSettings) -> None:
        """Hold what is told against what must be true of it whatever happens."""
        text = " ".join([seen.warning, *(f"{fact.subject} {fact.answer}" for fact in seen.facts)])
        pair = f"{self.dtr.admin.name}:{self.dtr.admin.password}"
        basic = base64.b64encode(pair.encode()).decode()
        for secret in (self.dtr.admin.password, basic, self.ucp.admin.password, "must-never-leak", "eyJ"):
            assert secret not in text
        assert text.isprintable()
        assert all(0 < len(fact.answer) <= ANSWER_LENGTH for fact in seen.facts)
        for fact in seen.facts:
            if fact.answer.startswith("could not be read"):
                assert fact.status is NOT_REVIEWED
                assert len(fact.answer) > len("could not be read, because ")


@pytest.fixture
def ucp() -> Iterator[UcpServer]:
    with UcpServer() as server:
        yield server


@pytest.fixture
def place(dtr: DtrServer, ucp: UcpServer) -> Iterator[Place]:
    place = Place(dtr, ucp)
    dtr.forget_requests()
    yield place
    place.client.close()


def fact(seen: RelatedSettings, key: str) -> SupportingFact:
    (found,) = (fact for fact in seen.facts if key in (fact.rule_id, fact.subject))
    return found


def reported(seen: RelatedSettings, key: str) -> tuple[str, RuleStatus]:
    """Give the first word of an answer (yes, no, could …), and the status."""
    one = fact(seen, key)
    return one.answer.partition(" ")[0].rstrip(":,"), one.status


def assert_unread(seen: RelatedSettings, *keys: str, because: str = "") -> None:
    for key in keys:
        one = fact(seen, key)
        assert one.answer.startswith("could not be read, because "), one
        assert because in one.answer
        assert one.status is NOT_REVIEWED


def json_body(document: object, calls: Calls) -> Faults:
    return Faults(on_calls=(Body(json.dumps(document).encode(), calls),))


# All is well


def test_a_registry_and_a_ucp_as_the_rules_want_them(place: Place) -> None:
    seen = place.look()
    assert [reported(seen, key) for key in (ON_PUSH, ANALYTICS, SCANNING, TRUST)] == [("yes", PASSED)] * 4
    # Whether the LDAP server itself is set up as it must be is for a person to see.
    assert reported(seen, LDAP) == ("yes", NOT_REVIEWED)
    assert fact(seen, SIGNERS).answer.startswith("any account of UCP")
    assert fact(seen, EXEMPT).answer.startswith("none")
    assert seen.warning == ""
    assert [fact.rule_id for fact in seen.facts] == [ON_PUSH, ANALYTICS, SCANNING, LDAP, TRUST, "", ""]


def test_no_fact_speaks_for_the_rule_itself(place: Place) -> None:
    assert "V-235846" not in {fact.rule_id for fact in place.look().facts}


def test_without_an_address_of_ucp_the_registry_alone_is_asked(place: Place, ucp: UcpServer) -> None:
    place.ucp_url = ""
    readings = place.secret.readings
    seen = place.look()
    assert place.secret.readings == readings
    assert [fact.rule_id for fact in seen.facts] == [ON_PUSH, ANALYTICS, SCANNING]
    assert seen.warning == ""
    assert ucp.requests == ()


def test_each_question_is_asked_once_and_the_session_is_ended(place: Place, dtr: DtrServer, ucp: UcpServer) -> None:
    place.look()
    asked = sorted((call.method, call.path) for call in dtr.requests)
    assert asked == [("GET", SCAN_STATUS.path), ("GET", SETTINGS.path)]
    assert [(call.method, call.path) for call in ucp.requests] == [
        ("POST", LOGIN.path),
        ("GET", CONFIGURATION.path),
        ("GET", AUTHENTICATION.path),
        ("POST", LOGOUT.path),
    ]
    assert ucp.sessions == 0


# DTR


@pytest.mark.parametrize("key", [ON_PUSH, ANALYTICS])
def test_a_registrys_switch_that_is_on_is_a_finding_of_its_own_rule(key: str) -> None:
    profile = Profile(create_repository_on_push=key == ON_PUSH, report_analytics=key == ANALYTICS)
    with DtrServer(profile=profile) as dtr, UcpServer() as ucp:
        place = Place(dtr, ucp)
        seen = place.look()
        place.client.close()
    assert reported(seen, key) == ("no", OPEN)
    assert reported(seen, ANALYTICS if key == ON_PUSH else ON_PUSH) == ("yes", PASSED)


@pytest.mark.parametrize("value", [None, "false", 0, [], {}], ids=str)
@pytest.mark.parametrize(
    ("name", "key"),
    [("createRepositoryOnPush", ON_PUSH), ("reportAnalytics", ANALYTICS), ("scanningEnabled", SCANNING)],
)
def test_a_registrys_switch_that_is_no_switch_is_not_guessed(
    place: Place, dtr: DtrServer, name: str, key: str, value: object
) -> None:
    settings = {"createRepositoryOnPush": False, "reportAnalytics": False, "scanningEnabled": True}
    dtr.faults = json_body({**settings, name: value}, SETTINGS)
    seen = place.look()
    assert fact(seen, key).status is NOT_REVIEWED
    assert f"does not say {name}" in fact(seen, key).answer
    assert [reported(seen, other)[0] for other in (ON_PUSH, ANALYTICS, SCANNING) if other != key] == ["yes"] * 2


@pytest.mark.parametrize(
    ("enabled", "failed", "overrides_failed", "expected"),
    [
        (True, False, False, ("yes", PASSED)),
        (True, True, True, ("no", OPEN)),
        (True, True, False, ("in", NOT_REVIEWED)),
        (True, False, True, ("in", NOT_REVIEWED)),
        (False, False, False, ("no", OPEN)),
        (False, None, "x", ("no", OPEN)),
        (None, False, False, ("in", NOT_REVIEWED)),
        (None, True, True, ("no", OPEN)),
        (True, None, False, ("could", NOT_REVIEWED)),
        (True, False, None, ("could", NOT_REVIEWED)),
        (True, True, "true", ("could", NOT_REVIEWED)),
    ],
)
def test_scanning_is_judged_by_its_switch_and_both_databases(
    place: Place,
    dtr: DtrServer,
    *,
    enabled: object,
    failed: object,
    overrides_failed: object,
    expected: tuple[str, RuleStatus],
) -> None:
    settings = {"createRepositoryOnPush": False, "scanningEnabled": enabled}
    status = {"lastDBUpdateFailed": failed, "lastVulnOverridesDBUpdateFailed": overrides_failed}
    dtr.faults = Faults(
        on_calls=(
            Body(json.dumps(settings).encode(), SETTINGS),
            Body(json.dumps(status).encode(), SCAN_STATUS),
        )
    )
    assert reported(place.look(), SCANNING) == expected


UNUSABLE = [
    pytest.param(lambda calls: Status(403, calls), id="forbidden"),
    pytest.param(lambda calls: Status(401, calls), id="not logged in"),
    pytest.param(lambda calls: Status(404, calls, shape="empty"), id="missing"),
    pytest.param(lambda calls: Status(500, calls, shape="html"), id="a page of HTML with an error"),
    pytest.param(lambda calls: Body(LOGIN_PAGE, calls, "text/html"), id="a login page"),
    pytest.param(lambda calls: Body(b"", calls), id="nothing"),
    pytest.param(lambda calls: Body(b"[]", calls), id="a list"),
    pytest.param(lambda calls: Body(b'{"backend": "ldap", "backend": "managed"}', calls), id="a key with two values"),
    pytest.param(lambda calls: Body(b"\xff\xfe\x00", calls), id="bytes"),
    pytest.param(lambda calls: Body(deep_json(), calls), id="deep JSON"),
    pytest.param(lambda calls: Redirect("https://elsewhere.example/", calls), id="a redirect"),
    pytest.param(EndlessBody, id="a body without end"),
    pytest.param(lambda calls: GzipBomb(256 * 1024 * 1024, calls), id="a gzip bomb"),
]


@pytest.mark.parametrize("unusable", UNUSABLE)
def test_a_registrys_answer_that_cannot_be_used_is_reported_as_that(
    place: Place, dtr: DtrServer, unusable: Any
) -> None:
    dtr.faults = Faults(on_calls=(unusable(SCAN_STATUS),))
    seen = place.look()
    assert_unread(seen, SCANNING, because="/api/v0/imagescan/status")
    assert [reported(seen, key)[0] for key in (ON_PUSH, ANALYTICS, LDAP, TRUST)] == ["yes"] * 4
    dtr.faults = Faults(on_calls=(unusable(SETTINGS),))
    seen = place.look()
    assert_unread(seen, ON_PUSH, ANALYTICS, because="/api/v0/meta/settings")
    assert reported(seen, SCANNING) == ("in", NOT_REVIEWED)
    assert seen.warning == ""


def test_the_registrys_credentials_are_neither_renewed_nor_doubted_for_it(place: Place, dtr: DtrServer) -> None:
    dtr.revoke_tokens()
    assert_unread(place.look(), ON_PUSH, ANALYTICS, SCANNING, because="401")
    assert dtr.calls("/auth/token") == ()
    assert len(dtr.requests) == 2


def test_secrets_that_the_registry_echoes_are_not_passed_on(place: Place, dtr: DtrServer) -> None:
    dtr.faults = Faults(secrets_echoed=EVERY_CALL, on_calls=(Status(403),))
    assert_unread(place.look(), ON_PUSH, ANALYTICS, SCANNING, because="[removed]")


# UCP: what it says


@pytest.mark.parametrize(
    ("configured", "said", "expected"),
    [
        ("ldap", "ldap", ("yes", NOT_REVIEWED)),
        ("managed", "managed", ("no", OPEN)),
        ("ldap", "managed", ("unclear", NOT_REVIEWED)),
        ("managed", "ldap", ("unclear", NOT_REVIEWED)),
        # What the configuration leaves out counts as the vendor's reference has it.
        (None, "ldap", ("unclear", NOT_REVIEWED)),
        (None, "managed", ("no", OPEN)),
    ],
)
def test_ldap_is_reported_by_both_who_know(
    place: Place, ucp: UcpServer, configured: str | None, said: str, expected: tuple[str, RuleStatus]
) -> None:
    ucp.configuration = Configuration(backend=configured, service_backend=said)
    assert reported(place.look(), LDAP) == expected


@pytest.mark.parametrize("unusable", UNUSABLE)
@pytest.mark.parametrize(("backend", "expected"), [("ldap", ("yes", NOT_REVIEWED)), ("managed", ("no", OPEN))])
def test_ldap_is_reported_by_the_configuration_alone(
    place: Place, ucp: UcpServer, unusable: Any, backend: str, expected: tuple[str, RuleStatus]
) -> None:
    ucp.configuration = Configuration(backend=backend)
    ucp.faults = Faults(on_calls=(unusable(AUTHENTICATION),))
    seen = place.look()
    assert reported(seen, LDAP) == expected
    assert seen.warning == ""


@pytest.mark.parametrize("unusable", UNUSABLE)
def test_ldap_is_reported_by_the_service_alone_and_the_rest_could_not_be_read(
    place: Place, ucp: UcpServer, unusable: Any
) -> None:
    ucp.faults = Faults(on_calls=(unusable(CONFIGURATION),))
    seen = place.look()
    assert reported(seen, LDAP) == ("yes", NOT_REVIEWED)
    assert_unread(seen, TRUST, SIGNERS, EXEMPT, because="/api/ucp/config-toml")
    assert [reported(seen, key)[0] for key in (ON_PUSH, ANALYTICS, SCANNING)] == ["yes"] * 3
    assert seen.warning.startswith("3 of 4 facts about UCP are missing, on which the answer to V-235846 does not hang")
    assert fact(seen, TRUST).answer in seen.warning
    assert ucp.sessions == 0


@pytest.mark.parametrize(
    "document", [{}, {"backend": None}, {"backend": 7}, {"backend": ""}, ["ldap"], "ldap"], ids=str
)
def test_a_backend_without_a_name_is_no_answer(place: Place, ucp: UcpServer, document: object) -> None:
    toml = Body(b"[auth]\nbackend = 7\n[trust_configuration]\n", CONFIGURATION, "application/toml")
    ucp.faults = Faults(on_calls=(*json_body(document, AUTHENTICATION).on_calls, toml))
    assert_unread(place.look(), LDAP, because="backend")


@pytest.mark.parametrize(
    "toml", ['[auth]\ndefault_new_user_role = "viewonly"', "[auth.ldap]", "[cluster_config]", "[[registries]]"]
)
def test_settings_left_out_of_the_configuration_count_as_the_vendor_documents_them(
    place: Place, ucp: UcpServer, toml: str
) -> None:
    unanswered = Status(500, AUTHENTICATION)
    ucp.faults = Faults(on_calls=(unanswered, Body(toml.encode(), CONFIGURATION, "application/toml")))
    seen = place.look()
    assert (reported(seen, LDAP), reported(seen, TRUST)) == (("no", OPEN), ("no", OPEN))
    assert fact(seen, LDAP).answer == (
        "no: the backend is managed in /api/ucp/config-toml (left out there: the vendor's default)"
    )
    assert "left out, and false is the vendor's default" in fact(seen, TRUST).answer
    assert (reported(seen, SIGNERS)[0], reported(seen, EXEMPT)[0]) == ("any", "none")
    assert seen.warning == ""


@pytest.mark.parametrize("toml", ["", "x = 1", "[another]\nproduct = true", "auth = 1\ntrust_configuration = 1"])
def test_document_that_is_no_configuration_leaves_nothing_out(place: Place, ucp: UcpServer, toml: str) -> None:
    unanswered = Status(500, AUTHENTICATION)
    ucp.faults = Faults(on_calls=(unanswered, Body(toml.encode(), CONFIGURATION, "application/toml")))
    assert_unread(place.look(), LDAP, TRUST, SIGNERS, EXEMPT)


@pytest.mark.parametrize(
    ("configuration", "expected", "signers", "exempt"),
    [
        (Configuration(require_content_trust=False), ("no", OPEN), "any account", "none"),
        (Configuration(require_content_trust=None), ("no", OPEN), "any account", "none"),
        (
            Configuration(require_signature_from=("ops/release", "ops/security")),
            ("yes", PASSED),
            "ops/release, ops/security (",
            "none",
        ),
        (
            Configuration(allow_repos=("docker.io/mirantis/dtr-rethink",)),
            ("yes", NOT_REVIEWED),
            "any account",
            "docker.io/mirantis/dtr-rethink (",
        ),
        # Lists that are left out are empty, as the vendor's reference has it.
        (Configuration(require_signature_from=None, allow_repos=None), ("yes", PASSED), "any account", "none"),
        (
            Configuration(allow_repos=tuple(f"r{number}" for number in range(1_000))),
            ("yes", NOT_REVIEWED),
            "any account",
            "r0, r1, r2, r3, r4 and 995 more",
        ),
    ],
)
def test_content_trust_is_reported_with_who_must_sign_and_what_is_exempt(
    place: Place,
    ucp: UcpServer,
    *,
    configuration: Configuration,
    expected: tuple[str, RuleStatus],
    signers: str,
    exempt: str,
) -> None:
    ucp.configuration = configuration
    seen = place.look()
    assert reported(seen, TRUST) == expected
    assert fact(seen, SIGNERS).answer.startswith(signers)
    assert fact(seen, EXEMPT).answer.startswith(exempt)


@pytest.mark.parametrize(
    ("toml", "unread"),
    [
        ('require_content_trust = "true"', {TRUST}),
        ("require_content_trust = 1", {TRUST}),
        ('require_content_trust = []\nrequire_signature_from = "ops/release"', {TRUST, SIGNERS}),
        ("require_content_trust = true\nallow_repos = [1]", {EXEMPT}),
        ("require_content_trust = true\nallow_repos = {}", {EXEMPT}),
    ],
)
def test_trust_settings_of_another_kind_are_not_guessed(
    place: Place, ucp: UcpServer, toml: str, unread: set[str]
) -> None:
    ucp.faults = Faults(on_calls=(Body(f"[trust_configuration]\n{toml}\n".encode(), CONFIGURATION),))
    seen = place.look()
    for key in (TRUST, SIGNERS, EXEMPT):
        assert (reported(seen, key)[0] == "could") is (key in unread)
        # A pass would need a list of exemptions that can be read.
        assert fact(seen, key).status is NOT_REVIEWED


@pytest.mark.parametrize(
    "toml",
    [
        b"",
        b"trust_configuration = true",
        b"[trust_configuration",
        b'x = """\n[trust_configuration]\nrequire_content_trust = true\n"""',
        b"# [trust_configuration]\n# require_content_trust = true\n",
        b"x = " + b"[" * 100_000,
        b"x = " + b"9" * 100_000,
        b"[" + b".".join([b"a"] * (LINE_DOTS + 2)) + b"]\n[trust_configuration]\nrequire_content_trust = true",
        b'x = "\\ud800"\n[trust_configuration]\nrequire_content_trust = true',
    ],
    ids=lambda toml: toml[:24].decode(),
)
def test_only_the_section_itself_counts(place: Place, ucp: UcpServer, toml: bytes) -> None:
    ucp.faults = Faults(on_calls=(Body(toml, CONFIGURATION, "application/toml"),))
    assert_unread(place.look(), TRUST, SIGNERS, EXEMPT)


def test_a_configuration_that_would_eat_the_memory_is_refused_at_once(place: Place, ucp: UcpServer) -> None:
    # Half a megabyte of one dotted key would make Python's reader of TOML ask for a hundred gigabytes.
    bomb = b".".join([b"a"] * 250_000) + b" = 1\n"
    ucp.faults = Faults(on_calls=(Body(bomb, CONFIGURATION, "application/toml"),))
    assert_unread(place.look(), TRUST, because="of memory")


def test_a_configuration_of_any_size_is_not_read(place: Place, ucp: UcpServer) -> None:
    ucp.faults = Faults(on_calls=(Body(b"#" * (ANSWER_BYTES + 1), CONFIGURATION, "application/toml"),))
    assert_unread(place.look(), TRUST, because="larger than 0.5 MiB")
    ucp.faults = Faults(on_calls=(Body(b"#" * ANSWER_BYTES, CONFIGURATION, "application/toml"),))
    assert_unread(place.look(), TRUST, because="no section of a configuration")


def test_what_the_client_gives_of_names_is_bounded_and_printable(place: Place, ucp: UcpServer) -> None:
    ucp.configuration = Configuration(allow_repos=HOSTILE_NAMES)
    client = place.ucp_client()
    client.log_in()
    trust = client.read_configuration().trust
    assert trust is not None
    assert trust.allow_repos is not None
    assert len(trust.allow_repos) == len(HOSTILE_NAMES)
    assert all(name.isprintable() and len(name) <= NAME_LENGTH for name in trust.allow_repos)
    client.close()


def test_hostile_names_are_reported_harmlessly(place: Place, ucp: UcpServer) -> None:
    for name in HOSTILE_NAMES:
        ucp.configuration = Configuration(backend=name, require_signature_from=(name,), allow_repos=(name, name))
        seen = place.look()
        assert reported(seen, LDAP)[1] is OPEN
        assert reported(seen, TRUST) == ("yes", NOT_REVIEWED)


def test_secrets_that_ucp_echoes_are_not_passed_on(place: Place, ucp: UcpServer) -> None:
    tokens: list[str] = []
    ucp.on_request(lambda request: tokens.append(request.header("authorization")), CONFIGURATION.path)

    def echo(_: object) -> None:
        token = tokens[-1].removeprefix("Bearer ")
        ucp.configuration = Configuration(
            backend=ucp.admin.password, require_signature_from=(token,), allow_repos=(f"x{ucp.admin.password}x", token)
        )

    ucp.on_request(echo, CONFIGURATION.path)
    seen = place.look()
    assert tokens[0].startswith("Bearer eyJ")
    assert fact(seen, SIGNERS).answer.startswith("[removed] (")
    assert fact(seen, EXEMPT).answer.startswith("x[removed]x, [removed] (")
    for calls in (LOGIN, CONFIGURATION, AUTHENTICATION):
        ucp.faults = Faults(secrets_echoed=calls, on_calls=(Status(400, calls),))
        place.look()


# UCP: who may ask


@pytest.mark.parametrize("unusable", UNUSABLE)
def test_a_login_that_does_not_work_leaves_every_fact_of_ucp_unread(
    place: Place, ucp: UcpServer, unusable: Any
) -> None:
    ucp.faults = Faults(on_calls=(unusable(LOGIN),))
    seen = place.look()
    assert_unread(seen, LDAP, TRUST, SIGNERS, EXEMPT, because="POST /auth/login")
    assert [reported(seen, key)[0] for key in (ON_PUSH, ANALYTICS, SCANNING)] == ["yes"] * 3
    assert len(ucp.requests) == 1


@pytest.mark.parametrize(
    "document", [{}, {"auth_token": ""}, {"auth_token": 7}, {"auth_token": "a b"}, {"auth_token": "x\r\ny: z"}], ids=str
)
def test_a_token_that_cannot_be_sent_is_none(place: Place, ucp: UcpServer, document: object) -> None:
    ucp.faults = json_body(document, LOGIN)
    assert_unread(place.look(), LDAP, TRUST, because="no token")
    assert len(ucp.requests) == 1


def test_wrong_credentials_are_tried_once_and_named_by_their_keys(place: Place, ucp: UcpServer) -> None:
    place.secret.keys["ucp_password"] = "guess-hunter2"
    seen = place.look()
    assert_unread(seen, LDAP, TRUST, SIGNERS, EXEMPT, because='"ucp_password"')
    assert "hunter2" not in str(seen)
    assert [call.status for call in ucp.requests] == [401]


def test_the_registrys_account_is_never_tried_at_ucp(place: Place, ucp: UcpServer) -> None:
    ucp.accounts.add(Account(place.dtr.admin.name, place.dtr.admin.password, is_admin=True))
    for key in ("ucp_username", "ucp_password"):
        del place.secret.keys[key]
    assert_unread(place.look(), LDAP, TRUST, because="'ucp_username' is missing")
    assert ucp.requests == ()


def test_an_account_that_is_no_administrator_is_named_as_that(place: Place, ucp: UcpServer) -> None:
    ucp.accounts.add(Account("reader", "pass-of-reader"))
    place.secret.keys.update(ucp_username="reader", ucp_password="pass-of-reader")
    seen = place.look()
    assert_unread(seen, LDAP, TRUST, SIGNERS, EXEMPT, because="not an administrator of UCP")
    assert ucp.sessions == 0


@pytest.mark.parametrize(
    "call_fault", [Status(500, LOGOUT), Closed(LOGOUT), Redirect("https://elsewhere.example", LOGOUT)]
)
def test_a_session_that_cannot_be_ended_is_nobodys_trouble(place: Place, ucp: UcpServer, call_fault: CallFault) -> None:
    ucp.faults = Faults(on_calls=(call_fault,))
    assert place.look().warning == ""
    assert len(ucp.calls(LOGOUT.path)) == 1
    client = place.ucp_client()
    client.log_in()
    client.log_out()
    client.close()
    assert len(ucp.calls(LOGOUT.path)) == 2


def test_a_login_is_never_sent_twice(place: Place, ucp: UcpServer) -> None:
    for call_fault in (Closed(LOGIN), Status(503, LOGIN)):
        ucp.forget_requests()
        ucp.faults = Faults(on_calls=(call_fault,))
        assert_unread(place.look(), LDAP, TRUST)
        assert len(ucp.requests) == 1


def test_a_passing_fault_of_a_reading_is_survived(place: Place, ucp: UcpServer) -> None:
    ucp.faults = Faults(on_calls=(Status(503, CONFIGURATION.limited(times=1)),))
    assert reported(place.look(), TRUST) == ("yes", PASSED)


# UCP: the way there


def test_ucp_shares_the_registrys_authority_unless_it_has_its_own() -> None:
    authority = CertificateAuthority()
    with DtrServer(authority=authority) as dtr, UcpServer(authority=authority) as ucp:
        place = Place(dtr, ucp)
        del place.secret.keys["ucp_ca_bundle"]
        seen = place.look()
        assert reported(seen, TRUST) == ("yes", PASSED)
        # An empty one of its own means the public authorities, as everywhere in the secret.
        place.secret.keys["ucp_ca_bundle"] = ""
        assert_unread(place.look(), TRUST, because="certificate is refused")
        place.client.close()


@pytest.mark.parametrize("defect", [Defect.EXPIRED, Defect.NOT_YET_VALID, Defect.WRONG_HOST, Defect.OTHER_AUTHORITY])
@pytest.mark.parametrize("strict", [True, False])
def test_a_bad_certificate_of_ucp_is_refused_before_anything_is_sent(
    dtr: DtrServer, defect: Defect, strict: bool
) -> None:
    with UcpServer(defect=defect) as ucp:
        place = Place(dtr, ucp)
        place.x509_strict = strict
        assert_unread(place.look(), LDAP, TRUST, SIGNERS, EXEMPT, because="certificate is refused")
        assert ucp.requests == ()
        place.client.close()


def test_the_registrys_authority_does_not_do_for_ucps_own(place: Place, ucp: UcpServer) -> None:
    del place.secret.keys["ucp_ca_bundle"]
    assert_unread(place.look(), LDAP, TRUST, because='"ucp_ca_bundle"')
    assert ucp.requests == ()


def test_a_bundle_without_certificates_is_named(place: Place, ucp: UcpServer) -> None:
    place.secret.keys["ucp_ca_bundle"] = "hunter2"
    seen = place.look()
    assert_unread(
        seen, LDAP, TRUST, because='"ucp_ca_bundle" (without it, "ca_bundle") holds no certificate in PEM form'
    )
    assert "hunter2" not in str(seen)
    assert ucp.requests == ()


def test_no_one_at_the_address_of_ucp_is_reported(place: Place) -> None:
    place.ucp_url = "https://127.0.0.1:9"
    seen = place.look()
    assert_unread(seen, LDAP, TRUST, because="refused")
    assert [reported(seen, key)[0] for key in (ON_PUSH, ANALYTICS, SCANNING)] == ["yes"] * 3


def test_a_redirect_of_ucp_names_its_own_setting(place: Place, ucp: UcpServer) -> None:
    ucp.faults = Faults(on_calls=(Redirect("https://elsewhere.example", LOGIN),))
    assert_unread(place.look(), LDAP, because="UCP_URL")


# Time


def asked(server: Server, calls: Calls) -> threading.Event:
    """Give what is set once a server is asked this."""
    event = threading.Event()
    server.on_request(lambda _: event.set(), calls.path)
    return event


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(Slow(LOGIN, delay=FAR_SECONDS), id="no answer"),
        pytest.param(Slow(LOGIN, head_pause=PAUSE_SECONDS), id="a head in drips"),
        pytest.param(Slow(LOGIN, body_pause=PAUSE_SECONDS), id="a body in drips"),
    ],
)
def test_a_ucp_that_is_slow_costs_no_more_than_its_time(
    place: Place, ucp: UcpServer, fake_clock: FakeClock, slow: Slow
) -> None:
    ucp.faults = Faults(on_calls=(slow,))
    seen = place.look_until(fake_clock, "ucp", asked(ucp, LOGIN))
    assert_unread(seen, LDAP, TRUST, SIGNERS, EXEMPT)
    assert [reported(seen, key)[0] for key in (ON_PUSH, ANALYTICS, SCANNING)] == ["yes"] * 3
    assert seen.warning


def test_what_ucp_said_in_time_stays(place: Place, ucp: UcpServer, fake_clock: FakeClock) -> None:
    ucp.faults = Faults(on_calls=(Slow(AUTHENTICATION, head_pause=PAUSE_SECONDS),))
    seen = place.look_until(fake_clock, "ucp", asked(ucp, AUTHENTICATION))
    assert [reported(seen, key) for key in (LDAP, TRUST)] == [("yes", NOT_REVIEWED), ("yes", PASSED)]
    assert seen.warning == ""


def test_a_registry_that_is_slow_costs_no_more_than_its_time_and_ucp_nothing(
    place: Place, dtr: DtrServer, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = threading.Event()

    def ask(question: Callable[[], Any]) -> Callable[[float], Any]:
        answer = ask_aside(question)

        def wait(stop_at: float) -> Any:
            waits.set()
            return answer(stop_at)

        return wait

    monkeypatch.setattr("dtr_audit.registry.related_settings.ask_aside", ask)
    dtr.faults = Faults(on_calls=(Slow(SCAN_STATUS, head_pause=PAUSE_SECONDS),))
    seen = place.look_until(fake_clock, "registry", waits)
    assert_unread(seen, SCANNING, because="in time")
    assert [reported(seen, key)[0] for key in (ON_PUSH, ANALYTICS, LDAP, TRUST)] == ["yes"] * 4


def test_nothing_is_waited_for_once_the_time_of_the_run_is_over(place: Place, ucp: UcpServer) -> None:
    seen = place.look(stop_at=time.monotonic())
    assert_unread(seen, LDAP, TRUST, because="in time")
    assert ucp.requests == ()


# Our own faults


def test_a_fault_of_ours_is_reported_and_logged_without_what_was_read(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(_: object) -> None:
        raise KeyError("must-never-leak")

    monkeypatch.setattr("dtr_audit.registry.related_settings.judge_trust", stumble)
    seen = place.look()
    assert_unread(seen, LDAP, TRUST, SIGNERS, EXEMPT, because="an unforeseen KeyError")
    assert [reported(seen, key)[0] for key in (ON_PUSH, ANALYTICS, SCANNING)] == ["yes"] * 3
    (record,) = [one for one in caplog.records if "surroundings" in one.getMessage()]
    reported_in_the_log = str(record.__dict__) + caplog.text
    assert "KeyError" in reported_in_the_log
    assert "in stumble" in reported_in_the_log
    assert "must-never-leak" not in reported_in_the_log.replace('raise KeyError("must-never-leak")', "")


# In the run record


@pytest.fixture
def beside(audited: Audited, dtr: DtrServer, ucp: UcpServer) -> Audited:
    """An audit that asks the UCP too."""
    audited.put_secret(
        username=dtr.admin.name,
        password=dtr.admin.password,
        ucp_username=ucp.admin.name,
        ucp_password=ucp.admin.password,
        ucp_ca_bundle=ucp.ca_bundle,
    )
    audited.environment["UCP_URL"] = ucp.url
    return audited


def recorded(audited: Audited, run: dict[str, Any]) -> dict[str, Any]:
    """Give the facts by rule or subject; fails if record, table and function do not say the same."""
    (key,) = [key for key in audited.keys("runs") if run["run_id"] in key]
    (item,) = [one for one in audited.items("RunsTableName") if (one["pk"], one["sk"]) == (audited.name, run["run_id"])]
    assert run["facts"] == json.loads(audited.read(key))["facts"] == item["facts"]
    assert all(set(fact) == {"subject", "answer", "rule_id", "status"} for fact in run["facts"])
    return {fact["rule_id"] or fact["subject"]: fact for fact in run["facts"]}


def test_what_was_seen_stands_in_the_record_and_in_every_file_of_evidence(beside: Audited, ucp: UcpServer) -> None:
    ucp.configuration = Configuration(require_content_trust=False, require_signature_from=("ops/release",))
    run = beside.audit(NEIGHBOUR_RULES="true")
    facts = recorded(beside, run)
    assert list(facts) == [ON_PUSH, ANALYTICS, SCANNING, LDAP, TRUST, SIGNERS, EXEMPT]
    assert {key: fact["status"] for key, fact in facts.items() if fact["rule_id"]} == {
        ON_PUSH: "NOT_A_FINDING",
        ANALYTICS: "NOT_A_FINDING",
        SCANNING: "NOT_A_FINDING",
        LDAP: "NOT_REVIEWED",
        TRUST: "OPEN",
    }
    assert facts[TRUST]["answer"].startswith("no: require_content_trust is false")
    assert facts[SIGNERS] == {
        "subject": SIGNERS,
        "answer": "ops/release (require_signature_from)",
        "rule_id": None,
        "status": None,
    }
    report = html.unescape(beside.read(run["evidence"]["report"]).decode())
    checklist = beside.read(run["evidence"]["cklb"])
    (rule, *others) = json.loads(checklist)["stigs"][0]["rules"]
    for fact in facts.values():
        assert fact["answer"] in rule["comments"]
        assert fact["subject"] in report
    assert {one["group_id"]: one["status"] for one in others} == {
        ON_PUSH: "not_a_finding",
        ANALYTICS: "not_a_finding",
        SCANNING: "not_a_finding",
        TRUST: "open",
    }


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(
    "configuration",
    [Configuration(), Configuration(backend="managed", require_content_trust=False), None],
    ids=["as it should be", "as it should not be", "not to be read"],
)
def test_nothing_that_is_seen_changes_the_answer_to_the_rule(
    beside: Audited, registry: InMemoryRegistry, ucp: UcpServer, configuration: Configuration | None, signed: bool
) -> None:
    registry.push("team", "app", "1.0")
    registry.push("team", "web", "1.0")
    registry.sign("team", "web", "1.0")
    if signed:
        registry.sign("team", "app", "1.0")
    if configuration:
        ucp.configuration = configuration
    else:
        ucp.faults = Faults(on_calls=(Status(500, LOGIN),))
    run = beside.audit(NEIGHBOUR_RULES="true")
    assert run["status"] == ("NOT_A_FINDING" if signed else "OPEN")
    assert (run["complete"], run["incomplete_because"]) == (True, [])
    assert bool(run["warnings"]) is (configuration is None)
    assert (recorded(beside, run)[TRUST]["status"] == "NOT_REVIEWED") is (configuration is None)


def test_what_the_record_holds_of_it_is_bounded_any_is_said(beside: Audited, ucp: UcpServer) -> None:
    names = tuple(name * 50 for name in HOSTILE_NAMES)
    ucp.configuration = Configuration(backend=names[0], require_signature_from=names, allow_repos=names)
    run = beside.audit()
    facts = recorded(beside, run)
    assert len(facts) == len(run["facts"]) == 7
    assert all(len(fact["answer"]) <= ANSWER_LENGTH for fact in facts.values())
    assert all(fact["answer"].isprintable() for fact in facts.values())
    assert len(json.dumps(run["facts"])) < 8 * 1024  # of the 400 KB that an item of the table may have


def test_a_partial_run_looks_at_its_namespaces_alone(
    beside: Audited, registry: InMemoryRegistry, ucp: UcpServer
) -> None:
    registry.push("team", "app", "1.0")
    run = beside.audit({"scheduled_time": "2026-11-01T03:00:00Z", "namespaces": ["team"]})
    assert recorded(beside, run) == {}
    assert ucp.requests == ()


def test_without_a_registry_there_is_nothing_to_record(beside: Audited, dtr: DtrServer) -> None:
    beside.put_secret(username=dtr.admin.name, password="another")
    run = beside.audit()
    assert run["complete"] is False
    assert recorded(beside, run) == {}
