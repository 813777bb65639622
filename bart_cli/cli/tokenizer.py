"""`bart tokenizer`: train a byte-level BPE tokenizer."""

from pathlib import Path
from typing import Annotated

import typer

from bart_cli.cli.console import ConsoleReporter, print_json, say
from bart_cli.cli.options import JsonOption, OutOption, option
from bart_cli.runtime.locks import locked_folder

app = typer.Typer(no_args_is_help=True, help="Train tokenizers.")


@app.command()
def train(
    files: Annotated[
        list[Path],
        typer.Argument(help="Text files, or folders with .txt files.", metavar="FILE"),
    ],
    out_folder: OutOption,
    vocab_size: Annotated[int, option("Vocabulary size, including special tokens.")] = 50265,
    with_ids: Annotated[
        bool, option("Lines begin with a document id, as `bart download` writes them.", "--ids")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a byte-level BPE tokenizer with BART's special tokens.

    [bold]bart tokenizer train data/wikipedia --ids --vocab-size 32000 --out tokenizer[/bold]
    """
    from bart_cli.data.documents import read_texts
    from bart_cli.tokenizer import Tokenizer

    reporter = ConsoleReporter()
    with (
        locked_folder(out_folder, reporter),
        reporter.task("train the tokenizer", unit="documents") as task,
    ):

        def texts() -> object:
            for path in files:
                for text in read_texts(path, "lines" if with_ids else "auto"):
                    task.advance()
                    yield text

        tokenizer = Tokenizer.train(texts(), vocab_size)  # type: ignore[arg-type]
        tokenizer.save(out_folder)
    if as_json:
        print_json({"out": out_folder, "vocab_size": tokenizer.vocab_size})
    else:
        say(f"{tokenizer.vocab_size:,} entries written to {out_folder}")
