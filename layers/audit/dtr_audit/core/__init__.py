"""What the audit decides, without any input or output."""
