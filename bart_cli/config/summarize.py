"""Settings of `bart summarize`: inputs, long texts and output format."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bart_cli.config.base import Section

LongText = Literal["truncate", "chunk", "reduce"]
OutputFormat = Literal["text", "jsonl", "json"]


class SummarizeConfig(Section):
    """Settings of `bart summarize` other than decoding."""

    jsonl: bool = Field(
        False,
        description="read every input, including standard input, as JSON lines",
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
            "how to read texts longer than the model's maximum: truncate: read only the "
            "beginning; chunk: split at sentence ends, summarize each piece and join the "
            "summaries; reduce: like chunk, but summarize the joined summaries again until "
            "they fit in one piece"
        ),
    )
    format: OutputFormat | None = Field(
        None,
        description=(
            "text, jsonl (one record per line) or json (one list); default: from the suffix of "
            "--out, else jsonl for .jsonl inputs, else text"
        ),
    )
