"""Lead-N: the first N sentences of the article as its summary, the baseline that news demands."""

from __future__ import annotations

from bart_cli.data.sentences import AUTO, split_sentences

LEADS = (1, 2, 3)


def lead(article: str, sentences: int, language: str = AUTO) -> str:
    """The first sentences of an article, one a line."""
    return "\n".join(split_sentences(article, language)[:sentences])
