"""`bart evaluate`: decode a split, score it, keep predictions and numbers.

Writes OUT/config.yaml, OUT/predictions.jsonl (one line per article, in order) and OUT/metrics.json.
Decoding is kept article by article, so an evaluation that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bart_cli.config.run import EvaluateConfig, FinetuneConfig, save_config
from bart_cli.data.pairs import Pair, read_pairs
from bart_cli.errors import UsageError
from bart_cli.evaluation.baselines import LEADS, lead
from bart_cli.evaluation.rouge import rouge_scores
from bart_cli.files import write_text
from bart_cli.inference.generate import generate
from bart_cli.inference.load import load_for_inference
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Evaluation:
    """The numbers and where they lie.

    rouge: F1 in percent by kind; interval: 95% bootstrap; baselines: 'lead-N' -> rouge.
    latency: seconds per batch, mean and percentiles; throughput: articles per second; both None
    when all predictions were there before.
    """

    out: Path
    articles: int
    rouge: dict[str, float]
    interval: dict[str, tuple[float, float]]
    baselines: dict[str, dict[str, float]]
    latency: dict[str, float] | None
    throughput: float | None
    predictions: list[dict[str, Any]]


def evaluation_of(config: FinetuneConfig, run: Path) -> EvaluateConfig:
    """The evaluation of a fine-tuned run on its own test split, with its own settings."""
    return EvaluateConfig(
        model_path=str(run),
        data=config.data,
        generation=config.generation,
        evaluation=config.evaluation,
    )


def run_evaluate(config: EvaluateConfig, out: Path, *, reporter: Reporter) -> Evaluation:
    """Score a model on a split.

    Raises:
        UsageError: no model, no data, an `out` that holds another evaluation.
    """
    if config.model_path is None:
        raise UsageError("no model: give --model with a run, a model folder or a hub id")
    if config.data.path is None:
        raise UsageError("no data: give --data with a folder of pairs (test.jsonl …)")
    evaluation = config.evaluation
    pairs = read_pairs(
        config.data.path, evaluation.split, limit=evaluation.limit or config.data.n_test
    )
    loaded = load_for_inference(
        config.model_path,
        evaluation.precision,
        config.data.tokenizer,
        device=evaluation.device,
    )
    _claim(config, out, reporter)
    path = out / "predictions.jsonl"
    done = _read_predictions(path)
    if done:
        reporter.info(f"{len(done):,} of {len(pairs):,} predictions are there already")
    seconds: list[float] = []
    with (
        reporter.task("decode", total=len(pairs), unit="articles") as task,
        path.open("a", encoding="utf-8") as file,
    ):
        task.advance(len(done))
        for begin in range(len(done), len(pairs), evaluation.batch_size):
            part = pairs[begin : begin + evaluation.batch_size]
            start = time.perf_counter()
            rows = _predict(part, loaded.model, loaded.tokenizer, config)
            seconds.append(time.perf_counter() - start)
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            file.flush()
            done += rows
            task.advance(len(part))
    return _score(config, out, pairs, done, seconds, reporter)


def _predict(
    pairs: Sequence[Pair], model: Any, tokenizer: Tokenizer, config: EvaluateConfig
) -> list[dict[str, Any]]:
    sources = tokenizer.encode_batch(
        [pair.source for pair in pairs], max_length=config.data.max_source_length
    )
    found = generate(
        model,
        sources,
        config.generation,
        batch_size=config.evaluation.batch_size,
        max_tokens=config.evaluation.max_tokens,
    )
    rows = []
    for pair, hypotheses in zip(pairs, found, strict=True):
        texts = tokenizer.decode_batch([h.tokens for h in hypotheses])
        row: dict[str, Any] = {"id": pair.id, "prediction": texts[0].strip()}
        if len(texts) > 1:
            row["others"] = [text.strip() for text in texts[1:]]
        rows.append(row | {"score": hypotheses[0].score, "reference": pair.target})
    return rows


def _score(
    config: EvaluateConfig,
    out: Path,
    pairs: list[Pair],
    rows: list[dict[str, Any]],
    seconds: list[float],
    reporter: Reporter,
) -> Evaluation:
    evaluation = config.evaluation
    references = [pair.target for pair in pairs]
    candidates = {"model": [row["prediction"] for row in rows]}
    candidates |= {f"lead-{n}": [lead(pair.source, n) for pair in pairs] for n in LEADS}
    scored = {}
    with reporter.task("score", total=len(candidates), unit="systems") as task:
        for name, texts in candidates.items():
            scored[name] = rouge_scores(
                texts,
                references,
                stemmer=evaluation.stemmer,
                bootstrap=evaluation.bootstrap if name == "model" else 0,
                workers=2,
            )
            task.advance()
    ours = scored.pop("model")
    decoded = len(pairs) if seconds else 0
    result = Evaluation(
        out=out,
        articles=len(pairs),
        rouge=ours.mean,
        interval=ours.interval,
        baselines={name: scores.mean for name, scores in scored.items()},
        latency=_latency(seconds) if seconds else None,
        throughput=decoded / sum(seconds) if seconds else None,
        predictions=rows,
    )
    numbers = {k: v for k, v in vars(result).items() if k not in ("out", "predictions")}
    write_text(out / "metrics.json", json.dumps(numbers, indent=2) + "\n")
    return result


def _latency(seconds: list[float]) -> dict[str, float]:
    spread = {f"p{p}": float(np.percentile(seconds, p)) for p in PERCENTILES}
    return {"mean": float(np.mean(seconds))} | spread


def _claim(config: EvaluateConfig, out: Path, reporter: Reporter) -> None:
    """Bind `out` to this configuration; predictions of another one are not mixed in."""
    from bart_cli.config.presets import load_config

    path = out / "config.yaml"
    if path.is_file() and load_config(EvaluateConfig, config_file=path) != config:
        raise UsageError(
            f"{out} holds an evaluation with other settings",
            hint="choose another --out, or delete that folder",
        )
    out.mkdir(parents=True, exist_ok=True)
    save_config(config, path)


def _read_predictions(path: Path) -> list[dict[str, Any]]:
    """Complete lines of a stopped evaluation; a last line cut by a crash is dropped."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(path, lines)
    return rows
