"""`bart serve`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from bart_cli.cli.console import ConsoleReporter
from bart_cli.cli.generation import (
    DecodingOptions,
    ModelOption,
    load_summarizer,
    model_of,
    without_model,
)
from bart_cli.cli.options import (
    CheckpointOption,
    ConfigOptions,
    keys,
    option,
    option_groups,
    setting,
)
from bart_cli.config.commands import ServeConfig
from bart_cli.config.presets import load_config
from bart_cli.config.run import EvaluateConfig
from bart_cli.errors import UsageError
from bart_cli.extras import require

if TYPE_CHECKING:
    from bart_cli.serve.worker import Served
    from bart_cli.summarize.summarizer import Summarizer


@dataclass(frozen=True)
class ServingOptions:
    """Name, worker processes, and limits for clients."""

    name: Annotated[str | None, setting(ServeConfig, "name")] = None
    workers: Annotated[int | None, setting(ServeConfig, "workers")] = None
    max_queue: Annotated[int | None, setting(ServeConfig, "max_queue")] = None
    max_texts: Annotated[int | None, setting(ServeConfig, "max_texts")] = None
    max_bytes: Annotated[int | None, setting(ServeConfig, "max_bytes")] = None
    max_beams: Annotated[int | None, setting(ServeConfig, "max_beams")] = None
    timeout: Annotated[float | None, setting(ServeConfig, "timeout")] = None


@option_groups
def command(
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    host: Annotated[str | None, setting(ServeConfig, "host")] = None,
    port: Annotated[int | None, setting(ServeConfig, "port")] = None,
    api_key: Annotated[
        str | None,
        option(
            "Key that clients must send (Authorization: Bearer KEY). Required to serve other "
            "machines. Default: the environment variable BART_API_KEY, which is safer, because "
            "other users of this machine cannot read it.",
            envvar="BART_API_KEY",
            show_envvar=False,
        ),
    ] = None,
    no_auth: Annotated[
        bool, option("Serve other machines without requiring a key.", "--no-auth")
    ] = False,
    serving: ServingOptions = ServingOptions(),
    decoding: DecodingOptions = DecodingOptions(),
    settings: ConfigOptions = ConfigOptions(),
) -> None:
    """Serve summaries over HTTP, with an API and a web page.

    Open the printed address in a browser, or send a text with `POST /v1/summarize`; `/docs`
    documents the API. Decoding options set defaults that a request may override. On SIGTERM,
    requests in progress are completed.

    [bold]bart serve --model runs/finetune[/bold]

    [bold]curl localhost:8000/v1/summarize --json '{"text": "…", "beams": 6}'[/bold]
    """
    config = load_config(ServeConfig, options=keys(serving) | {"host": host, "port": port})
    without_model(settings, EvaluateConfig, keys(decoding))
    require("bart serve", "serve")

    from bart_cli.serve.listen import listen, serve

    if api_key is not None and not api_key.strip():
        raise UsageError("the API key is empty", hint="Set BART_API_KEY to a long random string.")
    source, _ = model_of(model)
    shown = config.name or (Path(source).resolve().name if Path(source).exists() else source)
    load = partial(_load, model, checkpoint, decoding, settings)
    with listen(config, key=api_key and api_key.strip(), open_to_all=no_auth) as (socket, access):
        serve(load, config, shown, socket, access, ConsoleReporter())


def _load(
    model: str | None,
    checkpoint: str | None,
    decoding: DecodingOptions,
    settings: ConfigOptions,
    number: int,
) -> tuple[Summarizer, Served]:
    """Load the model in a worker as `bart summarize` does, distributing workers over the GPUs."""
    import torch

    from bart_cli.serve.worker import Served

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    spread = gpus > 1 and decoding.device in (None, "auto")
    if spread:
        decoding = replace(decoding, device=f"cuda:{number % gpus}")
    loading = load_summarizer(model, checkpoint, decoding, settings, ConsoleReporter())
    summarizer, loaded, evaluation = loading
    return summarizer, Served(
        precision=loaded.precision,
        device=str(summarizer.model.device),
        positions=summarizer.positions,
        source_length=summarizer.source_length,
        vocab_size=summarizer.model.config.vocab_size,
        generation=summarizer.generation,
        batch_size=evaluation.batch_size,
        max_tokens=evaluation.max_tokens,
        gpus=gpus if spread else 1,
    )
