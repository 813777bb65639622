"""HTML pages that need nothing else, no network and no script. Their templates: `templates/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bart_cli.files import atomic_file


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render a template, which escapes every text that comes from data, into a file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bart_cli"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(values)
    with atomic_file(path) as temporary:
        # Lone surrogates, which HTML cannot hold, become the mark for what cannot be shown.
        clean = page.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        temporary.write_text(clean, encoding="utf-8")
