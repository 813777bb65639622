"""`bart finetune`."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Annotated, Any

from bart_cli.cli.console import ConsoleReporter
from bart_cli.cli.evaluate import show_scores
from bart_cli.cli.generation import Saved, load_with_model, saved_with, without_model
from bart_cli.cli.options import (
    ConfigOptions,
    JsonOption,
    PairOptions,
    SourceLanguageOption,
    TargetLanguageOption,
    keys,
    option,
    option_groups,
    setting,
)
from bart_cli.cli.training import TrainingOptions, show_result, start_workers, warn_once
from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.run import FinetuneConfig
from bart_cli.errors import UsageError
from bart_cli.extras import require

layers_of = partial(setting, FinetuneConfig, metavar="0,2,4…")


@dataclass(frozen=True)
class AdaptingOptions:
    """How the pre-trained model is adapted to the pairs."""

    source_language: SourceLanguageOption = None
    target_language: TargetLanguageOption = None
    max_tokens: Annotated[int | None, setting(SummarizationDataConfig, "max_tokens")] = None
    keep_encoder_layers: Annotated[str | None, layers_of("keep_encoder_layers")] = None
    keep_decoder_layers: Annotated[str | None, layers_of("keep_decoder_layers")] = None


@option_groups
def command(
    settings: ConfigOptions = ConfigOptions(),
    data: Annotated[Path | None, setting(SummarizationDataConfig, "path")] = None,
    pairs: PairOptions = PairOptions(),
    init_from: Annotated[str | None, setting(FinetuneConfig, "init_from")] = None,
    out_folder: Annotated[
        Path | None, option("Run folder. Default: runs/finetune-PRESET.", "--out")
    ] = None,
    training: TrainingOptions = TrainingOptions(),
    adapting: AdaptingOptions = AdaptingOptions(),
    evaluate: Annotated[bool, option("Score the test split at the end, if there is one.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a model on article-summary pairs.

    Without --init-from, training starts from random weights. Rerun an interrupted command to
    resume it.

    [bold]bart finetune --preset cnn-dm-dgxa100-8gpu-bf16 --init-from runs/phase2 --data
    data/cnn_dm[/bold]
    """
    options = _options(**locals())
    run = out_folder or settings.default_run("finetune")
    config, notices = load_with_model(
        settings, FinetuneConfig, options, lambda config: saved_settings(run, config.init_from)
    )
    require_scores(config, evaluate)
    start_workers(training.processes, training.max_restarts)
    from bart_cli.evaluation.evaluate import FINAL_EVALUATION, evaluate_run
    from bart_cli.runtime.signals import stopped
    from bart_cli.runtime.world import join_world
    from bart_cli.training.finetune import run_finetune

    reporter = ConsoleReporter()
    warn_once(reporter, notices)
    scores = None
    begin = time.monotonic()
    with join_world():  # once, for training and evaluation
        result = run_finetune(
            config, run, resume=training.resume, dry_run=training.dry_run, reporter=reporter
        )
        if not as_json:
            show_result(result, as_json=False)
        finished = result.model is not None and not training.dry_run
        if evaluate and finished and result.signal is not None:
            hint = "Rerun the command to evaluate the model."
            raise stopped(Signals(result.signal).name, " before the evaluation", hint=hint)
        if evaluate and finished:
            limit = config.training.time_limit
            minutes = None if limit is None else limit - (time.monotonic() - begin) / 60
            scores = evaluate_run(config, run, minutes=minutes, reporter=reporter)
    if as_json:
        more = {} if training.dry_run else {"evaluation": scores.numbers() if scores else None}
        show_result(result, as_json=True, **more)
    elif scores is not None:
        show_scores(scores, run / FINAL_EVALUATION)


def require_scores(config: FinetuneConfig, evaluate: bool) -> None:
    """Check that the packages that score summaries are installed, if a run needs them."""
    if config.training.select_by != "loss":
        require("validation with ROUGE", "eval", otherwise="pass --set training.select_by=loss")
    if evaluate:
        require("the final evaluation", "eval", otherwise="pass --no-evaluate")


def configure(*, settings: ConfigOptions, **values: Any) -> FinetuneConfig:
    """Build the configuration from the options, without the decoding settings of the model."""
    return without_model(settings, FinetuneConfig, _options(**values))


def saved_settings(run: Path, init_from: str | None) -> Saved:
    """Return the decoding settings of `init_from`, or those recorded by a run that is resumed."""
    from bart_cli.training.resume import recorded_generation

    recorded = recorded_generation(run)
    return saved_with(init_from, stated_only=True) if recorded is None else (recorded, ())


def _options(
    *,
    training: TrainingOptions,
    pairs: PairOptions,
    adapting: AdaptingOptions,
    data: Path | None,
    init_from: str | None,
    **_: object,
) -> dict[str, object]:
    own = {
        "data.path": data,
        "init_from": init_from,
        "keep_encoder_layers": _layers("--keep-encoder-layers", adapting.keep_encoder_layers),
        "keep_decoder_layers": _layers("--keep-decoder-layers", adapting.keep_decoder_layers),
    }
    return keys(training) | keys(pairs) | keys(adapting) | own


def _layers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} {text}: expected layer numbers such as 0,2,4") from None
