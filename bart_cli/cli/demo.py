"""`bart demo`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from rich.text import Text

from bart_cli.cli.console import ConsoleReporter, out, print_json, print_rows, say
from bart_cli.cli.options import JsonOption, OutOption, SetOption, option
from bart_cli.extras import require

KINDS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeLsum": "ROUGE-Lsum"}


def command(
    out_folder: OutOption = Path("demo"),
    megabytes: Annotated[
        float, option("Size of the pre-training corpus in MB.", min=0.01, max=1000)
    ] = 20.0,
    test: Annotated[int, option("Number of test articles to score.", min=3)] = 500,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole pipeline on the built-in sample, in minutes, on a CPU.

    Pre-trains a small BART on text from an invented world, fine-tunes it to summarize, and compares
    it with the same fine-tuning from scratch and with the first two sentences of each article.
    """
    require("bart demo", "data", "eval")
    from bart_cli.demo import run_demo

    report = run_demo(
        out_folder, megabytes=megabytes, test=test, sets=sets, reporter=ConsoleReporter()
    )
    if as_json:
        print_json(asdict(report))
        return
    for number, example in enumerate(report.examples, 1):
        out.print()
        for name, text in example.items():
            name = f"article {number}" if name == "article" else name
            out.print(Text.assemble((f"{name:<10}", "bold"), f" {text}"), soft_wrap=True)
    out.print()
    if report.first_loss is not None and report.last_loss is not None:
        out.print(f"pre-training loss: {report.first_loss:.3f} -> {report.last_loss:.3f}")
    ranked = sorted(report.rouge.items(), key=lambda item: -item[1]["rouge2"])
    rows = [[name, *(f"{rouge[kind]:.2f}" for kind in KINDS)] for name, rouge in ranked]
    print_rows(rows, "test split", *KINDS.values())
    spent = ", ".join(f"{name} {seconds:.0f}" for name, seconds in report.seconds.items())
    say(f"{sum(report.seconds.values()):.0f} seconds: {spent}")
    say(f"\nsummarize your own text:  bart summarize FILE.txt --model {report.model}")
