"""Documents -> sentences -> token ids -> shards -> batches. Data flows one way."""
