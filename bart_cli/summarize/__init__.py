"""Summarize texts: the `Summarizer` and the engine of `bart summarize`."""
