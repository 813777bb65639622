"""`bart summarize`."""

import sys
from contextlib import nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from bart_cli.cli.console import ConsoleReporter, out, say
from bart_cli.cli.generation import DecodingOptions, ModelOption, load_summarizer
from bart_cli.cli.options import CheckpointOption, ConfigOptions, option, option_groups, setting
from bart_cli.config.commands import SummarizeConfig
from bart_cli.config.presets import load_config
from bart_cli.errors import BartError, UsageError
from bart_cli.files import is_special


@option_groups
def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files (.txt, .md, .html, .docx, .pdf, .jsonl, each also as .gz, .bz2 or .xz; "
            "others are read as text), folders with such files (subfolders are not read), quoted "
            "patterns such as 'news/**/*.txt', web pages (https://…), or - for standard input. "
            "Default: standard input, unless it is a terminal.",
            metavar="FILE",
        ),
    ] = None,
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    out_file: Annotated[
        Path | None,
        option(
            "File for the results, written atomically. Rerun an interrupted command to resume "
            "JSON lines.",
            "--out",
        ),
    ] = None,
    form: Annotated[str | None, setting(SummarizeConfig, "format", "--format")] = None,
    jsonl: Annotated[bool, setting(SummarizeConfig, "jsonl", "--jsonl")] = False,
    field: Annotated[str | None, setting(SummarizeConfig, "field", metavar="NAME")] = None,
    long: Annotated[str | None, setting(SummarizeConfig, "long")] = None,
    decoding: DecodingOptions = DecodingOptions(),
    settings: ConfigOptions = ConfigOptions(),
    as_json: Annotated[
        bool, option("Same as --format json: print one JSON document.", "--json")
    ] = False,
) -> None:
    """Summarize text.

    Each file is one text, except that each line of a .jsonl file is one. The main text of .html
    files is extracted. Results are printed in order as they become available. Decoding settings
    come from the model, overridden by --preset or --config and then by options.

    A JSON record contains file, line and id (for JSON lines), summary, others (with
    --return-sequences), score, source_tokens, used_tokens (fewer if the text was truncated), pieces
    and decoding (settings that differ from the default, with their source), or error instead of a
    summary. The exit code is 1 if there was any error.

    [bold]bart summarize article.txt --model runs/finetune[/bold]

    [bold]bart summarize 'news/*.html' --long chunk --out summaries.jsonl[/bold]

    [bold]cat article.txt | bart summarize[/bold]

    [bold]cat articles.jsonl | bart summarize - --jsonl --field body > summaries.jsonl[/bold]
    """
    from bart_cli.summarize.inputs import check_out, find_inputs

    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} cannot be combined")
    given = {"jsonl": jsonl, "field": field, "long": long, "format": "json" if as_json else form}
    config = load_config(SummarizeConfig, options=given)
    reporter = ConsoleReporter()
    if not files:
        if sys.stdin.isatty():
            raise UsageError(
                "no input: expected a file, folder, pattern or URL",
                hint="Pass one, or pipe text in: cat article.txt | bart summarize",
            )
        files = ["-"]
    if "-" in files and sys.stdin.isatty():
        reporter.info("reading from the terminal; press Ctrl-D to end the text")
    inputs = find_inputs(files, jsonl=config.jsonl, reporter=reporter)
    if out_file is not None:
        check_out(out_file, inputs)
    heading = _heading if out_file is None else str
    stream = sys.stdout  # bound here, because a live progress bar replaces `sys.stdout`
    if out_file is not None and is_special(out_file):
        stream, out_file = out_file.open("w"), None

    summarizer, loaded, evaluation = load_summarizer(
        model, checkpoint, decoding, settings, reporter
    )
    from bart_cli.progress import Task
    from bart_cli.summarize.run import Job, choose_format, summarize_to_file, summarize_to_stream

    chosen = choose_format(config, out_file, inputs)
    lines = any(item.kind == "jsonl" for item in inputs)
    job = Job(
        inputs=inputs,
        config=config,
        form=chosen,
        batch_size=evaluation.batch_size,
        max_tokens=evaluation.max_tokens,
        precision=loaded.precision,
        heading=heading if lines or len(inputs) > 1 else None,
    )
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(encoding=None if chosen == "text" else "utf-8", errors="replace")
    total = None if lines else len(inputs)
    # Summaries printed on the terminal show progress themselves; a bar would disturb them.
    shown = out_file is not None or not stream.isatty()
    with reporter.task("summarize", total, "texts") if shown else nullcontext(Task()) as task:
        if out_file is None:
            counts = summarize_to_stream(summarizer, job, stream, reporter=reporter, task=task)
        else:
            counts = summarize_to_file(summarizer, job, out_file, reporter=reporter, task=task)
    if out_file is not None:
        count = counts.done - counts.failed
        noun = "summary" if count == 1 else "summaries"
        say(f"{count:,} {noun} in {out_file}")
    if not counts.done:
        reporter.warn("the input has no lines to summarize")
    if counts.short and lines:
        reporter.warn(
            f"{counts.short:,} of {counts.done:,} texts have fewer tokens than "
            f"min_length={summarizer.generation.min_length}: their summaries will contain "
            "invented text"
        )
    if counts.cut and lines:
        reporter.warn(
            f"{counts.cut:,} of {counts.done:,} texts were longer than the model's "
            f"{summarizer.source_length:,} tokens and were truncated (pass --long chunk to read "
            "all of them)"
        )
    if counts.failed:
        raise BartError(
            f"{counts.failed:,} of {counts.done:,} inputs could not be summarized",
            hint=None if chosen == "text" else "See the field `error` in their records.",
        )


def _heading(name: str) -> str:
    with out.capture() as captured:
        out.print(Text(name, style="bold"), soft_wrap=True, end="")
    return captured.get()
