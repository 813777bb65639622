"""Score predictions: ROUGE and other metrics of the model, and ROUGE of the lead baselines.

In: pairs and their predictions, from the ledger or from a file. Out: an `Evaluation`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import bart_cli
from bart_cli.config.run import EvaluateConfig
from bart_cli.data.pairs import Pair
from bart_cli.data.sentences import AUTO, split_sentences
from bart_cli.evaluation.bertscore import BertScore
from bart_cli.evaluation.compare import reference_columns
from bart_cli.evaluation.content import Measures, measure
from bart_cli.evaluation.ledger import Decoded, Ledger
from bart_cli.evaluation.rouge import (
    KINDS,
    RougeScores,
    score_systems,
    share_without_words,
    word_pattern,
)
from bart_cli.progress import Reporter
from bart_cli.runtime.cores import usable_cores

PERCENTILES = (50, 90, 95, 99)
LOST = 0.1  # warn if this share of references loses most of its letters as ASCII words
LEADS = (1, 2, 3)  # sentences of the lead-N baselines
RECORDED = ("split", "limit", "stemmer", "tokenizer", "language", "bootstrap")
MODEL = "model"  # name of the evaluated system; the others are baselines


@dataclass(frozen=True)
class Evaluation:
    """The content of `metrics.json`, and the predictions."""

    articles: int
    cut: int  # truncated articles
    rouge: dict[str, float]  # mean F1 in percent by metric
    interval: dict[str, tuple[float, float]]  # 95% bootstrap confidence intervals of these means
    baselines: dict[str, dict[str, float]]  # the same for each baseline, 'lead-N'
    baseline_intervals: dict[str, dict[str, tuple[float, float]]]
    bleu: dict[str, float]  # system -> BLEU; empty unless requested
    bleu_signature: str | None  # of sacrebleu
    # means of the measures in `evaluation.metrics`, for the model and the references
    metrics: dict[str, dict[str, float]]
    bertscore_signature: str | None  # model, layer and versions of BERTScore
    # seconds per batch: mean, percentiles and maximum over all batches, including those before a
    # resume; empty for predictions from a file
    latency: dict[str, float]
    # articles per second, over all processes; None for predictions from a file
    throughput: float | None
    words: dict[str, float]  # mean number of words of articles, references and predictions
    settings: dict[str, Any]  # settings that affect the predictions or the scores
    predictions: list[dict[str, Any]] = field(repr=False)  # rows of `predictions.jsonl`
    each: dict[str, list[float]] = field(repr=False)  # F1 of each article by metric

    def numbers(self) -> dict[str, Any]:
        """Return all attributes except those with an item for each article."""
        return {k: v for k, v in vars(self).items() if k not in ("predictions", "each")}


def lead(article: str, sentences: int, language: str = AUTO) -> str:
    """Return the first sentences of an article, one per line: the lead-N baseline."""
    return "\n".join(split_sentences(article, language)[:sentences])


def score(
    config: EvaluateConfig,
    pairs: Sequence[Pair],
    decoded: Sequence[Decoded],
    origin: dict[str, Any],
    reporter: Reporter,
    *,
    ledger: Ledger | None = None,
    encoder: BertScore | None = None,
) -> Evaluation:
    """Score predictions.

    Args:
        decoded: hypotheses of each pair, in order.
        origin: settings of the predictions, to be recorded.
        ledger: record of decoding; None for predictions from a file.
        encoder: encoder for BERTScore; None: do not compute it.
    """
    language = config.evaluation.language
    systems = {MODEL: [article.texts[0] for article in decoded]}
    systems |= {f"lead-{n}": [lead(pair.source, n, language) for pair in pairs] for n in LEADS}
    references = [pair.references for pair in pairs]
    scored = _rouge(config, systems, references, reporter)
    bleu, signature = _bleu(systems, references) if config.evaluation.bleu else ({}, None)
    metrics, rows = _metrics(config, pairs, systems[MODEL], encoder, reporter)
    ours = scored.pop(MODEL)
    return Evaluation(
        articles=len(pairs),
        cut=ledger.cut if ledger else 0,
        rouge=ours.mean,
        interval=ours.interval,
        baselines={name: scores.mean for name, scores in scored.items()},
        baseline_intervals={name: scores.interval for name, scores in scored.items()},
        bleu=bleu,
        bleu_signature=signature,
        metrics=metrics,
        bertscore_signature=encoder.signature if encoder else None,
        latency=_latency([batch.seconds for batch in ledger.batches.values()]) if ledger else {},
        throughput=len(pairs) / ledger.wall if ledger else None,
        words={
            "article": _mean_words([pair.source for pair in pairs], config),
            "reference": _mean_words([pair.target for pair in pairs], config),
            "prediction": _mean_words(systems[MODEL], config),
        },
        settings=origin
        | {
            "data": str(config.data.path),
            **{name: getattr(config.evaluation, name) for name in RECORDED},
            "version": bart_cli.__version__,
        },
        predictions=[
            _row(pair, article, ours) | row
            for pair, article, row in zip(pairs, decoded, rows, strict=True)
        ],
        each=ours.each,
    )


def decoding_settings(config: EvaluateConfig, ledger: Ledger) -> dict[str, Any]:
    """Return the settings that the predictions were decoded with, to be recorded."""
    evaluation = config.evaluation
    return {
        "model": config.model_path,
        "model_sha256": ledger.origin.model,
        "data_sha256": ledger.origin.pairs,
        "precision": evaluation.precision,
        "devices": ledger.devices,
        "batch_size": evaluation.batch_size,
        "batches": len(ledger.batches),
        "max_source_length": config.data.max_source_length,
        "generation": config.generation.model_dump(mode="json"),
        "generation_sources": config.generation_sources,
    }


def _rouge(
    config: EvaluateConfig,
    systems: dict[str, list[str]],
    references: list[tuple[str, ...]],
    reporter: Reporter,
) -> dict[str, RougeScores]:
    evaluation = config.evaluation
    firsts = [first for first, *_ in references]
    if evaluation.tokenizer == "ascii" and (lost := share_without_words(firsts)) > LOST:
        reporter.warn(
            f"ROUGE reads only the letters a-z, so it drops most of the text in {lost:.0%} of "
            "the references. Pass --rouge-tokenizer unicode to compare words of any script."
        )
    with reporter.task("score", total=len(systems) * len(references), unit="summaries") as task:
        return score_systems(
            systems,
            references,
            evaluation,
            bootstrap=evaluation.bootstrap,
            workers=usable_cores(),
            advance=task.advance,
        )


def _bleu(
    systems: dict[str, list[str]], references: list[tuple[str, ...]]
) -> tuple[dict[str, float], str]:
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    columns: Any = reference_columns(references)  # sacrebleu's annotation has no None
    scores = {name: metric.corpus_score(texts, columns).score for name, texts in systems.items()}
    return scores, str(metric.get_signature())


def _metrics(
    config: EvaluateConfig,
    pairs: Sequence[Pair],
    predictions: list[str],
    encoder: BertScore | None,
    reporter: Reporter,
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    """Compute `evaluation.metrics`: means by system, and the model's values by article."""
    wanted = [name for name in config.evaluation.metrics if name != "bertscore"]
    rows: list[dict[str, Any]] = [{} for _ in pairs]
    if not config.evaluation.metrics:
        return {}, rows
    means: dict[str, dict[str, float]] = {MODEL: {}}
    articles = [pair.source for pair in pairs]
    texts = {MODEL: predictions, "reference": [pair.target for pair in pairs]}
    for system, summaries in texts.items() if wanted else ():
        contents = measure(articles, summaries, wanted, config.evaluation.language)
        means[system] = _means([content.measures for content in contents])
        if system == MODEL:
            for row, content in zip(rows, contents, strict=True):
                row |= {
                    name: value if value is None else round(value, 2)
                    for name, value in content.measures.items()
                }
                if "coverage" in wanted:
                    row["not_in_article"] = [*content.names, *content.numbers]
    if encoder is not None:
        with reporter.task("BERTScore", total=len(pairs), unit="summaries") as task:
            references = [pair.references for pair in pairs]
            scores = encoder.scores(predictions, references, task.advance)
        means[MODEL]["bertscore"] = float(np.mean(scores))
        for row, value in zip(rows, scores, strict=True):
            row["bertscore"] = round(value, 2)
    return means, rows


def _means(rows: Sequence[Measures]) -> dict[str, float]:
    """Average each measure over the summaries for which it is defined."""
    found = {name: [value for row in rows if (value := row[name]) is not None] for name in rows[0]}
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _row(pair: Pair, article: Decoded, rouge: RougeScores) -> dict[str, Any]:
    row: dict[str, Any] = {"id": pair.id, "prediction": article.texts[0]}
    if len(article.texts) > 1:
        row["others"] = [
            {"prediction": text, "score": score}
            for text, score in zip(article.texts[1:], article.scores[1:], strict=True)
        ]
    row["reference"] = pair.target
    if pair.others:
        row["references"] = list(pair.references)
    if article.scores:
        row["score"] = article.scores[0]
    return row | {kind: round(rouge.each[kind][article.index], 2) for kind in KINDS}


def _latency(seconds: Sequence[float]) -> dict[str, float]:
    spread = {f"p{p}": float(np.percentile(seconds, p)) for p in PERCENTILES}
    return {"mean": float(np.mean(seconds))} | spread | {"max": float(np.max(seconds))}


def _mean_words(texts: Sequence[str], config: EvaluateConfig) -> float:
    """Count words separated by spaces, or with the unicode tokenizer, words of any script."""
    in_any_script = config.evaluation.tokenizer == "unicode"
    split: Callable[[str], list[str]] = (
        word_pattern("unicode").findall if in_any_script else str.split
    )
    return float(np.mean([len(split(text)) for text in texts]))
