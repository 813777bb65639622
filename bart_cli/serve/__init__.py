"""`bart serve`: summaries over HTTP. One process listens; others decode."""
