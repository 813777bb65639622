"""The `bart` command: finds the sub-command's module, runs it, turns errors into one clear line.

Only the module of the sub-command that was asked for is imported, so that `bart --help` is instant.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Sequence

import typer

from bart_cli import __version__
from bart_cli.errors import BartError

COMMANDS = {
    "demo": "The whole road on the embedded sample, in minutes, on a CPU.",
    "download": "Get corpora: CC-NEWS, Wikipedia, OpenWebText, CNN-DM, XSum, or the sample.",
    "preprocess": "Turn text into shards for pre-training, pairs into tokens for fine-tuning.",
    "pretrain": "Pre-train BART on shards by denoising.",
    "finetune": "Fine-tune a pre-trained model on pairs of article and summary.",
    "evaluate": "Score a model on a test split: ROUGE, latency, a report.",
    "benchmark": "Measure the speed of training, decoding and data.",
    "summarize": "Summarize files, folders or standard input.",
    "presets": "List, show and compare the presets.",
    "tokenizer": "Train a byte-level BPE tokenizer.",
    "data": "Look into prepared data.",
    "runs": "List, show and compare runs.",
    "launch": "Print job scripts for clusters.",
}

RANK_0_SECONDS = 20.0  # what rank 0 gets to say what is wrong, before another rank does
INTERRUPTED = 130  # 128 + SIGINT, as shells count

HELP = """BART from corpus to summary: download, preprocess, pretrain, finetune, evaluate.

Start with [bold]bart demo[/bold], or with a file of yours: [bold]bart summarize file.txt[/bold].
"""


def build_app(requested: str | None, *, everything: bool = False) -> typer.Typer:
    """The Typer application; only the requested sub-command is real, the others are names."""
    app = typer.Typer(
        name="bart",
        help=HELP,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ) -> None:
        pass

    for name, summary in COMMANDS.items():
        if name == requested or everything:
            module = importlib.import_module(f"bart_cli.cli.{name}")
            if hasattr(module, "app"):
                app.add_typer(module.app, name=name, short_help=summary)
            else:
                app.command(name, short_help=summary)(module.command)
        else:
            app.command(name, help=summary)(_not_loaded)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 good, 1 the run failed, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    requested = next((word for word in given if not word.startswith("-")), None)
    app = build_app(requested, everything="_BART_COMPLETE" in os.environ)
    try:
        code = app(args=given or ["--help"], prog_name="bart", standalone_mode=False)
        if code == INTERRUPTED:  # newer Typers turn Ctrl-C into this code
            raise KeyboardInterrupt
    except BartError as error:
        code = fail(error)
    except KeyboardInterrupt:
        code = fail(BartError("interrupted", exit_code=INTERRUPTED))
    except BrokenPipeError:
        # The reader of our output went away (`bart … | head`): not an error worth a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = fail(BartError(f"{where}{error.strerror or error}"))
    except Exception as error:
        # Typer's own errors differ in module between its versions, not in these two attributes.
        if not (hasattr(error, "exit_code") and hasattr(error, "format_message")):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
            code = 2
        else:
            tip = f"`{_path(error)} --help` shows what is allowed"
            code = fail(BartError(error.format_message(), hint=tip, exit_code=error.exit_code))
    sys.exit(code if isinstance(code, int) else 0)


def fail(error: BartError) -> int:
    """Print the error line (and the hint) to standard error; the exit code comes back."""
    from bart_cli.cli.console import print_error

    if error.exit_code == 2 and os.environ.get("RANK", "0") != "0":
        # Wrong usage is mostly wrong on every rank: rank 0 says it, the launcher ends the others.
        time.sleep(RANK_0_SECONDS)
    print_error(error)
    return error.exit_code


def _path(error: object) -> str:
    context = getattr(error, "ctx", None)
    return getattr(context, "command_path", "bart")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bart {__version__}")
        raise typer.Exit


def _not_loaded() -> None:
    """Stands for a sub-command in the list of `bart --help`; `main` loads the one it runs."""
    raise AssertionError("a sub-command ran without being loaded")
