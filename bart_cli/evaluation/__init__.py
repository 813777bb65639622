"""Scores of generated summaries, and the files that keep them."""
