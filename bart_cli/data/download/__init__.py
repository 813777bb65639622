"""Download corpora and pairs, with one module per source."""
