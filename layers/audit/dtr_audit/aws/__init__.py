"""One module for each AWS service."""
