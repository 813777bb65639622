"""How `bart summarize` reads its inputs, treats long texts and writes its results."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bart_cli.config.base import Section

LongText = Literal["truncate", "chunk", "reduce"]
OutputFormat = Literal["text", "jsonl", "json"]


class SummarizeConfig(Section):
    """`bart summarize`, beside decoding."""

    jsonl: bool = Field(
        False,
        description="treat every input, standard input included, as JSON lines",
    )
    field: str | None = Field(
        None,
        description=(
            "JSON field with the text; default: the first of article, document, source, text, "
            "dialogue"
        ),
    )
    long: LongText = Field(
        "truncate",
        description=(
            "how to handle texts longer than the model's maximum: truncate: read the "
            "beginning; chunk: split at sentence ends, summarize each piece and join the "
            "summaries; reduce: like chunk, then summarize the joined summaries until one "
            "piece holds them"
        ),
    )
    format: OutputFormat | None = Field(
        None,
        description=(
            "text, jsonl (one record per line) or json (one list); default: from the suffix of "
            "--out, else jsonl for .jsonl inputs, else text"
        ),
    )
