"""How much work one repository's trust data may be, so that none takes the time of all others."""

import time
from collections.abc import Callable

from dtr_audit.errors import TrustDataError

SIGNATURE_CHECKS = 2_000  # honest trust data needs some ten for each signer
PATH_COMPARISONS = 20_000_000  # of a name with the beginning that a delegation may sign
CPU_SECONDS = 30.0  # of the thread that verifies: what no count covers
LIMITS = f"{SIGNATURE_CHECKS}/{PATH_COMPARISONS}/{CPU_SECONDS:g}"
REFUSAL_LENGTH = 128


class EffortError(TrustDataError):
    """Trust data costs more work than is done for one repository."""

    def __init__(self) -> None:
        super().__init__(
            f"to verify it costs more than is done for one repository ({SIGNATURE_CHECKS} checks of signatures, {PATH_COMPARISONS} "
            f"comparisons of delegated paths or {CPU_SECONDS:g} s of processor time). Remove signatures, delegations or paths, and "
            "publish a new version"
        )


class Effort:
    """The work on one repository so far; each method raises EffortError once it is too much. For one thread."""

    def __init__(self, cpu_seconds: Callable[[], float] = time.thread_time) -> None:
        self._cpu_seconds = cpu_seconds
        self._ends_at = cpu_seconds() + CPU_SECONDS
        self._signatures = 0
        self._paths = 0

    def check_signature(self) -> None:
        """Count one check of a signature, before it is made."""
        self._signatures += 1
        if self._signatures > SIGNATURE_CHECKS:
            raise EffortError
        self.check_time()

    def compare_paths(self, names: int, paths: int) -> None:
        """Count the comparison of so many names with so many paths each, before it is made."""
        self._paths += names * paths
        if self._paths > PATH_COMPARISONS:
            raise EffortError
        self.check_time()

    def check_time(self) -> None:
        """See whether processor time is left."""
        if self._cpu_seconds() > self._ends_at:
            raise EffortError


def refusal_of(sha256: bytes) -> str:
    """Name what was refused: a document by its hash, under the limits of today. Other limits refuse something else."""
    return f"{LIMITS}:{sha256.hex()}"
