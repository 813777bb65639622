"""`bart doctor`."""

from dataclasses import asdict

import typer
from rich.text import Text

from bart_cli.cli.console import print_json, print_rows, say
from bart_cli.cli.options import JsonOption

COLORS = {"ok": "green", "note": "yellow", "broken": "red"}


def command(as_json: JsonOption = False) -> None:
    """Check versions, devices, precisions, threads, hub and disk of this machine; suggest fixes.

    Nothing is changed. The exit code is 1 if something is broken that every command needs.
    """
    from bart_cli.doctor import examine

    findings = examine()
    broken = [finding.name for finding in findings if finding.state == "broken"]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = []
        for finding in findings:
            text = Text(finding.found)
            if finding.advice:
                text.append(f"\n-> {finding.advice}", style="dim")
            rows.append((Text(finding.state, COLORS[finding.state]), finding.name, text))
        print_rows(rows)
        verdict = f"broken: {', '.join(broken)}" if broken else "nothing essential is broken"
        say(f"\n{verdict}")
    if broken:
        raise typer.Exit(1)
