"""The command line: `python -m tests.fuzz --help`."""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT / folder) for folder in ("layers/audit", "cli", "simulator", "")]

from tests.fuzz.run import main  # noqa: E402 - once it can be found

sys.exit(main(sys.argv[1:]))
