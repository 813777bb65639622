"""A story: one event of the invented world, told at length and in brief.

The brief says in other words what the news says. Which brief is written follows from what happened,
never from chance, so that a careful reader could write it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Story:
    """One event.

    town: where it happens. news: what a reader must know, in order. others: old or other events.
    voices: quotes and reactions. brief: the summary.
    """

    town: str
    news: tuple[str, ...]
    others: tuple[str, ...]
    voices: tuple[str, ...]
    brief: str
