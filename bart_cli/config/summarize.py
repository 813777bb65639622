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
        description="every line of every input is a JSON object, whatever a file is called; "
        "for standard input",
    )
    field: str | None = Field(
        None,
        description="field of the JSON objects that holds the text; "
        "default: the first of article, document, source, text, dialogue",
    )
    long: LongText = Field(
        "truncate",
        description="texts longer than the model's positions: truncate: read the beginning; "
        "chunk: cut at sentence ends, summarize each piece, join; reduce: as chunk, then summarize "
        "the joined summaries until they are one",
    )
    format: OutputFormat | None = Field(
        None,
        description="text, jsonl (one record a line) or json (one list); default: by the suffix of "
        "--out, else jsonl for .jsonl inputs and text for others",
    )
