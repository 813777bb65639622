"""Names in brackets are not interpreted as terminal styles."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bart_cli.cli import console, runs


@pytest.mark.parametrize("name", ["[red]first", "[/bold]", "[a]b[/c]"])
def test_a_run_is_shown_under_its_own_name(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / name
    (run / "checkpoints").mkdir(parents=True)
    settings = {"training": {"max_steps": 4}, "data": {"path": name}}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    (other / "config.yaml").write_text(yaml.safe_dump({"training": {"max_steps": 4}}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console.out, "width", 400)
    runs.list_runs(Path())
    runs.compare([Path(name), Path("other")])
    # As a run and as the value of a setting.
    assert capsys.readouterr().out.count(name) == 3
