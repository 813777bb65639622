"""From raw text to what training reads: shards of samples, tables of tokenised pairs."""
