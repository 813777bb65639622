"""Write self-contained HTML pages, without scripts or network access, from `templates/`."""

from pathlib import Path
from typing import Any

from bart_cli.files import atomic_file


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render a template to a file, atomically. All values are HTML-escaped."""
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
        # Replace lone surrogates, which HTML cannot represent, by U+FFFD.
        clean = page.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        temporary.write_text(clean, encoding="utf-8")
