"""`bart preprocess`: convert text to shards, and tokenize pairs."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from bart_cli.cli.console import ConsoleReporter, out, print_json, print_rows
from bart_cli.cli.options import JsonOption, OutOption, PairOptions, option, option_groups, setting
from bart_cli.config.data import SummarizationDataConfig, require_language
from bart_cli.config.generation import EvaluationConfig
from bart_cli.config.presets import load_config
from bart_cli.data.documents import Form
from bart_cli.errors import UsageError
from bart_cli.extras import require

app = typer.Typer(no_args_is_help=True, help="Prepare data for training.")

TokenizerOption = Annotated[
    str, option("Tokenizer folder or hub id, e.g. facebook/bart-base.", "--tokenizer")
]
LanguageOption = Annotated[str, setting(EvaluationConfig, "language")]


@app.command()
def pretrain(
    out_folder: OutOption,
    tokenizer: TokenizerOption,
    inputs: Annotated[
        list[str] | None,
        option(
            "Corpus as written by `bart download`: one document per line, id first. "
            "WEIGHT: copies of each document in an epoch (2.0: twice; 0.5: half of the documents).",
            "--input",
            metavar="NAME=PATH[:WEIGHT]",
        ),
    ] = None,
    texts: Annotated[
        list[Path] | None,
        option(
            "Text without ids: a file, or a folder with .txt or .jsonl files (also .gz).", "--text"
        ),
    ] = None,
    documents: Annotated[
        Literal["auto", "line", "blank-line"],
        option(
            "How documents in --text are separated. auto: by blank lines if there are any, "
            "else one document per line (unless the text is hard-wrapped)."
        ),
    ] = "auto",
    target_lengths: Annotated[
        list[int] | None, option("Tokens per sample; repeatable. Default: 128.", "--target-length")
    ] = None,
    shards: Annotated[
        int, option("Shards per target length; ideally a multiple of the number of ranks.")
    ] = 16,
    validation_share: Annotated[
        float, option("Share of the documents to hold out for validation.")
    ] = 0.01,
    cross_documents: Annotated[
        bool, option("Fill samples across document boundaries.", "--cross-documents")
    ] = False,
    deduplicate: Annotated[
        bool, option("Skip exact duplicates of documents.", "--deduplicate")
    ] = False,
    language: LanguageOption = "auto",
    workers: Annotated[
        int,
        option("Worker processes on this machine.", "--workers", "--processes", min=1, max=1024),
    ] = 2,
    scheduler: Annotated[
        str | None, option("Address of a running Dask scheduler: tcp://host:8786.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert corpora to balanced shards of token ids.

    Splits documents into sentences, tokenizes them and packs them into samples, without losing
    text. Rerun an interrupted command to resume it.

    [bold]bart preprocess pretrain --input wiki=data/wikipedia --tokenizer facebook/bart-base --out
    shards --target-length 128 --target-length 512[/bold]
    """
    from bart_cli.data.preprocess.pretrain import PreprocessSettings, preprocess_pretrain
    from bart_cli.tokenizer import Tokenizer

    require("bart preprocess pretrain", "data")

    form: Form = "plain" if documents == "blank-line" else documents
    named = [_named(text) for text in inputs or []]
    plain = [(path.stem, path, form) for path in texts or []]
    settings = PreprocessSettings(
        inputs=(*((name, path, "lines") for name, path, _ in named), *plain),
        weights=(*(weight for _, _, weight in named), *(1.0 for _ in plain)),
        target_lengths=tuple(dict.fromkeys(target_lengths or [128])),
        shards=shards,
        validation_share=validation_share,
        cross_documents=cross_documents,
        deduplicate=deduplicate,
        language=language,
    )
    report = preprocess_pretrain(
        settings,
        out_folder,
        Tokenizer.from_pretrained(tokenizer),
        workers=workers,
        scheduler=scheduler,
        reporter=ConsoleReporter(),
    )
    if as_json:
        print_json(asdict(report))
        return
    out.print(
        f"{report.documents:,} documents, {report.sentences:,} sentences, "
        f"{report.tokens:,} tokens, {report.tokens_lost} tokens lost"
        + (f"; {report.duplicates:,} duplicates skipped" if deduplicate else "")
    )
    if len(report.corpora) > 1 or any(corpus.weight != 1 for corpus in report.corpora):
        mixture = [
            (c.name, f"{c.weight:g}", f"{c.documents:,}", f"{c.tokens:,}", f"{c.share:.1%}")
            for c in report.corpora
        ]
        print_rows(mixture, "corpus", "weight", "documents", "tokens", "share")
    rows = []
    for key, samples in report.samples.items():
        low, high = report.shard_sizes[key]
        fill = f"{report.fill[key]:.1%}"
        rows.append((str(out_folder / key), f"{samples:,}", fill, f"{low:,} - {high:,}"))
    print_rows(rows, "shards", "samples", "mean fill", "samples per shard")


@app.command()
@option_groups
def summarization(
    source: Annotated[Path, setting(SummarizationDataConfig, "path", "--input", "--data")],
    out_folder: OutOption,
    tokenizer: TokenizerOption,
    pairs: PairOptions = PairOptions(),
    language: LanguageOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Check and tokenize article-summary pairs.

    Reads .jsonl, .json, .csv, .tsv, .parquet, .arrow and .source + .target files, optionally
    gzipped, and hub data sets. Skips pairs with an empty article or summary and, in the train
    split, duplicates and pairs whose summary equals the article. `bart finetune` and `bart
    evaluate` use the --language recorded here.

    [bold]bart preprocess summarization --input data/cnn_dm --tokenizer facebook/bart-base --out
    data/cnn_dm-tokens[/bold]

    [bold]bart preprocess summarization --input my.csv --validation-share 0.05 --test-share 0.05
    --tokenizer facebook/bart-base --out data/my-tokens[/bold]
    """
    from bart_cli.data.preprocess.summarization import preprocess_summarization
    from bart_cli.tokenizer import Tokenizer

    require_language(language)
    reports = preprocess_summarization(
        load_config(SummarizationDataConfig, options={"path": source} | asdict(pairs)),
        out_folder,
        Tokenizer.from_pretrained(tokenizer),
        language=language,
        reporter=ConsoleReporter(),
    )
    if as_json:
        print_json({split: asdict(report) for split, report in reports.items()})
        return
    rows = []
    for split, report in reports.items():
        dropped = ", ".join(f"{n:,} {reason}" for reason, n in report.dropped.items() if n)
        spreads = [
            f"median {a:,}, 95% {b:,}, max {c:,}"
            for a, b, c in (report.source_tokens, report.target_tokens)
        ]
        rows.append((split, f"{report.read:,}", f"{report.kept:,}", *spreads, dropped or "none"))
    print_rows(rows, "split", "read", "kept", "article tokens", "summary tokens", "skipped")


def _named(text: str) -> tuple[str, Path, float]:
    """Parse NAME=PATH[:WEIGHT] into name, path and weight of a corpus."""
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise UsageError(f"--input {text}: expected NAME=PATH, for example wiki=data/wikipedia")
    folder, _, weight = path.rpartition(":")
    if folder and re.fullmatch(r"\d+(\.\d*)?|\.\d+", weight) and not Path(path).exists():
        return name, Path(folder), float(weight)
    return name, Path(path), 1.0
