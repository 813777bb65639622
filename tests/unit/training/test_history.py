"""Folders that look like runs, but are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bart_cli.errors import UsageError
from bart_cli.training.history import read_run


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{{", r"config\.yaml, line 2: not valid YAML"),
        (b"\xff\xfe\0", r"config\.yaml is not UTF-8 text"),
        (b"training: 3\n", "is not a run of pretrain or finetune"),
        (b"training: {}\n", "is not a run of pretrain or finetune"),
        (b"- 1\n", "expected sections such as 'training:'"),
    ],
)
def test_invalid_settings_of_a_run_are_reported(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_run(tmp_path)
