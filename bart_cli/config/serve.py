"""How `bart serve` listens, and the limits that it sets for its clients."""

from __future__ import annotations

from pydantic import Field

from bart_cli.config.base import Section


class ServeConfig(Section):
    """`bart serve`, beside decoding."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: any free one")
    name: str | None = Field(
        None,
        min_length=1,
        description="name of the model in answers; default: its hub id, or its folder's name",
    )
    workers: int | None = Field(
        None, ge=1, le=64, description="processes that decode; default: one per GPU, else one"
    )
    max_queue: int = Field(
        256, ge=1, le=100_000, description="texts that may wait; more are refused with status 429"
    )
    max_texts: int = Field(64, ge=1, le=10_000, description="texts in one request at most")
    max_bytes: int = Field(
        4 * 2**20, ge=1024, le=2**30, description="size of a request's body at most, in bytes"
    )
    max_beams: int = Field(
        16, ge=1, le=64, description="beams, and summaries per text, that a request may ask for"
    )
    timeout: float = Field(
        300.0, gt=0, le=86_400, description="seconds that a request may take, waiting included"
    )
