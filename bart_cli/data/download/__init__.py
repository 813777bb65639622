"""Where corpora come from: a module per source."""
