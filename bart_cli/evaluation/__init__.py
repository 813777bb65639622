"""Decode, score and compare summaries, and write the results."""
