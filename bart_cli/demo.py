"""`bart demo`: run the whole pipeline on the built-in sample and tabulate the results.

Sample -> tokenizer -> shards and pairs -> pre-training -> fine-tuning (from the pre-trained model,
and from scratch for comparison) -> evaluation. Each stage calls the function behind the command of
the same name. Rerun an interrupted demo to resume it.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.presets import load_config
from bart_cli.config.run import EvaluateConfig, FinetuneConfig, PretrainConfig
from bart_cli.data.documents import read_texts
from bart_cli.data.download.sample import write_sample
from bart_cli.data.pairs import read_pairs
from bart_cli.data.preprocess.pretrain import PreprocessSettings, preprocess_pretrain
from bart_cli.data.preprocess.summarization import preprocess_summarization
from bart_cli.errors import BartError
from bart_cli.evaluation.evaluate import run_evaluate
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import exclusive
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.finetune import run_finetune
from bart_cli.training.pretrain import run_pretrain
from bart_cli.training.run import RunResult

VOCABULARY = 2500
SHARDS = 8
SHOWN = 3  # example articles in the report


@dataclass
class DemoReport:
    """Pre-training losses, ROUGE by system, examples, and seconds by stage.

    Each example has the article, the reference summary and the prediction.
    """

    first_loss: float | None = None  # of the steps that were logged
    last_loss: float | None = None
    rouge: dict[str, dict[str, float]] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    model: Path = Path()


@exclusive
def run_demo(
    out: Path,
    *,
    megabytes: float = 20.0,
    test: int = 500,
    sets: list[str] | None = None,
    reporter: Reporter,
) -> DemoReport:
    """Run all stages in folders below `out`; `sets` override both training presets."""
    report = DemoReport()
    sample, prepared, pairs = out / "sample", out / "prepared", out / "sample" / "summarization"
    sets = sets or []
    with _stage("sample", report, reporter):
        if (pairs / "test.jsonl").is_file():  # written last
            reporter.info(f"{sample} already exists")
        else:
            write_sample(sample, megabytes=megabytes, test=test, reporter=reporter)
    with _stage("preprocess", report, reporter):
        _prepare(sample, prepared, reporter)
    with _stage("pre-train", report, reporter):
        options: dict[str, object] = {"data.path": prepared / "shards"}
        config = load_config(PretrainConfig, preset="tiny-cpu", sets=sets, options=options)
        result = _finished(run_pretrain(config, out / "pretrained", reporter=reporter))
        report.first_loss, report.last_loss = result.first_loss, result.last_loss
    options = {"data.path": prepared / "pairs"}
    tuning = load_config(FinetuneConfig, preset="tiny-cpu-finetune", sets=sets, options=options)
    for name, init_from in {"pre-trained": str(out / "pretrained"), "from scratch": None}.items():
        run = out / f"finetuned-{name.replace(' ', '-')}"
        with _stage(f"fine-tune {name}", report, reporter):
            # Set after loading: `--set model.…` applies to the run from scratch, and conflicts.
            own = tuning.model_copy(update={"init_from": init_from})
            _finished(run_finetune(own, run, reporter=reporter))
        with _stage(f"evaluate {name}", report, reporter):
            _evaluate(pairs, run, name, report, reporter)
    report.model = out / "finetuned-pre-trained"
    return report


def _finished(result: RunResult) -> RunResult:
    """Return the result; raise BartError if a signal or the time limit stopped the run."""
    if result.model is None:
        number = signal.Signals.__members__.get(result.outcome.removeprefix("stopped by "))
        raise BartError(
            f"{result.outcome} at step {result.step:,} of {result.run}",
            hint="Rerun the command to resume.",
            exit_code=128 + number if number else 1,
        )
    return result


@contextmanager
def _stage(name: str, report: DemoReport, reporter: Reporter) -> Iterator[None]:
    reporter.info(f"── {name}")
    begin = time.monotonic()
    yield
    report.seconds[name] = time.monotonic() - begin


def _prepare(sample: Path, prepared: Path, reporter: Reporter) -> None:
    corpus, folder = sample / "pretrain", prepared / "tokenizer"
    if not (folder / "merges.txt").is_file():  # written last
        with reporter.task("train the tokenizer") as task:
            Tokenizer.train(read_texts(corpus, "lines"), VOCABULARY).save(folder)
            task.advance()
    tokenizer = Tokenizer.from_pretrained(folder)
    settings = PreprocessSettings(inputs=(("sample", corpus, "lines"),), shards=SHARDS)
    preprocess_pretrain(settings, prepared / "shards", tokenizer, reporter=reporter)
    pairs = SummarizationDataConfig(path=sample / "summarization")
    preprocess_summarization(pairs, prepared / "pairs", tokenizer, reporter=reporter)


def _evaluate(pairs: Path, run: Path, name: str, report: DemoReport, reporter: Reporter) -> None:
    options = {"model_path": str(run), "data.path": pairs}
    config = load_config(EvaluateConfig, config_file=run / "config.yaml", options=options)
    result = run_evaluate(config, run / "evaluation-test", reporter=reporter)
    assert result is not None  # one process
    report.rouge[f"fine-tuned, {name}"] = result.rouge
    if not report.examples:
        report.rouge["lead-2 baseline"] = result.baselines["lead-2"]
        articles = {pair.id: pair.source for pair in read_pairs(pairs, "test")}
        report.examples = [
            {"article": articles[row["id"]]} | {k: row[k] for k in ("reference", "prediction")}
            for row in result.predictions[:SHOWN]
        ]
