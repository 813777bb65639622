"""`bart evaluate`: decode a split or read predictions, score them, and write the results.

Writes config.yaml, predictions.jsonl (one line per article, in order), metrics.json and
report.html to OUT and, while decoding, progress.jsonl, from which an interrupted evaluation
resumes.
"""

from collections.abc import Sequence
from dataclasses import replace as with_changes
from pathlib import Path
from typing import Any

from bart_cli.config.presets import recorded_settings
from bart_cli.config.run import EvaluateConfig, FinetuneConfig, save_config
from bart_cli.data.pairs import Pair, PairSource
from bart_cli.errors import START_ANEW, UsageError
from bart_cli.evaluation.bertscore import BertScore
from bart_cli.evaluation.decoding import decode_split
from bart_cli.evaluation.ledger import (
    LEDGER,
    Decoded,
    Ledger,
    open_ledger,
    origin_of,
    pairs_hash,
)
from bart_cli.evaluation.predictions import read_predictions
from bart_cli.evaluation.report import write_report
from bart_cli.evaluation.scoring import Evaluation, decoding_settings, score
from bart_cli.files import (
    Record,
    atomic_file,
    bind,
    read_object,
    remove_leftovers,
    require_folder,
    sha256,
    strict_json,
    write_text,
)
from bart_cli.inference.load import choose_precision, find_device
from bart_cli.model.formats import resolve_model
from bart_cli.progress import Reporter
from bart_cli.runtime.world import World, held_by_rank_0, join_world
from bart_cli.tokenizer import Tokenizer

FINAL_EVALUATION = "final-evaluation"  # folder in a run


def evaluate_run(
    config: FinetuneConfig, run: Path, *, minutes: float | None = None, reporter: Reporter
) -> Evaluation | None:
    """Score the final model of a run on its test split, if there is one; see `run_evaluate`."""
    if "test" not in PairSource(config.data).splits:
        with join_world() as world:
            if world.is_main:
                reporter.info(
                    f"no test split in {config.data.path}: the model is not scored; "
                    "--test-share 0.05 holds out part of the train split"
                )
        return None
    own = EvaluateConfig(
        model_path=str(run),
        data=config.data,
        generation=config.generation,
        generation_sources=config.generation_sources,
        evaluation=config.evaluation,
    )
    out = run / FINAL_EVALUATION
    return run_evaluate(own, out, minutes=minutes, replace=True, reporter=reporter)


def run_evaluate(
    config: EvaluateConfig,
    out: Path,
    *,
    minutes: float | None = None,
    replace: bool = False,
    reporter: Reporter,
) -> Evaluation | None:
    """Score a model or existing predictions on a split. Collective; None on ranks other than 0.

    Args:
        minutes: time limit of decoding; None: no limit.
        replace: start again if `out` holds the evaluation of another model or other pairs.
    """
    if config.model_path is None and config.predictions is None:
        raise UsageError(
            "no model: pass --model with a run, a model folder or a hub id",
            hint="Pass --predictions FILE to score existing summaries.",
        )
    if config.model_path is not None and config.predictions is not None:
        raise UsageError("--model and --predictions: pass one of them")
    if config.data.path is None:
        raise UsageError("no data: pass --data with a folder of pairs (test.jsonl …)")
    source = PairSource(config.data)
    split = config.evaluation.split
    limit = config.evaluation.limit or getattr(config.data, f"n_{split}", None)
    found = source.read(split, limit=limit, keep_empty=split != "train")
    pairs = found.pairs
    with join_world() as world, held_by_rank_0(out, world, reporter):
        reporter = reporter if world.is_main else Reporter()
        if world.is_main:
            found.report(reporter)
            source.report_overlap(found, reporter)
        encoder, evaluation = None, config.evaluation
        if "bertscore" in evaluation.metrics:  # early, so that errors come before decoding
            name, layer = evaluation.bertscore_model, evaluation.bertscore_layer
            encoder = world.on_rank_0(
                lambda: BertScore(name, layer, find_device(evaluation.device))
            )
        ledger = tokenizer = None
        if config.predictions is None:
            config = _with_precision(config, world, reporter)
            ledger = _claim(config, out, pairs, world, replace)
            if world.broadcast(ledger is not None and ledger.complete):
                reporter.info(f"all {len(pairs):,} articles are already decoded")
            else:
                tokenizer = decode_split(config, pairs, ledger, world, reporter, minutes)
        if not world.is_main:
            return None
        if config.predictions is not None:
            read = read_predictions(config.predictions)
            texts = read.of_pairs(pairs, found)
            decoded = [Decoded(number, [text], []) for number, text in enumerate(texts)]
            origin = {
                "predictions": str(config.predictions),
                "predictions_sha256": sha256(read.path),
                "data_sha256": pairs_hash(pairs),
            }
            _claim_for_predictions(out, origin)
        else:
            assert ledger is not None
            origin, decoded = decoding_settings(config, ledger), ledger.in_order()
        pairs = _with_cut_references(config, pairs, tokenizer)
        result = score(config, pairs, decoded, origin, reporter, ledger=ledger, encoder=encoder)
        if source.is_whole:
            result.settings["split"] = None
        out.mkdir(parents=True, exist_ok=True)
        save_config(config, out / "config.yaml")
        _write(result, pairs, out)
        return result


def _with_precision(config: EvaluateConfig, world: World, reporter: Reporter) -> EvaluateConfig:
    """Resolve the precision, to the same one on every rank."""
    evaluation = config.evaluation
    precision, notice = world.broadcast(
        choose_precision(evaluation.precision, find_device(evaluation.device))
    )
    if notice:
        reporter.info(notice)
    changed = evaluation.model_copy(update={"precision": precision})
    return config.model_copy(update={"evaluation": changed})


def _with_cut_references(
    config: EvaluateConfig, pairs: list[Pair], tokenizer: Tokenizer | None
) -> list[Pair]:
    """Truncate the references to the maximum length configured for the split.

    `tokenizer`: that of the model; None: it was not needed so far.
    """
    limit = getattr(config.data, f"max_{config.evaluation.split}_target_length", None)
    if limit is None:
        return pairs
    source: str | Path | None = config.data.tokenizer
    if source is None and config.model_path is not None:
        path = resolve_model(config.model_path)
        source = path.parent if path.is_file() else path
    if source is None:
        raise UsageError(
            f"data.max_{config.evaluation.split}_target_length={limit}: truncating the references "
            "of --predictions needs a tokenizer",
            hint="Pass --set data.tokenizer=FOLDER.",
        )
    tokenizer = tokenizer or Tokenizer.from_pretrained(source)
    tokenizer = tokenizer.fitted(tokenizer.vocab_size)  # references may have any token
    tokenizer = tokenizer.with_languages(config.data.source_language, config.data.target_language)
    cut = [tokenizer.cut_targets(list(pair.references), limit) for pair in pairs]
    return [
        with_changes(pair, target=texts[0], others=tuple(texts[1:]))
        for pair, texts in zip(pairs, cut, strict=True)
    ]


def _claim(
    config: EvaluateConfig, out: Path, pairs: Sequence[Pair], world: World, replace: bool
) -> Ledger | None:
    """Bind `out` to this evaluation, and open its ledger on rank 0 (None on other ranks)."""

    def claim() -> Ledger:
        _require_own(out)
        if recorded_settings(out).get("predictions"):
            raise UsageError(f"{out} holds the evaluation of predictions", hint=START_ANEW)
        ledger = open_ledger(out, origin_of(config, pairs), replace=replace)
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        save_config(config, out / "config.yaml")
        return ledger

    return world.on_rank_0(claim)


def _claim_for_predictions(out: Path, origin: dict[str, Any]) -> None:
    """Check that `out` has no evaluation, or one of these predictions and pairs."""
    _require_own(out)
    if (out / LEDGER).exists():
        raise UsageError(f"{out} holds the evaluation of a model", hint=START_ANEW)
    if before := read_object(out / "metrics.json").get("settings"):
        names = {"predictions_sha256": "file of predictions", "data_sha256": "text of the pairs"}
        inputs = ({name: one.get(key) for key, name in names.items()} for one in (before, origin))
        bind(out, "an evaluation", *(Record({}, one) for one in inputs))


def _require_own(out: Path) -> None:
    require_folder(out)
    if (out / "config.yaml").is_file() and recorded_settings(out).get("task") != "evaluate":
        raise UsageError(
            f"{out} is not an evaluation folder: its config.yaml belongs to something else",
            hint="Choose another --out.",
        )


def _write(result: Evaluation, pairs: Sequence[Pair], out: Path) -> None:
    lines = "".join(strict_json(row) + "\n" for row in result.predictions)
    with atomic_file(out / "predictions.jsonl") as temporary:
        # UTF-8 cannot encode a lone surrogate in a reference; write it as \udXXX, as in JSON.
        temporary.write_text(lines, encoding="utf-8", errors="backslashreplace")
    write_report(result, pairs, out / "report.html")
    write_text(
        out / "metrics.json", strict_json(result.numbers(), indent=2, ascii_only=True) + "\n"
    )
