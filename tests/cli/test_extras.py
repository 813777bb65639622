"""An installation of the core alone: it trains and summarizes, and says which extra is missing.

The modules of every extra, and what they import, are hidden from one process, which then runs the
commands one after the other.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bart_cli.extras import CLONE
from bart_cli.tokenizer import Tokenizer
from tests.cli.test_training_commands import SMALL, TINY
from tests.clusters import scheduler
from tests.command import bart
from tests.conftest import SENTENCES

HIDDEN = """
import contextlib, io, json, shlex, sys
NAMES = {"datasets", "dask", "distributed", "requests", "fastwarc", "resiliparse", "trafilatura",
    "webencodings", "brotli", "lxml", "lxml_html_clean", "pandas", "rouge_score", "sacrebleu",
    "nltk", "newsplease", "transformers", "ctranslate2", "onnx", "wandb", "mlflow", "trackio"}

class Finder:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *where):
        return None if name.partition(".")[0] in NAMES else self.finder.find_spec(name, *where)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Finder, sys.meta_path)
from bart_cli.cli.app import main
for line in sys.stdin.read().splitlines():
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(shlex.split(line))
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = repr(error)
    print(json.dumps([code, errors.getvalue()]))
"""
NEEDS = {
    "preprocess pretrain --text a.txt --tokenizer bpe --out other": "data",
    "demo --out demo": "data,eval",
    "download common-crawl --start 2016-09-01 --end 2016-09-01 --out cc": "data",
    "download common-crawl --extractor news-please --start 2016-09-01 --out cc": "data,news",
    "download wikipedia --dump https://127.0.0.1:9/dump.xml.bz2 --out wiki": "data",
    "download openwebtext --out owt": "data",
    "download cnn-dm --out cnn": "data",
    "preprocess summarization --input abisee/cnn_dailymail --tokenizer bpe --out other": "data",
    "summarize page.html --model run/model": "data",
    "summarize https://127.0.0.1:9/ --model run/model": "data",
    "evaluate --model run --data pairs": "eval",
    "export tuned --out other --format ctranslate2": "ctranslate2",
    "export tuned --out other --format onnx": "onnx",
    "finetune --preset tiny-cpu-finetune --init-from run --data pairs --out tuned": "eval",
    "pretrain --preset tiny-cpu --data shards --out tracked --set training.loggers=wandb": "wandb",
}


@pytest.fixture
def folder(tmp_path: Path, tiny_tokenizer: Tokenizer) -> Path:
    """Write shards, pairs, a tokenizer, a text and a page."""
    (tmp_path / "a.txt").write_text("\n\n".join([" ".join(SENTENCES)] * 40), encoding="utf-8")
    (tmp_path / "page.html").write_text(f"<html><body><p>{SENTENCES[0]}</p></body></html>")
    tiny_tokenizer.save(tmp_path / "bpe")
    (tmp_path / "pairs").mkdir()
    rows = [{"article": " ".join(SENTENCES), "summary": s} for s in SENTENCES]
    for split in ("train", "validation", "test"):
        path = tmp_path / "pairs" / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = bart(
        *("preprocess", "pretrain", "--text", "a.txt", "--tokenizer", "bpe", "--shards", 2),
        *("--scheduler", scheduler(), "--out", "shards"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    return tmp_path


def test_the_core_works_alone_and_commands_name_the_extra_that_they_need(folder: Path) -> None:
    small, tiny = shlex.join(SMALL), shlex.join(TINY)
    works = [
        "doctor",
        "tokenizer train a.txt --vocab-size 300 --out trained",
        f"pretrain --preset tiny-cpu --data shards --out run {small} {tiny} --set data.streams=4 "
        "--set data.workers=0",
        "preprocess summarization --input pairs --tokenizer bpe --out prepared",
        "finetune --preset tiny-cpu-finetune --init-from run --data prepared --no-evaluate "
        f"--out tuned {small} --set training.precision=fp32",
        "summarize a.txt --model tuned --max-length 8",
        "export tuned --out exported",
    ]
    result = subprocess.run(
        [sys.executable, "-c", HIDDEN],
        input="\n".join([*works, *NEEDS]),
        cwd=folder,
        env={"PYTHONPATH": str(CLONE), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    ended = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(ended) == len(works) + len(NEEDS), result.stderr
    for command, (code, errors) in zip(works, ended, strict=False):
        assert code in (0, None), f"{command}: {code}\n{errors}"
    for (command, names), (code, errors) in zip(NEEDS.items(), ended[len(works) :], strict=True):
        assert code == 1, f"{command}: {code}\n{errors}"
        lines = errors.splitlines()
        assert len(lines) == 2, errors
        assert lines[0].startswith("error: "), errors
        assert "needs the extra" in lines[0], errors
        assert f"-m pip install -e '{CLONE}[{names}]'" in lines[1], errors
    made = {path.name for path in folder.iterdir()}
    assert not made & {"other", "demo", "cc", "wiki", "owt", "cnn", "tracked"}
