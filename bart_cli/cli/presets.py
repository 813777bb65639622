"""`bart presets`: list, show and compare presets."""

from typing import Annotated

import typer
import yaml

from bart_cli.cli.console import out, print_json, print_rows
from bart_cli.cli.options import JsonOption, complete_preset
from bart_cli.config.presets import flatten, load_preset, preset_config, preset_names

app = typer.Typer(no_args_is_help=True, help="List, show and compare presets.")

NameArgument = Annotated[
    str, typer.Argument(help="Name of a preset.", metavar="NAME", autocompletion=complete_preset)
]


@app.command("list")
def list_presets(as_json: JsonOption = False) -> None:
    """List all presets with their task and description."""
    trees = [{"name": name} | load_preset(name) for name in preset_names()]
    rows = [{key: tree.get(key, "") for key in ("name", "task", "description")} for tree in trees]
    if as_json:
        print_json(rows)
    else:
        print_rows([list(row.values()) for row in rows], "preset", "task", "description")


@app.command()
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print all settings of a preset as YAML, for use with `--config`."""
    tree = preset_config(name).model_dump(mode="json")
    if as_json:
        print_json(tree)
    else:
        out.print(yaml.safe_dump(tree, sort_keys=False), end="", soft_wrap=True)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="Name of a preset.", metavar="A")],
    second: Annotated[str, typer.Argument(help="Name of another preset.", metavar="B")],
    as_json: JsonOption = False,
) -> None:
    """Print the settings in which two presets differ."""
    left, right = (
        dict(flatten(preset_config(name).model_dump(mode="json"))) for name in (first, second)
    )
    keys = [key for key in left | right if left.get(key) != right.get(key)]
    if as_json:
        print_json({key: [left.get(key), right.get(key)] for key in keys})
        return
    rows = [(key, str(left.get(key, "-")), str(right.get(key, "-"))) for key in keys]
    print_rows(rows, "setting", first, second)
