"""A story: one event in the invented world, told at length and in brief.

The brief paraphrases the news. It is determined by the event, never by chance, so that a careful
reader could write it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Story:
    """An event.

    town: its location. news: the essential facts, in order. others: earlier or unrelated events.
    voices: quotes and reactions. brief: the summary.
    """

    town: str
    news: tuple[str, ...]
    others: tuple[str, ...]
    voices: tuple[str, ...]
    brief: str
