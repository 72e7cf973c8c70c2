"""The name and the version of this tool, as its documents give them."""

from dtr_audit import __version__

TOOL_NAME = "dtr-signature-audit"
TOOL = f"{TOOL_NAME} {__version__}"
