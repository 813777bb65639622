"""`bart summarize` as a user runs it: inputs, formats, long texts, interruptions, hostile lines."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bart_cli.config.generation import GenerationConfig
from bart_cli.model.bart import Bart
from bart_cli.summarize.summarizer import Summarizer
from bart_cli.tokenizer import Tokenizer
from tests.command import python, run
from tests.conftest import SENTENCES, save_model, tiny_model_config
from tests.hostile import hostile_lines

BART = [sys.executable, "-m", "bart_cli", "summarize"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("summarize") / "model"
    bart = Bart(tiny_model_config(vocab_size=tiny_tokenizer.vocab_size, init_std=0.3))
    save_model(folder, bart, tiny_tokenizer, GenerationConfig(beams=2, max_length=8))
    return folder


def summarize(
    model: Path, *arguments: object, stdin: bytes = b"", where: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    words = ("summarize", "--model", model, *arguments)
    return run(*words, stdin=stdin, cwd=where, **ENVIRONMENT)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(SENTENCES[0])
    (folder / "b.md").write_text(" ".join(SENTENCES * 6))
    paragraph = f"<p>{' '.join(SENTENCES)}</p>"
    (folder / "c.html").write_text(f"<html><body><article>{paragraph}</article></body></html>")
    rows = [{"id": i, "article": sentence} for i, sentence in enumerate(SENTENCES)]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def records(output: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.decode().splitlines()]


def test_closed_standard_input_is_empty(model: Path) -> None:
    words = shlex.join([*BART, "-", "--model", str(model)])
    result = subprocess.run(
        ["/bin/sh", "-c", f"{words} <&-"], capture_output=True, env=ENVIRONMENT, check=False
    )
    assert result.returncode == 2
    assert b"error: standard input is empty" in result.stderr


def test_a_folder_gives_a_record_for_each_text_in_order(model: Path, texts: Path) -> None:
    result = summarize(model, texts)
    assert result.returncode == 0, result.stderr
    rows = records(result.stdout)
    assert [(Path(str(r["file"])).name, r.get("line"), r.get("id")) for r in rows] == [
        ("a.txt", None, None),
        ("b.md", None, None),
        ("c.html", None, None),
        *(("d.jsonl", i + 1, i) for i in range(4)),
    ]
    found = Summarizer.from_pretrained(model).summarize(SENTENCES)
    assert [row["summary"] for row in rows[3:]] == [summary.text for summary in found]
    assert b"b.md has " in result.stderr
    assert b"were truncated (pass --long chunk to read all of them)" in result.stderr
    assert (rows[1]["used_tokens"], rows[1]["pieces"]) == (64, 1)


def test_formats_agree(model: Path, texts: Path, tmp_path: Path) -> None:
    pattern = f"{texts}/*.[tm]*"
    text = summarize(model, pattern)
    one = json.loads(summarize(model, pattern, "--json").stdout)
    out = tmp_path / "new" / "summaries.jsonl"
    saved = summarize(model, pattern, "--out", out)
    assert saved.returncode == 0, saved.stderr
    assert saved.stdout.decode() == f"2 summaries in {out}\n"
    assert records(out.read_bytes()) == one
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    settings = tmp_path / "settings.yaml"
    settings.write_text("generation: {max_length: 6, min_length: 3}")
    own = json.loads(
        summarize(model, pattern, "--json", "--config", settings, "--min-length", 2).stdout
    )
    file = str(model / "generation_config.json")
    assert one[0]["decoding"] == {"beams": [2, file], "max_length": [8, file]}
    assert own[0]["decoding"] == {
        "beams": [2, file],
        "max_length": [6, str(settings)],
        "min_length": [2, "options"],
    }
    lines = text.stdout.decode().split("\n\n")
    assert [line.splitlines()[0] for line in lines] == [str(row["file"]) for row in one]


def test_long_texts_are_read_whole_if_requested(model: Path, texts: Path) -> None:
    cut = summarize(model, texts / "b.md")
    chunk = summarize(model, texts / "b.md", "--long", "chunk")
    reduced = summarize(model, texts / "b.md", "--long", "reduce")
    assert len({cut.stdout, chunk.stdout, reduced.stdout}) == 3
    assert b"summarized in " in chunk.stderr
    assert len(reduced.stdout) < len(chunk.stdout)


def test_standard_input_is_a_text_or_lines_of_json(model: Path) -> None:
    text = summarize(model, "-", stdin=SENTENCES[0].encode())
    assert b"warning" not in text.stderr
    rows = b'{"body": "%s"}\n{"article": 1}\n' % SENTENCES[0].encode()
    tokens = len(Tokenizer.from_pretrained(model).encode(SENTENCES[0]))
    length = ("--min-length", tokens + 1, "--max-length", tokens + 2)
    forced = summarize(model, "-", *length, stdin=SENTENCES[0].encode())
    assert (
        f"fewer than min_length={tokens + 1}: the summary will contain invented"
        in forced.stderr.decode()
    )
    lines = summarize(model, "-", "--jsonl", "--field", "body", stdin=rows)
    assert lines.returncode == 1
    one, two = records(lines.stdout)
    assert one["summary"] == text.stdout.decode().strip()
    assert two == {
        "file": "standard input",
        "line": 2,
        "error": "no field with the text: 'body' is missing, found article",
    }
    assert b"error: 1 of 2 inputs could not be summarized" in lines.stderr


def test_one_bad_file_of_a_folder_does_not_stop_the_others(model: Path, texts: Path) -> None:
    (texts / "aa.txt").write_bytes(b"Caf\xe9")
    result = summarize(model, texts, "--format", "text")
    assert result.returncode == 1
    assert b"aa.txt is not UTF-8 text: byte 0xe9 in line 1" in result.stderr
    assert result.stdout.count(b"\n\n") == 6  # seven summaries
    assert b"aa.txt" not in result.stdout
    assert b"error: 1 of 8 inputs could not be summarized" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("a.txt none.txt", "no such file: none.txt"),
        ("*.pdf", "no file matches the pattern *.pdf"),
        ("a.txt --long half", "'truncate', 'chunk' or 'reduce'"),
        ("a.txt --format xml", "'text', 'jsonl' or 'json'"),
        ("a.txt --json --format text", "--json and --format text cannot be combined"),
        ("d.jsonl --out d.jsonl", "--out d.jsonl is one of the inputs"),
        ("a.txt --out .", "--out . is a folder"),
        ("- -", "named twice"),
        ("a.txt --device cuda:99", "device=cuda:99"),
        ("a.txt --beams 0 --model none", "options: generation.beams=0"),  # before loading
        ("a.txt --return-sequences 5", "needs at least as many beams (generation.beams="),
        ("a.txt --max-length 65", "max_length=65 exceeds the model's 64"),
    ],
)
def test_wrong_usage_gives_one_line_and_writes_nothing(
    model: Path, texts: Path, arguments: str, words: str
) -> None:
    before = sorted(texts.iterdir())
    result = summarize(model, *arguments.split(), where=texts)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr.decode()
    assert b"Traceback" not in result.stderr
    assert result.stdout == b""
    assert sorted(texts.iterdir()) == before


def test_an_interrupted_file_of_json_lines_resumes(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert summarize(model, texts, "--out", whole).returncode == 0
    words = [texts, "--out", out, "--batch-size", 1]
    # Killed while the second line is written, by a file size limit, which cannot be handled.
    limit = len(b"".join(whole.read_bytes().splitlines(keepends=True)[:2])) + 20
    code = "import resource, sys; sys.dont_write_bytecode = True"  # it would be cut, too
    code += f"; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    code += "; from bart_cli.__main__ import main; main()"
    killed = python(code, "summarize", "--model", model, *words)
    assert killed.returncode == 1, killed.stderr
    assert "File too large" in killed.stderr
    assert not out.exists()
    (partial,) = tmp_path.glob(".out.jsonl.*.partial")
    begun = partial.read_bytes().count(b"\n")
    assert begun == 2
    again = summarize(model, *words)
    assert again.returncode == 0, again.stderr
    assert b"2 results exist; resuming after them" in again.stderr
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".out*"))


def test_results_of_other_settings_are_not_resumed(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    (tmp_path / ".out.jsonl.0123456789ab.partial").write_text('{"summary": "of another model"}\n')
    assert summarize(model, texts, "--out", tmp_path / "out.jsonl").returncode == 0
    assert "another" not in (tmp_path / "out.jsonl").read_text()
    assert not list(tmp_path.glob(".out*"))


def test_a_closed_pipe_ends_the_command_silently(model: Path, texts: Path) -> None:
    with subprocess.Popen(
        [*BART, "--model", str(model), str(texts), "--batch-size", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        stderr = process.stderr.read()
        assert process.wait(120) == 0
    assert b"Traceback" not in stderr
    assert b"error" not in stderr


def test_a_closed_output_does_not_crash(model: Path, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    command = [*BART, "--model", str(model), str(texts / "a.txt"), "--out", str(out)]
    closed = f"{shlex.join(command)} >&- 2>&-"
    result = subprocess.run(["sh", "-c", closed], env=ENVIRONMENT, timeout=120, check=False)
    assert result.returncode == 0
    assert out.read_text() != ""


def test_control_characters_of_the_input_do_not_reach_the_terminal(
    model: Path, tmp_path: Path
) -> None:
    evil = tmp_path / "evil\x1b]0;title\x07[bold]:smile:.txt"
    evil.write_text(SENTENCES[0])
    (tmp_path / "b\x9b31m.txt").write_bytes(b"\xff")
    (tmp_path / "c.txt").write_text(SENTENCES[1])
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*BART, "--model", str(model), str(tmp_path), "--max-length", "20"],
        stdout=theirs,
        stderr=theirs,
        env=ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        seen += part
    assert process.wait(120) == 1
    text = seen.decode().replace("\r\n", "\n")
    assert "\x1b]" not in text
    assert "\x9b" not in text
    assert "evil\ufffd]0;title\ufffd[bold]:smile:.txt" in text
    styled = re.sub(r"\x1b\[[0-9;]*m", "", text)  # rich's own colors
    assert not CONTROL.search(styled), styled


def test_every_hostile_line_gets_a_result_or_an_error(model: Path, tmp_path: Path) -> None:
    count = 400
    with (tmp_path / "hostile.jsonl").open("wb") as file:
        file.writelines(hostile_lines(count, random.Random(0), big=200_000))
    result = summarize(model, "-", "--jsonl", stdin=(tmp_path / "hostile.jsonl").read_bytes())
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr
    assert not CONTROL.search(result.stdout.decode().replace("\n", ""))
    rows = records(result.stdout)
    assert [row["line"] for row in rows] == list(range(1, count + 1))
    assert all(isinstance(row.get("summary"), str) != ("error" in row) for row in rows)
    assert all(row["error"] for row in rows if "error" in row)
    assert 0.3 < sum("error" in row for row in rows) / count < 0.8
