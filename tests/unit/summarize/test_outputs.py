"""Interrupted result files, and other processes that write to them."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from bart_cli.config.commands import SummarizeConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.errors import BartError
from bart_cli.model.bart import Bart
from bart_cli.progress import Reporter, Task
from bart_cli.summarize.inputs import find_inputs
from bart_cli.summarize.outputs import Result, continued_file, write_results
from bart_cli.summarize.records import Origin
from bart_cli.summarize.run import Job, summarize_to_file, summarize_to_stream
from bart_cli.summarize.summarizer import Summarizer, Summary
from bart_cli.tokenizer import Tokenizer
from tests.conftest import save_model, tiny_model_config

RECORD = '{"summary": "a"}\n'


class Stopped(Task):
    """Raise KeyboardInterrupt after the first results."""

    def advance(self, amount: float = 1, detail: str = "") -> None:
        if amount:
            raise KeyboardInterrupt


def leave_behind(out: Path, key: str, content: bytes) -> Path:
    partial = out.with_name(f".{out.name}.{key}.partial")
    partial.write_bytes(content)
    return partial


def test_only_complete_records_of_a_dead_process_are_kept(tmp_path: Path) -> None:
    for number, tail in enumerate((b'{"summ', b"\0" * 9, b"\0\0\n", b"3\n", b"\xff\n")):
        out = tmp_path / f"{number}.jsonl"
        other = leave_behind(out, "b", b"")
        leave_behind(out, "a", RECORD.encode() + tail)
        with continued_file(out, "a") as (stream, lines, failed):
            assert (lines, failed) == (1, 0), tail
            stream.write(RECORD)
        assert out.read_text() == 2 * RECORD
        assert not other.exists()


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_is_an_error_with_a_hint(tmp_path: Path, failure: Exception) -> None:
    (tmp_path / "a.txt").write_text("one")
    summarizer = MagicMock()
    summarizer.generation.beams = 4
    summarizer.summarize.side_effect = failure
    inputs = find_inputs([str(tmp_path / "a.txt")])
    job = Job(inputs, SummarizeConfig(), "text", batch_size=32)
    with pytest.raises(BartError, match="out of memory: 32 texts at once, 4 beams") as caught:
        summarize_to_stream(summarizer, job, StringIO(), reporter=Reporter(), task=Task())
    assert caught.value.hint == "Pass --batch-size 16."


@pytest.mark.parametrize("error", [BartError("scores are not finite"), KeyboardInterrupt()])
def test_an_error_after_some_results_leaves_valid_json(error: BaseException) -> None:
    stream, result = StringIO(), Result(Origin("a.txt"), Summary("one", (), 0.0, 3, 3))

    def fail() -> None:
        with write_results(stream, "json", None, {}) as write:
            write(result)
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [record["summary"] for record in json.loads(stream.getvalue())] == ["one"]


def test_an_evaluation_inside_the_model_folder_resumes(
    tmp_path: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Bart(tiny_model_config())
    save_model(tmp_path, model, tiny_tokenizer, GenerationConfig(beams=1, max_length=4))
    (tmp_path / "in.jsonl").write_text('{"text": "one"}\n' * 3)
    out = tmp_path / "out.jsonl"
    job = Job(find_inputs([str(tmp_path / "in.jsonl")]), SummarizeConfig(), "jsonl", batch_size=1)

    def run(task: Task) -> None:
        summarize_to_file(
            Summarizer.from_pretrained(tmp_path), job, out, reporter=Reporter(), task=task
        )

    with pytest.raises(KeyboardInterrupt):
        run(Stopped())
    (tmp_path / "log.txt").write_text("something else that changes")
    told: list[str] = []
    monkeypatch.setattr(Reporter, "info", lambda _, text: told.append(text))
    run(Task())
    assert told == ["1 results exist; resuming after them"]
    assert out.read_text().count("\n") == 3
