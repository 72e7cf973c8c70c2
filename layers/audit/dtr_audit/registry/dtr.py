"""The registry's HTTP API (DTR 2.x, MSR 2.x), read with care.

Sources: the DTR 2.6 API reference, the MSR documentation, and Harbor's replication adapter for DTR. Where versions differ, or
the sources are thin, both answers are survived; whatever cannot be read to its end is said, never guessed.
"""

from collections.abc import Iterator, Mapping

from dtr_audit.core.credentials import Credentials, CredentialSource
from dtr_audit.core.model import PassingFault, Repository, TrustFlags
from dtr_audit.core.readings import Listing, TagReading
from dtr_audit.core.text import clean
from dtr_audit.errors import (
    AuditError,
    AuthenticationError,
    ContradictionError,
    OutOfTimeError,
    RegistryError,
    RepositoryGoneError,
    TransientError,
)
from dtr_audit.http.exchange import Answer, Clock
from dtr_audit.http.memory_budget import BUDGET, Charge, estimate_parsed
from dtr_audit.http.retry import Waiting
from dtr_audit.http.tokens import parse_answer, pull_scope, read_token
from dtr_audit.http.transport import RETRIED_STATUSES
from dtr_audit.registry.api_errors import raise_if_transient, status_error
from dtr_audit.registry.artifacts import ACCEPT as MANIFESTS
from dtr_audit.registry.artifacts import MANIFEST_BYTES
from dtr_audit.registry.parsing import (
    Page,
    add_tags,
    explain_count,
    parse_page,
    parse_repository,
    quote_segments,
    remove_secrets,
)
from dtr_audit.registry.session import Session

PAGES = 20_000  # of one list
LARGE_PAGE = 1_000  # entries; the most that the settings allow, for a list that changes while it is read
ENTRY_BYTES = (
    4 * 1024
)  # of a page's text, for each entry that was asked for; a tag with its manifest takes about half of it
WHOLE_LIST_BYTES = (
    3 * 1024 * 1024
)  # more of a page's text, for a server that gives the whole list at once: some 7000 tags
PAGE_BYTES = 48 * 1024 * 1024  # of memory for one page, parsed
REPOSITORIES = 1_000_000
TAGS_OF_A_REPOSITORY = 100_000  # about 100 MB while they are compared, if none is signed
CURSOR_LENGTH = 4_096
REASON_LENGTH = 300
MANIFEST_FAILURES = 10


class DtrClient(Session):
    """One registry, seen with one account's eyes. Safe to share between threads once `connect()` has returned."""

    def __init__(
        self,
        url: str,
        source: CredentialSource,
        *,
        x509_strict: bool,
        concurrency: int,
        page_size: int,
        stop_at: float,
        clock: Clock | None = None,
    ) -> None:
        """Fetch the credentials and prepare; `stop_at` is on the clock. Raises SettingsError; asks nothing of the registry yet."""
        super().__init__(url, source, x509_strict=x509_strict, concurrency=concurrency, stop_at=stop_at, clock=clock)
        self._page_size = page_size
        self._page_limit = WHOLE_LIST_BYTES + page_size * ENTRY_BYTES
        self._without_pull: Credentials | None = None  # those that the registry gives no token to pull with
        self._manifest_failures = 0  # in a row; threads that count at once may lose one

    # -- lists -------------------------------------------------------------------------------------------------------

    def repositories(self, listing: Listing, found: dict[Repository, bool] | None = None) -> Iterator[Repository]:
        """Yield every repository once, as its page arrives, and fill `listing`; and `found`, which begins empty, with False.

        Read once more when the count disagrees: a push or a deletion in mid-list moves entries across pages. A list that
        cannot be read is said in `listing.problem`; raises OutOfTimeError alone.
        """
        # Dicts: a set of so many takes twice the room.
        found = {} if found is None else found
        for reading in (1, 2):
            entries = found if reading == 1 else {}
            unnamed_entries = 0
            malformed, faults = "", 0  # what is wrong with the first malformed entry, and how many there are
            counts: set[int | None] = set()
            try:
                path = "/api/v0/repositories"
                for page in self._pages(path, {}, "repositories", page_size=self._page_size, is_patient=True):
                    counts.add(page.count)
                    listing.count = max(listing.count, min(page.count or 0, REPOSITORIES))
                    added: list[Repository] = []
                    for entry in page.entries:
                        try:
                            repository = parse_repository(entry)
                        except RegistryError as error:
                            faults += 1
                            malformed = malformed or str(error)
                            continue
                        if repository is None:
                            unnamed_entries += 1
                            continue
                        is_new = repository not in found
                        entries.setdefault(repository, False)
                        if is_new:
                            found[repository] = False
                            added.append(repository)
                    page.release()
                    yield from added
                    if len(found) > REPOSITORIES:
                        raise RegistryError(f"it lists more than {REPOSITORIES} repositories")
            except OutOfTimeError:
                raise
            except AuditError as error:
                listing.problem = (
                    f"the list of repositories could not be read to its end: {clean(str(error), REASON_LENGTH)}"
                )
                if isinstance(error, ContradictionError):
                    continue
                return
            listing.unnamed_entries = unnamed_entries
            more = f"; {faults - 1} more entries of the list are malformed" if faults > 1 else ""
            listing.problem = f"{malformed}{more}" or explain_count(
                "repositories", counts, len(entries) + unnamed_entries, self._page_size
            )
            if unnamed_entries and not entries and not listing.problem:
                listing.problem = f"all {unnamed_entries} repositories that it lists have no name"
            if not listing.problem or malformed or None in counts:
                return

    def tags(self, repository: Repository, domain: str) -> TagReading:
        """Read every tag of a repository, with its signature's flags under `domain`.

        An answer that contradicts itself may come of a push while it was read, so the repository is read once more. What was
        read before a fault is given, with the problem, and without a tag that is listed with different contents. Raises
        RepositoryGoneError on a 404, and OutOfTimeError.
        """
        path = f"/api/v0/repositories/{quote_segments(repository)}/tags"
        reading, may_change = self._read_tags(path, domain)
        if may_change:
            reading, _ = self._read_tags(path, domain)
        if reading.is_miscounted and len(reading.tags) >= self._page_size < LARGE_PAGE:
            # Under constant pushes rows move from page to page: on a single page none is missed.
            reading, _ = self._read_tags(path, domain, LARGE_PAGE)
        if reading.status == 500:
            reading = self._read_without_trust(path, domain) or reading
        remove_secrets(reading)
        return reading

    def _read_without_trust(self, path: str, domain: str) -> TagReading | None:
        """Read tags whose signatures cannot be read under a domain, as with expired trust data; None if that fails too.

        Whether they are signed is not known: without a domain the registry's flags do not count.
        """
        authorization, _ = self._current_authorization()
        try:
            # Once: in an outage it fails as well, and is asked for no longer.
            probe = self._transport.get(path, params={"pageSize": "1"}, authorization=authorization, is_optional=True)
        except RegistryError:
            return None
        if probe.status != 200:
            return None
        reading, _ = self._read_tags(path, "")
        if reading.problem or not reading.tags:
            return None
        why = (
            f"its trust data under {domain} could not be read, and has perhaps expired: the registry answers 500 with this domain, "
            "and lists the tags without it. Look at the trust data with `notary list`, and have its owner publish it again"
        )
        unread = (TrustFlags(domain, None, None),)
        for name, tag in reading.tags.items():
            reading.tags[name] = tag._replace(trust=unread)
        reading.unread_trust[domain] = why
        reading.fault = PassingFault(why)
        return reading

    def _read_tags(self, path: str, domain: str, page_size: int = 0) -> tuple[TagReading, bool]:
        """Read a list of tags once, by default with the pages of the settings.

        Gives also whether another reading may end its problem.
        """
        page_size = page_size or self._page_size
        reading = TagReading()
        counts: set[int | None] = set()
        unpaged = False
        malformed = ""
        contradicting: set[str] = set()
        try:
            for page in self._pages(path, {"domain": domain} if domain else {}, "tags", page_size=page_size):
                malformed = add_tags(page.entries, domain, reading.tags, contradicting) or malformed
                page.release()
                counts.add(page.count)
                unpaged = page.is_unpaged
                if len(reading.tags) > TAGS_OF_A_REPOSITORY:
                    raise RegistryError(f"it has more than {TAGS_OF_A_REPOSITORY} tags")
        except (RepositoryGoneError, OutOfTimeError):
            raise
        except AuditError as error:
            reading.problem = clean(str(error), REASON_LENGTH)
            if isinstance(error, TransientError):
                reading.fault = PassingFault(reading.problem, error.retry_after)
                reading.status = error.status
            return reading, isinstance(error, ContradictionError)
        finally:
            for name in contradicting:
                del reading.tags[name]
        if contradicting:
            reading.problem = (
                f"the registry lists the tag '{min(contradicting)}' more than once, with different contents or signatures, in two "
                "readings"
            )
            return reading, True
        reading.problem = malformed
        if not malformed and not (unpaged and counts == {None}):
            reading.problem = explain_count("tags", counts, len(reading.tags), page_size)
        reading.is_miscounted = bool(reading.problem) and not malformed and None not in counts
        return reading, reading.is_miscounted

    def _pages(
        self, path: str, params: Mapping[str, str], key: str, *, page_size: int, is_patient: bool = False
    ) -> Iterator[Page]:
        """Follow X-Next-Page-Start to the end of a list; raises RegistryError on a loop, a cap or an unusable answer.

        A page is charged until it is released, or the next one is asked for. With `is_patient` a page that meets a fault that may
        pass is waited for.
        """
        cursor = ""
        seen: set[str] = set()
        for number in range(1, PAGES + 1):
            asked: dict[str, str | bytes] = {**params, "pageSize": str(page_size), "count": "true"}
            if cursor:
                # Byte for byte what the header held: a name in it may be UTF-8, and HTTP's headers are read as Latin-1.
                asked["pageStart"] = cursor.encode("latin-1")
            with BUDGET.charge(PAGE_BYTES) as charge:
                answer = self._get_page(path, asked, charge, number, self.patience.begin() if is_patient else None)
                # Blanks alone: of a name in UTF-8 the last byte may be what Latin-1 takes for a blank.
                cursor = answer.headers.get("X-Next-Page-Start", "").strip(" \t")
                page = self._parse_page(answer, key, path, charge)
                # What is parsed is held in its text's place.
                del answer
                yield page
            if not cursor:
                return
            if cursor in seen or len(cursor) > CURSOR_LENGTH:
                raise RegistryError(
                    f"GET {path}: page {number} leads back to a page already read; the list has no end that can be reached"
                )
            seen.add(cursor)
        raise RegistryError(f"GET {path}: the list has more than {PAGES} pages")

    def _get_page(
        self, path: str, asked: Mapping[str, str | bytes], charge: Charge, number: int, waiting: Waiting | None
    ) -> Answer:
        while True:
            try:
                answer = self._get(path, asked, self._page_limit, charge)
                if answer.status == 200:
                    return answer
                raise status_error(answer, path, number)
            except TransientError as error:
                if waiting is None:
                    raise
                charge.release()
                waiting.wait(error)

    def _parse_page(self, answer: Answer, key: str, path: str, charge: Charge) -> Page:
        try:
            charge.grow(estimate_parsed(answer.body), lambda: self._transport.check_time(path))
        except RegistryError as error:
            raise RegistryError(f"GET {path}: {error}") from None
        return parse_page(parse_answer(answer, path), answer.headers, key, path, charge)

    # -- manifests -----------------------------------------------------------------------------------------------------

    def authorize_pull(self, repository: Repository) -> str:
        """Give the authorization to read a repository by the registry's own protocol (/v2/), with the same account.

        It is a token that the registry's token server gives for this repository, or Basic where there is no token server. Nothing
        that the registry says in its errors is passed on. Raises AuthenticationError, RegistryError or OutOfTimeError.
        """
        params = {"scope": pull_scope(str(repository))}
        if self._pull_service:
            params["service"] = self._pull_service
        for _ in (1, 2):
            with self._lock:
                self._raise_if_refused()
                credentials, basic = self._credentials, self._basic()
            if credentials is self._without_pull:
                break
            answer = self._ask_token(params, basic)
            if self._by_token:
                raise_if_transient(answer, "/auth/token")
            if answer.status != 401:
                granted = read_token(answer) if answer.status == 200 else None
                return f"Bearer {granted[0]}" if granted else basic
            with self._lock:
                # Every further attempt would count against the account's lock; another thread may have found new credentials.
                if self._credentials is credentials and not self._refetch_in_mid_run("pull"):
                    self._without_pull = credentials
                elif not self._by_token:
                    self._use_basic()
        raise AuthenticationError("the registry gives no token to pull with")

    def ask_manifest(self, repository: Repository, digest: str, authorization: str) -> Answer:
        """Ask for a manifest by its digest; raises RegistryError or OutOfTimeError.

        After MANIFEST_FAILURES in a row, over all repositories, each is asked for once and not again: an outage of /v2/ alone must
        not take the time in which tags are read.
        """
        try:
            answer = self._transport.get(
                f"/v2/{quote_segments(repository)}/manifests/{digest}",
                authorization=authorization,
                accept=MANIFESTS,
                is_optional=self._manifest_failures >= MANIFEST_FAILURES,
                limit=MANIFEST_BYTES,
            )
        except RegistryError:
            self._manifest_failures += 1
            raise
        self._manifest_failures = self._manifest_failures + 1 if answer.status in RETRIED_STATUSES else 0
        return answer
