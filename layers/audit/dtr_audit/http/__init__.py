"""HTTPS to a server that is not trusted: limits, deadlines, retries."""
