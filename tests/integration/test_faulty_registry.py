"""Whatever a registry does wrong: what could not be read is never clean, what can be survived is."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dtr_audit.registry import dtr as dtr_module
from dtr_audit.registry import session
from dtr_audit_simulator.aws.stack import Stack
from dtr_audit_simulator.dtr.accounts import Account
from dtr_audit_simulator.dtr.fault_kinds import (
    ALL_TAGS,
    EVERY_CALL,
    Body,
    Calls,
    Closed,
    Cookies,
    Endless,
    EndlessBody,
    GzipBomb,
    Gzipped,
    Miscount,
    Realm,
    Redirect,
    Rewrite,
    Status,
    deep_json,
    long_string,
    readings_of,
    tags_of,
)
from dtr_audit_simulator.dtr.faults import (
    API,
    CHALLENGE,
    INVALID_JSON,
    LOGIN_PAGE,
    LONE_SURROGATES,
    MISSING,
    NOT_A_NUMBER,
    REPOSITORIES,
    SETTINGS,
    TOKEN,
    WRONG_TYPE,
    Faults,
)
from dtr_audit_simulator.dtr.registry import InMemoryRegistry
from dtr_audit_simulator.dtr.server import DtrServer, HarborServer
from dtr_audit_simulator.http.authority import CertificateAuthority, Defect
from dtr_audit_simulator.http.transport import Request
from tests.harness.audit_harness import Audited

REPOSITORY_COUNT = 25
BROKEN = "team/s07"
LONG_AGO = "Wed, 21 Oct 2015 07:28:00 GMT"
RENEWED_AT_THE_SECOND_TRY = Faults(
    tokens_revoked=API.limited(after=9, times=1), on_calls=(Status(500, TOKEN.limited(after=1, times=1)),)
)
WITHOUT_NAMES = Rewrite({"namespace": None, "name": None}, tag=None)
WITHOUT_DETAILS = Rewrite(dict.fromkeys(("author", "updatedAt", "createdAt", "manifest", "cosignSigned"), MISSING))
WITH_ODD_DETAILS = Rewrite({name: [1] for name in ("author", "updatedAt", "manifest", "cosignSigned")})


@pytest.fixture
def registry() -> InMemoryRegistry:
    """Every tag signed, on more than one page of repositories, and of tags in one of them."""
    registry = InMemoryRegistry()
    for number in range(REPOSITORY_COUNT):
        for tag in range(25 if number == 7 else 1):
            registry.push("team", f"s{number:02d}", f"1.{tag}")
            registry.sign("team", f"s{number:02d}", f"1.{tag}")
    return registry


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait as often as in production, but not as long; caps as in production, but reached sooner."""
    monkeypatch.setattr(session, "ROTATION_SECONDS", 0.01)
    monkeypatch.setattr(dtr_module, "PAGES", 40)


@dataclass(frozen=True)
class Case:
    name: str
    faults: Faults
    said: str = ""  # what the record must name, where the fault cannot be survived
    status: str = "NOT_REVIEWED"


SURVIVED = [
    Case("old servers want the token's audience to be the host", Faults(tokens_without_service_only=EVERY_CALL)),
    Case("only Basic is accepted", Faults(basic_only=EVERY_CALL)),
    Case("the token server knows no service", Faults(on_calls=(Status(400, TOKEN, shape="details"),))),
    Case("the token server is missing", Faults(on_calls=(Status(404, TOKEN, shape="html"),))),
    Case("the token server fails", Faults(on_calls=(Status(500, TOKEN, shape="details"),))),
    Case("the token server answers 401 although the password is right", Faults(on_calls=(Status(401, TOKEN),))),
    Case("the token's answer is a page", Faults(on_calls=(Body(LOGIN_PAGE, TOKEN),))),
    Case("the token's answer is no object", Faults(on_calls=(Body(b"[]", TOKEN),))),
    Case("the token could not be sent as a header", Faults(on_calls=(Body(b'{"token": "a\\r\\nb"}', TOKEN),))),
    Case("the token stands in `token` alone", Faults(token_in_one_field="token")),
    Case("the token stands in `access_token` alone", Faults(token_in_one_field="access_token")),
    Case("the token's life is not given", Faults(token_without_expiry=EVERY_CALL)),
    Case("the token server and /v2/ are gone with the licence", Faults(licence_expired=EVERY_CALL)),
    Case("there is no challenge", Faults(on_calls=(Body(b"{}", CHALLENGE),))),
    Case("the challenge names no host", Faults(realm=Realm("/auth/token", CHALLENGE))),
    Case("the challenge's realm is a word", Faults(realm=Realm("Docker Trusted Registry", CHALLENGE))),
    Case("the challenge names the own host without TLS", Faults(realm=Realm("http://{host}/auth/token", CHALLENGE))),
    Case("all tokens are forgotten in mid-run", Faults(tokens_revoked=API.limited(after=9, times=1))),
    Case("busy, and says when to come back", Faults(on_calls=(Status(429, ALL_TAGS.limited(times=4), retry_after="0"),))),
    Case("bad gateways pass", Faults(on_calls=(Status(502, EVERY_CALL.limited(times=3), shape="html"),))),
    Case("unavailable for a moment", Faults(on_calls=(Status(503, REPOSITORIES.limited(times=4)),))),
    Case("gateway timeouts pass", Faults(on_calls=(Status(504, tags_of(BROKEN, times=4)),))),
    Case("a Retry-After that is nonsense", Faults(on_calls=(Status(503, ALL_TAGS.limited(times=2), retry_after="soon"),))),
    Case("a Retry-After that is past", Faults(on_calls=(Status(503, ALL_TAGS.limited(times=2), retry_after=LONG_AGO),))),
    Case("connections closed before the answer", Faults(on_calls=(Closed(EVERY_CALL.limited(times=3)),))),
    Case("connections closed within the answer", Faults(on_calls=(Closed(ALL_TAGS.limited(times=3), after_bytes=20),))),
    Case("answers that are compressed", Faults(on_calls=(Gzipped(),))),
    Case("cookies", Faults(on_calls=(Cookies(),))),
    Case("an empty cursor on the last page", Faults(empty_last_cursor=EVERY_CALL)),
    Case("strange cursors", Faults(strange_cursors=EVERY_CALL)),
    Case("the page size is ignored", Faults(page_size_ignored=EVERY_CALL)),
    Case("no pages at all", Faults(paging_ignored=EVERY_CALL)),
    Case("short pages", Faults(short_pages=EVERY_CALL)),
    Case("rows repeated across pages", Faults(rows_repeated=EVERY_CALL)),
    Case("repositories shifted while they are listed", Faults(rows_shifted=readings_of(REPOSITORIES, times=1))),
    Case("tags shifted while they are listed", Faults(rows_shifted=readings_of(tags_of(BROKEN), times=1))),
    Case("rows shifted at every reading of more than one page", Faults(rows_shifted=tags_of(BROKEN))),
    Case("the next page's header of tags taken away", Faults(next_page_stripped=ALL_TAGS)),
    Case("a count that is wrong once", Faults(miscounts=(Miscount(1, readings_of(REPOSITORIES, times=1)),))),
    Case("tags in the form of DTR 2.1", Faults(object_tags=EVERY_CALL)),
    Case("tags by update time", Faults(tags_by_update_time=EVERY_CALL)),
    Case("ghosts", Faults(unnamed_entries=EVERY_CALL)),
    Case("cursors that count rows", Faults(positional_cursors=EVERY_CALL)),
    Case("a 401 for one path at one moment", Faults(on_calls=(Status(401, tags_of(BROKEN, times=1)),))),
    Case("the token server fails for a moment in mid-run", RENEWED_AT_THE_SECOND_TRY),
    Case("settings fail for a moment", Faults(on_calls=(Status(500, SETTINGS.limited(after=1, times=1)),))),
    Case("no dtrHost", Faults(settings_without_host=EVERY_CALL)),
    Case("other fields are missing", Faults(rewrites=(WITHOUT_DETAILS,))),
    Case("other fields are of another type", Faults(rewrites=(WITH_ODD_DETAILS,))),
]  # fmt: skip

FATAL = [
    Case("a token server that is down and no Basic either", Faults(on_calls=(Status(503, TOKEN), Status(503, API))), "503"),
    Case("admin rights missing", Faults(admin_rights_lost=EVERY_CALL), "administrator"),
    Case("admin rights lost in mid-run", Faults(admin_rights_lost=Calls(after=12)), "administrator"),
    Case("settings are a login page", Faults(on_calls=(Body(LOGIN_PAGE, SETTINGS, content_type="text/html"),)), "login page"),
    Case("settings are another object", Faults(on_calls=(Body(b'{"hello": 1}', SETTINGS),)), "login page"),
    Case("a redirect to another host", Faults(on_calls=(Redirect("https://elsewhere.example/", SETTINGS),)), "redirect"),
    Case(
        "a redirect to plain HTTP",
        Faults(on_calls=(Redirect("http://localhost/api/v0/repositories", REPOSITORIES),)),
        "redirect",
    ),
    Case("a redirect within", Faults(on_calls=(Redirect("/api/v0/repositories?", tags_of(BROKEN)),)), "redirect"),
    Case("a 500 for one repository", Faults(on_calls=(Status(500, tags_of(BROKEN)),)), BROKEN),
    Case("a bare error for one repository", Faults(on_calls=(Status(403, tags_of(BROKEN), shape="bare"),)), BROKEN),
    Case("a page of HTML for one repository", Faults(on_calls=(Status(500, tags_of(BROKEN), shape="html"),)), "HTML"),
    Case("busy for good", Faults(on_calls=(Status(503, tags_of(BROKEN)),)), "503"),
    Case("asked to come back in a day", Faults(on_calls=(Status(429, tags_of(BROKEN), retry_after="86400"),)), "86400"),
    Case("connections always closed", Faults(on_calls=(Closed(tags_of(BROKEN)),)), BROKEN),
    Case("answers always cut off", Faults(on_calls=(Closed(tags_of(BROKEN), after_bytes=30),)), BROKEN),
    Case("invalid JSON", Faults(on_calls=(Body(INVALID_JSON, tags_of(BROKEN)),)), "not JSON"),
    Case("nested JSON", Faults(on_calls=(Body(deep_json(), tags_of(BROKEN)),)), BROKEN),
    Case("JSON of another type", Faults(on_calls=(Body(WRONG_TYPE, tags_of(BROKEN)),)), "not a list"),
    Case("not-a-number flags", Faults(on_calls=(Body(NOT_A_NUMBER, tags_of(BROKEN)),)), BROKEN),
    Case("lone surrogates", Faults(on_calls=(Body(LONE_SURROGATES, tags_of(BROKEN)),)), BROKEN),
    Case("a name of ten million characters", Faults(on_calls=(Body(long_string(), tags_of(BROKEN)),)), BROKEN),
    Case("a body without end", Faults(on_calls=(EndlessBody(tags_of(BROKEN)),)), "larger than"),
    Case("a gzip bomb", Faults(on_calls=(GzipBomb(2**30, tags_of(BROKEN)),)), "larger than"),
    Case("a gzip bomb within another", Faults(on_calls=(GzipBomb(2**30, tags_of(BROKEN), layers=2),)), "encoding"),
    Case("null lists", Faults(null_lists=ALL_TAGS), "counts"),
    Case("a null list of repositories", Faults(null_lists=REPOSITORIES), "counts 25"),
    Case("no list of repositories", Faults(on_calls=(Body(b"{}", REPOSITORIES),)), "no list"),
    Case("no count of repositories", Faults(count_missing=REPOSITORIES), "X-Resource-Count"),
    Case("no count of tags", Faults(count_missing=tags_of(BROKEN)), "X-Resource-Count"),
    Case("a count too large", Faults(miscounts=(Miscount(1, REPOSITORIES),)), "counts 26"),
    Case("a count too small", Faults(miscounts=(Miscount(-1, tags_of(BROKEN)),)), "counts 24"),
    Case("the next page's header taken away", Faults(next_page_stripped=REPOSITORIES), "counts 25"),
    Case("a repeated cursor of repositories", Faults(repeated_cursor=REPOSITORIES), "already read"),
    Case("a repeated cursor of tags", Faults(repeated_cursor=tags_of(BROKEN)), BROKEN),
    Case("a loop of pages", Faults(cursor_loop=EVERY_CALL), "already read"),
    Case("pages without end", Faults(endless=Endless(tags_of(BROKEN))), BROKEN, "OPEN"),
    Case("empty pages without end", Faults(endless=Endless(REPOSITORIES, empty=True)), "pages"),
    Case("repositories without the keys of a name", Faults(rewrites=(Rewrite({"name": MISSING}, tag=None),)), "no name"),
    Case("repositories whose names are null", Faults(rewrites=(WITHOUT_NAMES,)), "no name"),
    Case("repositories whose names are all empty", Faults(rewrites=(Rewrite({"namespace": "", "name": ""}, tag=None),)), "no name"),
    Case("a tag that ends in a line break", Faults(rewrites=(Rewrite({"name": "latest\n"}, path=BROKEN),)), "no registry allows"),
    Case("settings fail in mid-run", Faults(on_calls=(Status(500, SETTINGS.limited(after=1)),)), "administrator"),
    Case("settings become a login page", Faults(on_calls=(Body(LOGIN_PAGE, SETTINGS.limited(after=1)),)), "administrator"),
    Case("hostile names", Faults(hostile_names=EVERY_CALL), "cannot be asked for", "OPEN"),
    Case("a repository that answers 404 though listed", Faults(missing_though_listed=tags_of(BROKEN)), "yet it is listed"),
    Case("Notary down", Faults(notary_down=EVERY_CALL), "Notary"),
    Case("inNotary missing", Faults(rewrites=(Rewrite({"inNotary": MISSING}, path=BROKEN),)), "inNotary"),
    Case("inNotary null", Faults(rewrites=(Rewrite({"inNotary": None}, path=BROKEN),)), "inNotary"),
    Case("inNotary a text", Faults(rewrites=(Rewrite({"inNotary": "true"}, path=BROKEN),)), "inNotary"),
    Case("inNotary a number", Faults(rewrites=(Rewrite({"inNotary": 1}, path=BROKEN),)), "inNotary"),
    Case("hashMismatch missing", Faults(rewrites=(Rewrite({"hashMismatch": MISSING}, path=BROKEN),)), "hashMismatch"),
    Case("hashMismatch a number", Faults(rewrites=(Rewrite({"hashMismatch": 0}, path=BROKEN),)), "hashMismatch"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("realm", "named"),
    [
        ("https://dtr.example.mil/auth/token", "'dtr.example.mil'"),
        ("https://localhost/auth/token", "'localhost'"),
        ("//dtr.example.mil:4443", "'dtr.example.mil:4443'"),
        ("https://{host}@elsewhere.example/", "@elsewhere.example'"),
        ("https://{host}.elsewhere.example/", ".elsewhere.example'"),
        ("https://[elsewhere/auth", "'https://[elsewhere/auth'"),
        ("https://else\x1bwhere.example/" + "x" * 5_000, "'else\ufffdwhere.example'"),
        ("https://" + "x" * 3_000, "xxx…'"),
    ],
)
def test_credentials_are_not_sent_to_a_registry_whose_tokens_come_from_another_host(
    audited: Audited, dtr: DtrServer, realm: str, named: str
) -> None:
    # As a content cache answers that is given as the registry's address.
    dtr.faults = Faults(realm=Realm(realm, CHALLENGE))
    run = audited.audit()
    assert (run["status"], run["complete"], run["repositories"]["listed"]) == ("NOT_REVIEWED", False, 0)
    (reason,) = run["incomplete_because"]
    assert named in reason
    assert "the credentials were not sent" in reason
    assert "set DTR_URL to it" in reason
    assert len(reason) < 700
    assert {record.authentication for record in dtr.requests} == {"none"}


@pytest.mark.parametrize("case", SURVIVED, ids=lambda case: case.name)
def test_what_can_be_survived_is_survived(audited: Audited, dtr: DtrServer, case: Case) -> None:
    dtr.faults = case.faults
    run = audited.audit(PAGE_SIZE="10")
    assert run["incomplete_because"] == []
    assert run["status"] == "NOT_A_FINDING"
    assert run["tags"]["signed"] == REPOSITORY_COUNT - 1 + 25
    assert len(audited.verdicts(run["run_id"])) == run["tags"]["signed"]


@pytest.mark.parametrize("case", FATAL, ids=lambda case: case.name)
def test_what_cannot_be_read_is_never_clean_and_says_what_and_where(
    audited: Audited, dtr: DtrServer, case: Case
) -> None:
    dtr.faults = case.faults
    run = audited.audit(PAGE_SIZE="10")
    assert run["complete"] is False
    assert run["status"] == case.status
    assert case.said in " ".join(run["incomplete_because"])
    (message,) = audited.messages()
    assert message.attributes["complete"] == "false"
    assert case.said in " ".join(message.body["incomplete_because"])
    assert not [call for call in dtr.requests if call.host != dtr.host]


@pytest.mark.parametrize("faults", [Faults(), Faults(anonymous_as_success=EVERY_CALL)])
def test_a_wrong_password_is_said_and_never_tried_often(audited: Audited, dtr: DtrServer, faults: Faults) -> None:
    dtr.faults = faults
    audited.put_secret(username=dtr.admin.name, password="wrong")
    run = audited.audit()
    assert run["status"] == "NOT_REVIEWED"
    assert "does not accept the credentials" in run["incomplete_because"][0]
    assert "secret" in run["incomplete_because"][0]
    tries = [call for call in dtr.requests if call.authentication == "basic"]
    assert len(tries) <= 3, "an account's lock is a few tries away"
    assert dtr.calls("/api/v0/repositories") == ()


def test_an_account_that_is_no_administrator_is_refused_before_anything_is_read(
    audited: Audited, dtr: DtrServer
) -> None:
    dtr.accounts.add(Account("bob", "hunter2hunter2"))
    audited.put_secret(username="bob", password="hunter2hunter2")
    run = audited.audit()
    assert run["status"] == "NOT_REVIEWED"
    assert "not an administrator" in run["incomplete_because"][0]
    assert dtr.calls("/api/v0/repositories") == ()


def test_an_access_token_serves_in_the_passwords_place(audited: Audited, dtr: DtrServer) -> None:
    dtr.accounts.add(Account("auditor", "unused", is_admin=True, access_tokens=frozenset({"a-token-of-access"})))
    audited.put_secret(username="auditor", password="a-token-of-access")
    assert audited.audit()["status"] == "NOT_A_FINDING"


@pytest.mark.parametrize("faults", [Faults(), Faults(basic_only=EVERY_CALL)])
def test_a_rotation_in_mid_run_is_survived(audited: Audited, dtr: DtrServer, faults: Faults) -> None:
    """The secret changes first: how long it may lag behind is tried on a clock that is held."""
    dtr.faults = faults
    rotated = False

    def rotate(_: object) -> None:
        nonlocal rotated
        if not rotated:
            rotated = True
            audited.put_secret(username=dtr.admin.name, password="the new one")
            dtr.accounts.rotate_password(dtr.admin.name, "the new one")
            dtr.revoke_tokens()

    dtr.on_request(rotate, f"/api/v0/repositories/{BROKEN}/tags")
    run = audited.audit(CONCURRENCY="4")
    assert rotated
    assert run["incomplete_because"] == []
    assert run["status"] == "NOT_A_FINDING"


def test_credentials_that_die_in_mid_run_end_it_without_hammering_the_account(audited: Audited, dtr: DtrServer) -> None:
    def lock_out(_: object) -> None:
        dtr.accounts.set_active("admin", is_active=False)

    dtr.on_request(lock_out, "/api/v0/repositories/team/s03/tags")
    run = audited.audit(CONCURRENCY="4")
    assert run["status"] == "NOT_REVIEWED"
    refused = [call for call in dtr.requests if call.status == 401 and call.authentication == "basic"]
    assert len(refused) <= 6


@pytest.mark.parametrize("life", [None, 0.3])
def test_tokens_that_die_early_on_a_server_that_then_answers_as_to_no_one_verify_nothing(
    audited: Audited, dtr: DtrServer, life: float | None
) -> None:
    """The lists look read, and are not: 200 and nothing, as to an anonymous caller."""
    anonymous = Faults(anonymous_as_success=EVERY_CALL, token_life=life)
    dtr.faults = anonymous
    dead = False

    def die(_: object) -> None:
        nonlocal dead
        if not dead:
            dead = True
            dtr.revoke_tokens()

    dtr.on_request(die, "/api/v0/repositories")
    run = audited.audit()
    assert run["complete"] is False
    assert run["status"] == "NOT_REVIEWED"
    assert "anonymous" in " ".join(run["incomplete_because"])


def test_a_reading_as_no_one_resolves_nothing(audited: Audited, dtr: DtrServer, registry: InMemoryRegistry) -> None:
    registry.push("team", "s03", "unsigned")
    assert audited.audit()["findings"]["open"] == 1
    audited.messages()
    dtr.faults = Faults(anonymous_as_success=EVERY_CALL)
    dtr.on_request(lambda _: dtr.revoke_tokens(), "/api/v0/repositories")
    run = audited.audit()
    assert run["complete"] is False
    assert run["findings"]["open"] == 1
    assert audited.findings()["team/s03:unsigned"]["state"] == "OPEN"
    (message,) = audited.messages()
    assert message.body["counts"]["resolved"] == 0


def test_short_lived_tokens_are_renewed_once_for_all_threads(audited: Audited, dtr: DtrServer) -> None:
    dtr.faults = Faults(tokens_revoked=Calls("/api/v0/repositories/*", after=5, times=1))
    assert audited.audit(CONCURRENCY="16")["status"] == "NOT_A_FINDING"
    assert len(dtr.calls("/auth/token")) == 2


def test_lists_read_as_no_one_before_a_401_verify_nothing(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    """A server may answer lists as to nobody and yet refuse a private repository: the renewal must not hide the former."""
    registry.create_repository("aaa", "public", visibility="public")
    dtr.faults = Faults(anonymous_as_success=EVERY_CALL, on_calls=(Status(401, ALL_TAGS.limited(times=1)),))
    pages = 0

    def die_on_the_second_page(_: object) -> None:
        nonlocal pages
        pages += 1
        if pages == 2:
            dtr.revoke_tokens()

    dtr.on_request(die_on_the_second_page, "/api/v0/repositories")
    run = audited.audit(PAGE_SIZE="10", CONCURRENCY="1")
    assert run["complete"] is False
    assert "anonymous" in " ".join(run["incomplete_because"])


def test_a_tag_deleted_while_rows_are_counted_hides_no_other(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    """Something goes, so a row is skipped, and the count agrees with what was read: only its change tells. On one page none is."""
    registry.push("team", "s07", "1.9-unsigned")
    dtr.faults = Faults(positional_cursors=EVERY_CALL)
    left = [f"1.{tag}" for tag in range(25)]
    calls = 0

    def delete_one(request: Request) -> None:
        nonlocal calls
        calls += 1
        if request.parameter("pageStart"):
            registry.delete_tag("team", "s07", left.pop(0))

    dtr.on_request(delete_one, f"/api/v0/repositories/{BROKEN}/tags")
    run = audited.audit(PAGE_SIZE="10")
    assert run["complete"] is True
    assert audited.verdicts(run["run_id"])[f"{BROKEN}:1.9-unsigned"] == "UNSIGNED"
    assert calls == 7


def test_a_repository_behind_a_missing_name_keeps_its_findings(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    registry.push("team", "s03", "unsigned")
    audited.audit()
    dtr.faults = Faults(rewrites=(Rewrite({"name": ""}, tag=None, path="team/s03"),))
    run = audited.audit()
    assert run["findings"]["open"] == 1
    assert audited.findings()["team/s03:unsigned"]["state"] == "OPEN"
    assert any("without a name" in warning for warning in run["warnings"])
    assert (run["status"], run["complete"]) == ("OPEN", False)
    assert "team/s03" in " ".join(run["incomplete_because"])


def test_a_repository_that_turns_nameless_in_mid_run_is_not_removed(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    registry.push("team", "s03", "unsigned")
    audited.audit()

    def turn_nameless(_: object) -> None:
        on_calls = (Status(404, tags_of("team/s03"), code="NO_SUCH_REPOSITORY"),)
        dtr.faults = Faults(on_calls=on_calls, rewrites=(Rewrite({"name": ""}, tag=None, path="team/s03"),))

    end = dtr.on_request(turn_nameless, "/api/v0/repositories/team/s03/tags")
    run = audited.audit()
    end()
    assert (run["status"], run["complete"]) == ("OPEN", False)
    assert run["repositories"]["removed"] == 0
    assert audited.findings()["team/s03:unsigned"]["state"] == "OPEN"


def test_many_threads_refused_at_once_try_the_login_once(audited: Audited, dtr: DtrServer) -> None:
    def change_password(_: object) -> None:
        dtr.accounts.rotate_password(dtr.admin.name)
        dtr.revoke_tokens()

    end = dtr.on_request(change_password, "/api/v0/repositories/team/s00/tags")
    run = audited.audit(CONCURRENCY="16")
    end()
    assert run["status"] == "NOT_REVIEWED"
    refused = [call for call in dtr.calls("/auth/token") if call.status == 401]
    assert len(refused) <= 2


def test_a_bundle_with_comments_in_any_script_is_taken(audited: Audited, dtr: DtrServer) -> None:
    bundle = f"# Prüfstelle № 1\n{dtr.ca_bundle}\n# 終わり"
    audited.put_secret(username=dtr.admin.name, password=dtr.admin.password, ca_bundle=bundle)
    assert audited.audit()["status"] == "NOT_A_FINDING"


def test_a_repository_deleted_in_mid_run_is_removed_and_not_missed(audited: Audited, dtr: DtrServer) -> None:
    dtr.faults = Faults(deleted_when_read=tags_of(BROKEN, times=1))
    run = audited.audit()
    assert run["status"] == "NOT_A_FINDING"
    assert run["repositories"] == {"listed": 25, "audited": 24, "unreadable": 0, "removed": 1}


def test_the_findings_of_a_repository_deleted_in_mid_run_are_resolved(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    registry.push("team", "s07", "unsigned")
    audited.audit()
    dtr.faults = Faults(deleted_when_read=tags_of(BROKEN, times=1))
    assert audited.audit()["findings"] == {"open": 0, "opened": 0, "resolved": 1, "excepted": 0}


def test_tags_read_before_a_fault_are_kept_and_judged(
    audited: Audited, dtr: DtrServer, registry: InMemoryRegistry
) -> None:
    registry.push("team", "s07", "0-unsigned")
    # The first page can be read at every pass, and the second at none.
    failing = Faults(on_calls=(Status(500, tags_of(BROKEN)),))

    def fail_on_the_second_page(request: Request) -> None:
        dtr.faults = failing if request.parameter("pageStart") else Faults()

    dtr.on_request(fail_on_the_second_page, f"/api/v0/repositories/{BROKEN}/tags")
    run = audited.audit(PAGE_SIZE="10")
    assert (run["status"], run["complete"]) == ("OPEN", False)
    assert run["tags"]["unsigned"] == 1
    assert run["tags"]["audited"] == 24 + 10


def test_hostile_authors_are_shown_harmlessly(audited: Audited, dtr: DtrServer, registry: InMemoryRegistry) -> None:
    registry.push("team", "s03", "unsigned")
    hostile = "\x1b[31m\u202eeve\r\nSubject: x\ud800" + "x" * 5_000
    dtr.faults = Faults(rewrites=(Rewrite({"author": hostile}, tag="unsigned"),))
    run = audited.audit()
    assert run["status"] == "OPEN"
    (mail,) = audited.mails()
    (row,) = (row for row in audited.rows(run["run_id"]) if row["tag"] == "unsigned")
    for text in (row["author"], mail.text):
        assert not any(character in text for character in "\x1b\u202e\r\ud800")
    assert len(row["author"]) <= 128


def test_harbor_is_recognised_and_nothing_is_said_of_it(stack: Stack) -> None:
    for portal in (True, False):
        with HarborServer(portal=portal) as harbor:
            audited = Audited(stack, harbor)
            audited.put_secret(username="admin", password="Harbor12345")
            run = audited.audit()
            audited.close()
        assert run["status"] == "NOT_REVIEWED"
        assert "Harbor" in run["incomplete_because"][0]
        assert run["repositories"]["listed"] == 0


def test_no_one_at_the_address_is_said(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    run = audited.audit(DTR_URL="https://127.0.0.1:9")
    assert run["status"] == "NOT_REVIEWED"
    assert "refused" in run["incomplete_because"][0].lower()


@pytest.fixture
def flawed(stack: Stack, registry: InMemoryRegistry, request: pytest.FixtureRequest) -> Iterator[Audited]:
    with DtrServer(registry, defect=request.param) as dtr:
        audited = Audited(stack, dtr)
        audited.put_secret(username=dtr.admin.name, password=dtr.admin.password)
        yield audited
        audited.close()


@pytest.mark.parametrize(
    "flawed", [Defect.EXPIRED, Defect.NOT_YET_VALID, Defect.WRONG_HOST, Defect.OTHER_AUTHORITY], indirect=True
)
@pytest.mark.parametrize("strict", ["true", "false"])
def test_a_bad_certificate_is_refused_any_the_strictness(flawed: Audited, strict: str) -> None:
    run = flawed.audit(X509_STRICT=strict)
    assert run["status"] == "NOT_REVIEWED"
    assert "certificate is refused" in run["incomplete_because"][0]
    assert flawed.server.requests == ()


@pytest.mark.parametrize("flawed", [Defect.NO_AUTHORITY_KEY_IDENTIFIER], indirect=True)
def test_a_certificate_that_only_strictness_refuses_names_the_setting(flawed: Audited) -> None:
    run = flawed.audit()
    assert run["status"] == "NOT_REVIEWED"
    assert "X509_STRICT" in run["incomplete_because"][0]
    assert flawed.audit(X509_STRICT="false")["status"] == "NOT_A_FINDING"


def test_without_the_authority_the_message_says_where_to_put_it(audited: Audited, dtr: DtrServer) -> None:
    audited.stack.put_secret({"username": dtr.admin.name, "password": dtr.admin.password})
    run = audited.audit()
    assert "ca_bundle" in run["incomplete_because"][0]
    assert dtr.requests == ()


def test_the_environments_bundle_never_replaces_the_given_one(
    audited: Audited, dtr: DtrServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = tmp_path / "foreign.pem"
    foreign.write_text(dtr.ca_bundle)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(foreign))
    audited.put_secret(
        username=dtr.admin.name, password=dtr.admin.password, ca_bundle=CertificateAuthority("Another").certificate_pem
    )
    assert "certificate is refused" in audited.audit()["incomplete_because"][0]


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ('{"username": "admin"}', "'password'"),
        ('{"username": "admin", "password": ""}', "'password'"),
        ('{"username": "ad:min", "password": "hunter2"}', "colon"),
        ('{"username": "admin", "password": "hunter2\\ud800"}', "half of a character"),
        ("hunter2", "not JSON"),
        ('["hunter2"]', "JSON object"),
        ('{"username": "admin", "password": "hunter2", "ca_bundle": "hunter2"}', "PEM"),
        ('{"username": "admin", "password": "hunter2", "ca_bundle": 5}', "PEM"),
    ],
)
def test_a_malformed_secret_is_an_incomplete_run_that_quotes_nothing(
    audited: Audited, secret: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    arn = audited.stack.function_environment("AuditFunction")["SECRET_ARN"]
    audited.stack.secrets.put_secret_value(SecretId=arn, SecretString=secret)
    run = audited.audit()
    assert run["status"] == "NOT_REVIEWED"
    assert said in run["incomplete_because"][0]
    assert "hunter2" not in str(run) + "".join(capfd.readouterr())


def test_a_secret_that_cannot_be_read_is_an_incomplete_run(audited: Audited) -> None:
    run = audited.audit(SECRET_ARN="arn:aws:secretsmanager:us-east-1:123456789012:secret:none")
    assert run["status"] == "NOT_REVIEWED"
    assert "ResourceNotFoundException" in run["incomplete_because"][0]
    assert "put-secret-value" in run["incomplete_because"][0]
