"""The `bart` command: dispatch to the module of a sub-command, and print errors as one line.

Only the module of the requested sub-command is imported, so that `bart --help` is fast.
"""

import importlib
import inspect
import os
import re
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

import typer

from bart_cli import __version__
from bart_cli.errors import BartError, UsageError, did_you_mean
from bart_cli.runtime import interrupts
from bart_cli.runtime.cores import configure_threads

COMMANDS = {
    "demo": "Run the whole pipeline on the built-in sample, in minutes, on a CPU.",
    "download": "Download corpora: CC-NEWS, Wikipedia, OpenWebText, CNN-DM, XSum, a sample.",
    "preprocess": "Convert text to shards for pre-training, and tokenize pairs for fine-tuning.",
    "pretrain": "Pre-train BART on shards by denoising.",
    "finetune": "Fine-tune a pre-trained model on article-summary pairs.",
    "sweep": "Train every combination of some settings and compare the results.",
    "evaluate": "Score a model on a test split with ROUGE, measure its speed, and write a report.",
    "compare": "Compare two sets of predictions and test whether they differ significantly.",
    "benchmark": "Measure the speed of training, decoding and data loading.",
    "summarize": "Summarize files, folders, web pages, JSON lines or standard input.",
    "serve": "Serve summaries over HTTP, with an API and a web page.",
    "export": "Export a model for other libraries, with a model card; push it to the hub.",
    "presets": "List, show and compare presets.",
    "tokenizer": "Train a byte-level BPE tokenizer.",
    "data": "Inspect corpora, pairs and shards.",
    "runs": "List, show, compare and watch runs.",
    "launch": "Print job scripts for clusters.",
    "doctor": "Check this machine and suggest fixes.",
}

RANK_0_SECONDS = 20.0  # time for rank 0 or the launcher to report an error before other ranks do
VOICES = ("-q", "--quiet", "-v", "--verbose")  # accepted before and after the sub-command
INTERRUPTED = (130, 143)  # 128 + SIGINT, 128 + SIGTERM, as in shells

HELP = """BART from corpus to summary: download, preprocess, pretrain, finetune, evaluate.

Start with [bold]bart demo[/bold], or with your own text: [bold]bart summarize file.txt[/bold].
"""


def build_app(requested: str | None, *, everything: bool = False) -> typer.Typer:
    """Build the Typer application, with placeholders for all but the requested sub-command."""
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
        quiet: bool = typer.Option(
            False, "--quiet", "-q", help="Hide progress; print results, warnings and errors only."
        ),
        verbose: bool = typer.Option(
            False, "--verbose", "-v", help="Also print log messages from libraries and tracebacks."
        ),
    ) -> None:
        if quiet or verbose:
            from bart_cli.cli.console import set_voice

            set_voice(quiet=quiet, verbose=verbose)

    for name, summary in COMMANDS.items():
        if name == requested or everything:
            module = importlib.import_module(f"bart_cli.cli.{name}")
            if hasattr(module, "app"):
                for info in module.app.registered_commands:
                    info.help = info.help or _reflow(info.callback)
                app.add_typer(module.app, name=name, short_help=summary)
            else:
                app.command(name, short_help=summary, help=_reflow(module.command))(module.command)
        else:
            app.command(name, help=summary)(_not_loaded)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exit codes: 0 success, 1 failed run, 2 incorrect usage, 128 + N stopped by signal N.
    """
    try:
        _main(arguments)
    except KeyboardInterrupt:  # while an error was being printed
        interrupts.end()


def _main(arguments: Sequence[str] | None) -> None:
    interrupts.install()
    if "BART_PARENT" in os.environ:
        from bart_cli.runtime.workers import adopt_parent

        adopt_parent()
    configure_threads()
    given = list(sys.argv[1:] if arguments is None else arguments)
    voices, plain = [w for w in given if w in VOICES], [w for w in given if w not in VOICES]
    if plain[:2] == ["evaluate", "compare"]:
        plain = plain[1:]
    words = plain
    if "_BART_COMPLETE" in os.environ:  # the shell passes the command line to be completed
        line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
        words = line.split()[1:]
    requested = next((word for word in words if not word.startswith("-")), None)
    if requested != "launch":  # `bart launch` passes options on to another command
        given = voices + plain
    try:
        _refuse_empty(given)
        app = build_app(requested)
        code = app(args=given or ["--help"], prog_name="bart", standalone_mode=False)
        if code == 130 and interrupts.received():  # newer Typers turn Ctrl-C into this code
            raise KeyboardInterrupt
    except BartError as error:
        # Libraries convert KeyboardInterrupt to their own errors, which we convert to BartError.
        code = fail(error if error.exit_code in INTERRUPTED else _interrupted() or error)
    except KeyboardInterrupt:
        code = fail(_interrupted() or BartError("interrupted", exit_code=130))
    except (BrokenPipeError, SystemExit) as error:
        # The reader of our output has exited (`bart … | head`), which is not an error. Typer and
        # rich raise SystemExit in this case.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except Exception as error:
        code = _fail_unexpected(error, requested)
    _leave(code if isinstance(code, int) else 0)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raise UsageError for `--out "$UNSET"`, because an empty path is the current folder."""
    for before, word in pairwise(["bart", *arguments]):
        if not word or re.fullmatch(r"--[\w-]+=", word):
            what = f"{word} has no value" if word else f"the argument after {before} is empty"
            raise UsageError(what, hint="Check that the shell variable is set.")


def _fail_unexpected(error: Exception, requested: str | None) -> int:
    """Print errors that the user can solve; reraise bugs."""
    if interrupted := _interrupted():
        return fail(interrupted)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return fail(BartError(f"{where}{error.strerror or error}"))
    if isinstance(error, ModuleNotFoundError):
        from bart_cli.extras import from_import_error

        missing = from_import_error(error, f"bart {requested}")
        if missing is None:
            raise error
        return fail(missing)
    # The module of Typer's errors depends on its version; these two attributes do not.
    if not (hasattr(error, "exit_code") and hasattr(error, "format_message")):
        raise error
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return 2
    return fail(_usage_error(error, f"bart {requested}" if requested in COMMANDS else "bart"))


def _interrupted() -> BartError | None:
    """The error of a command that was interrupted by a signal, or None."""
    number = interrupts.received()
    return BartError(interrupts.WORDS[number], exit_code=128 + number) if number else None


def _leave(code: int) -> NoReturn:
    """Exit; immediately if an error left a process group open, whose threads would abort."""
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if interrupts.received():
        interrupts.leave_quietly(code)
    sys.exit(code)


def fail(error: BartError) -> int:
    """Print an error and its hint to standard error, and return the exit code."""
    from bart_cli.cli.console import print_error

    if os.environ.get("RANK", "0") != "0":
        if error.exit_code in INTERRUPTED:
            return error.exit_code
        # Most errors occur on all ranks, or because another rank has died. Rank 0 or the launcher
        # reports them, and the launcher ends this process.
        try:
            time.sleep(RANK_0_SECONDS)
        except KeyboardInterrupt:
            return error.exit_code
    print_error(error)
    return error.exit_code


def _usage_error(error: Any, path: str = "bart") -> BartError:
    """Convert an error of Typer in the command `path`, and suggest what was probably meant."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else path
    hint = f"See `{path} --help`."
    # Remove Typer's own suggestion, which only some versions make.
    message = re.split(r"\s*(?:\(?Did you mean|\(Possible options?)", error.format_message())[0]
    message = message.replace("Value error, ", "")  # of pydantic, in newer Typers
    unknown = re.search(r"[Nn]o such (?:command|option):? '?([^\s']+)", message)
    if unknown is not None and context is not None:
        command = context.command
        known = list(getattr(command, "commands", {}))
        known += [name for p in command.params for name in (*p.opts, *p.secondary_opts)]
        same_kind = [k for k in known if k.startswith("-") == unknown[1].startswith("-")]
        near = did_you_mean(unknown[1], same_kind)
        if near is None and any(p.param_type_name == "argument" for p in command.params):
            near = f"Usage: {path} {' '.join(command.collect_usage_pieces(context))}"
        hint = f"{near}  {hint}" if near else hint
    return BartError(message, hint=hint, exit_code=error.exit_code)


def _reflow(function: object) -> str:
    """Convert a docstring to a help text with one line per paragraph, which the terminal wraps."""
    paragraphs = re.split(r"\n\s*\n", inspect.getdoc(function) or "")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bart {__version__}")
        raise typer.Exit


def _not_loaded() -> None:
    """A placeholder for sub-commands that are only listed in `bart --help`."""
    raise AssertionError("a sub-command ran without being loaded")
