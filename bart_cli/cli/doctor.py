"""`bart doctor`."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.markup import escape
from rich.table import Table

from bart_cli.cli.console import out, print_json
from bart_cli.cli.options import JsonOption

MARKS = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "broken": "[red]broken[/red]"}


def command(as_json: JsonOption = False) -> None:
    """Look at this machine: versions, devices, precisions, threads, hub, disk; and what to do.

    Nothing is changed. The exit code is 1 when something is broken that every command needs.
    """
    from bart_cli.doctor import examine

    findings = examine()
    broken = [finding.name for finding in findings if finding.state == "broken"]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in findings:
            text = escape(finding.found)
            if finding.advice:
                text += f"\n[dim]-> {escape(finding.advice)}[/dim]"
            table.add_row(MARKS[finding.state], finding.name, text)
        out.print(table)
        verdict = f"broken: {', '.join(broken)}" if broken else "nothing essential is broken"
        out.print(f"\n{verdict}")
    if broken:
        raise typer.Exit(1)
