"""Texts in any form in, summaries out: the `Summarizer` and the engine of `bart summarize`."""
