"""What a run leaves for people and for other tools to read: one module a format, all of them from one `Report`."""
