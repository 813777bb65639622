"""Convert raw text to training data: shards of samples and tables of tokenized pairs."""
