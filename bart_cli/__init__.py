"""BART from corpus to summary: one command line over three engines (data, training, inference)."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`Summarizer` and `generate`, imported when they are first used: torch takes its time."""
    if name == "Summarizer":
        from bart_cli.inference.summarizer import Summarizer

        return Summarizer
    if name == "generate":
        from bart_cli.inference.generate import generate

        return generate
    raise AttributeError(f"module 'bart_cli' has no attribute {name!r}")
