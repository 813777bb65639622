"""The data pipeline: documents -> sentences -> token ids -> shards -> batches."""
