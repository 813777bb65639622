"""Settings of `bart serve`: its address, and limits for clients."""

from __future__ import annotations

from pydantic import Field

from bart_cli.config.base import Section


class ServeConfig(Section):
    """Settings of `bart serve` other than decoding."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: any free port")
    name: str | None = Field(
        None,
        min_length=1,
        description="name of the model in responses; default: its hub id or the name of its folder",
    )
    workers: int | None = Field(
        None, ge=1, le=64, description="worker processes; default: one per GPU, or one on a CPU"
    )
    max_queue: int = Field(
        256, ge=1, le=100_000, description="maximum texts in the queue; more get status 429"
    )
    max_texts: int = Field(64, ge=1, le=10_000, description="maximum texts per request")
    max_bytes: int = Field(
        4 * 2**20, ge=1024, le=2**30, description="maximum size of a request body, in bytes"
    )
    max_beams: int = Field(
        16, ge=1, le=64, description="maximum beams, and summaries per text, in a request"
    )
    timeout: float = Field(
        300.0, gt=0, le=86_400, description="time limit of a request in seconds, including queueing"
    )
