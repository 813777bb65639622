"""The order of the layers: a module imports from its own layer or a lower one."""

from __future__ import annotations

import ast
from pathlib import Path

import bart_cli

PACKAGE = Path(bart_cli.__file__).parent
# From the top. A layer is a folder or a module; those on one line do not import each other.
ORDER = (
    "cli",
    "demo doctor serve benchmark export",
    "training",
    "evaluation",
    "summarize",
    "inference",
    "model",
    "data",
    "tokenizer tokenizer_files runtime",
    "config",
    "hub extras",
    "figures pages",
    "files",
    "errors progress",
)
LEVEL = {name: level for level, row in enumerate(ORDER) for name in row.split()}
TOGETHER = {("tokenizer", "tokenizer_files")}


def imports(path: Path) -> set[str]:
    """Return the layers that a module imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bart_cli."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "bart_cli":
            found |= {alias.name for alias in node.names} & LEVEL.keys()
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("bart_cli.")}
    return found


def test_no_module_imports_from_a_higher_layer() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if layer in ("__init__", "__main__"):  # the public names and the entry point
            continue
        for other in imports(path) - {layer}:
            same = LEVEL[other] == LEVEL[layer] and (layer, other) not in TOGETHER
            if LEVEL[other] < LEVEL[layer] or same:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {other}")
    assert not wrong
