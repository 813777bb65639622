"""Folders that an evaluation refuses to write to."""

from __future__ import annotations

from pathlib import Path

import pytest

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.run import EvaluateConfig
from bart_cli.errors import UsageError
from bart_cli.evaluation.evaluate import run_evaluate
from bart_cli.progress import Reporter


@pytest.mark.parametrize(
    "content", [b"task: finetune\n", b"{{{", b"\xff\xfe\0", b"a: [\n", b"- 1\n"]
)
def test_an_unrelated_folder_is_not_changed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UsageError, match="is not an evaluation folder"):
        run_evaluate(evaluation(tmp_path), tmp_path, reporter=Reporter())
    assert (tmp_path / "config.yaml").read_bytes() == content


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "file"
    out.touch()
    with pytest.raises(UsageError, match="is a file; expected a folder"):
        run_evaluate(evaluation(tmp_path), out, reporter=Reporter())


def evaluation(folder: Path) -> EvaluateConfig:
    pairs = folder / "test.jsonl"
    pairs.write_text('{"article": "one", "summary": "two"}\n')
    data = SummarizationDataConfig(path=pairs)
    return EvaluateConfig(model_path=str(folder), data=data)
