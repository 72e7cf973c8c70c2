"""The audit on one machine: an embedded DTR, and the template's own resources in an embedded AWS."""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

# In Lambda the layer is on the path by itself; here it has to be put there.
_LAYER = str(PROJECT / "layers" / "audit")
if _LAYER not in sys.path:
    sys.path.insert(0, _LAYER)
