"""BART from corpus to summary: one command line over three engines (data, training, inference)."""

__version__ = "0.1.0"
