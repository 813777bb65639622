"""`bart evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from bart_cli.cli.console import ConsoleReporter, print_json, print_rows, say
from bart_cli.cli.generation import DecodingOptions, load_with_model, saved_with
from bart_cli.cli.options import (
    CheckpointOption,
    ConfigOptions,
    JsonOption,
    PairOptions,
    ScoringOptions,
    keys,
    option,
    option_groups,
    setting,
    words,
)
from bart_cli.cli.training import ProcessesOption, start_workers, warn_once
from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.generation import ROUGE, EvaluationConfig
from bart_cli.config.run import EvaluateConfig
from bart_cli.errors import BartError
from bart_cli.extras import require

if TYPE_CHECKING:
    from bart_cli.evaluation.scoring import Evaluation


@option_groups
def command(
    model: Annotated[str | None, option("Run, model folder or hub id to score.")] = None,
    checkpoint: CheckpointOption = None,
    data: Annotated[Path | None, setting(SummarizationDataConfig, "path")] = None,
    pairs: PairOptions = PairOptions(),
    predictions: Annotated[Path | None, setting(EvaluateConfig, "predictions")] = None,
    out_folder: Annotated[
        Path | None, option("Output folder. Default: `evaluation-SPLIT` inside the run.", "--out")
    ] = None,
    scoring: ScoringOptions = ScoringOptions(),
    metrics: Annotated[str | None, setting(EvaluationConfig, "metrics", metavar="NAME,…")] = None,
    settings: ConfigOptions = ConfigOptions(),
    decoding: DecodingOptions = DecodingOptions(),
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Summarize a test split and score it with ROUGE, along with lead-1/2/3 baselines.

    With --predictions, score existing summaries without a model. `bart evaluate compare A B` tests
    whether two evaluations differ significantly.

    Decoding settings come from the saved model, overridden by --preset or --config and then by
    options; metrics.json records the source of each. Without --preset or --config, a run's own
    config.yaml is used, which may also provide the data.

    Rerun an interrupted evaluation to resume it, with any number of processes.

    [bold]bart evaluate --model runs/finetune-xsum --preset xsum-dgxa100-1gpu-bf16 --beams 6[/bold]
    """
    from bart_cli.evaluation.evaluate import run_evaluate

    require("bart evaluate", "eval")
    scored = model
    own = None
    if model is not None and checkpoint is not None:
        from bart_cli.model.formats import resolve_model

        scored = str(resolve_model(model, checkpoint))
    if model and not settings.name and (Path(model) / "config.yaml").is_file():
        settings = settings.or_file(Path(model) / "config.yaml")
        own = settings.load(EvaluateConfig, {}).data
    options = keys(decoding) | keys(pairs) | keys(scoring)
    options |= {"model_path": scored, "data.path": data, "predictions": predictions}
    options["evaluation.metrics"] = None if metrics is None else words(metrics)
    config, notices = load_with_model(
        settings, EvaluateConfig, options, lambda config: saved_with(config.model_path)
    )
    if own is not None:
        config = _for_other_data(config, own)
    if predictions is not None or (processes is None and ":" in config.evaluation.device):
        processes = 1  # there is nothing to decode, or the device is a single GPU such as cuda:1
    start_workers(processes, max_restarts=0)
    folder = out_folder or _default_out(model, config, checkpoint)
    reporter = ConsoleReporter()
    warn_once(reporter, notices)
    try:
        result = run_evaluate(config, folder, reporter=reporter)
    except BartError as error:
        path = None if own is None or data is not None else own.path
        if path is not None and not path.exists() and str(path) in error.message:
            error.hint = f"Pass --data: {model}/config.yaml names a path that does not exist here."
        raise
    if result is None:  # not rank 0
        return
    if as_json:
        print_json(result.numbers() | {"out": folder})
    else:
        show_scores(result, folder)


def _for_other_data(config: EvaluateConfig, own: SummarizationDataConfig) -> EvaluateConfig:
    """Reset columns and shares inherited from the run if the data is not its `own`."""
    data = config.data
    if data.path is None or own.path is None or data.path.absolute() == own.path.absolute():
        return config
    inherited = {
        name: SummarizationDataConfig.model_fields[name].default
        for name in PairOptions.__dataclass_fields__
        if getattr(data, name) == getattr(own, name)
    }
    return config.model_copy(update={"data": data.model_copy(update=inherited)})


def show_scores(result: Evaluation, folder: Path) -> None:
    """Print ROUGE and other metrics, speed, and the output folder."""
    bleu = ["BLEU"] if result.bleu else []
    rows = []
    for name, scores in ({"model": result.rouge} | result.baselines).items():
        cells = [f"{scores[kind]:.2f}" for kind in ROUGE]
        if name == "model" and result.interval:
            cells = [
                f"{cell} ({result.interval[kind][0]:.2f}-{result.interval[kind][1]:.2f})"
                for cell, kind in zip(cells, ROUGE, strict=True)
            ]
        rows.append([name, *cells, *([f"{result.bleu[name]:.2f}"] if bleu else [])])
    print_rows(rows, "", *ROUGE.values(), *bleu)
    if result.metrics:
        rows = []
        for name in dict.fromkeys(name for values in result.metrics.values() for name in values):
            found = (values.get(name) for values in result.metrics.values())
            rows.append([name, *("-" if value is None else f"{value:.2f}" for value in found)])
        print_rows(rows, "", *result.metrics)
    if result.throughput is not None:
        spread = ", ".join(f"{name} {value:.2f}" for name, value in result.latency.items())
        say(f"{result.throughput:.1f} articles/s; seconds per batch: {spread}")
    say(f"{result.articles:,} articles; predictions, metrics.json and report.html in {folder}")


def _default_out(model: str | None, config: EvaluateConfig, checkpoint: str | None) -> Path:
    """`evaluation-SPLIT` (or -FILE), plus `-CHECKPOINT`, in the run; below runs/ for hub models."""
    path = config.data.path
    split = path.stem if path is not None and path.is_file() else config.evaluation.split
    name = f"evaluation-{split}" + (f"-{checkpoint}" if checkpoint else "")
    if config.predictions is not None:
        return Path("runs") / f"{name}-{config.predictions.stem}"
    if model and Path(model).is_dir():
        return Path(model) / name
    return Path("runs") / f"{name}-{Path(model or 'model').stem}"
