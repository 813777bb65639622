"""`bart serve`: an HTTP server for summaries. One process serves HTTP, others decode."""
