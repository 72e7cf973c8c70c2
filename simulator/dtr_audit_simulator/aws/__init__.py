"""The template's own resources in an embedded AWS."""
