"""A stage for the pages' commands: a folder, servers on loopback, and everything made small.

`bart` runs inside this process: the same entry point, without the seconds that imports take. Its
benchmarks measure in this process, too. What else is changed about a command is stated in `cheap`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bart_cli.cli import app
from tests.clusters import scheduler
from tests.command import bart
from tests.docs.pages import ROOT, Command

# The architecture of the presets, only smaller.
SMALL_MODEL = """model.d_model=32 model.encoder_layers=1 model.decoder_layers=1
    model.encoder_attention_heads=2 model.decoder_attention_heads=2
    model.encoder_ffn_dim=32 model.decoder_ffn_dim=32""".split()
SMALL_RUN = """training.max_steps=3 schedule.warmup_steps=1 training.global_batch=8
    training.micro_batch=2 training.log_every=1 training.checkpoint_every=2
    training.precision=fp32""".split()
# This run has to learn something, so that its scores are above 0.
LEARNING_RUN = """training.max_steps=24 training.checkpoint_every=12 schedule.warmup_steps=3
    optimizer.learning_rate=1e-2""".split()
SMALL_LOADER = ["data.workers=0", "data.streams=8"]
SMALL_SCORES = "evaluation.batch_size=2 evaluation.precision=fp32 evaluation.bootstrap=5".split()
SMALL_DECODING = "generation.beams=2 generation.max_length=8 generation.min_length=0".split()
# Towns, buildings, an article and its summary, by language.
NEWS = {
    "ru": (
        "Зареченск Орлов Дубки Белый",
        "мост парк завод музей театр",
        "В 2010 г. в г. {} открыли новый {}. Люди, т. е. горожане, рады.",
        "Мэр открыл новый {}.",
    ),
    "de": (
        "Grünau Königsfeld Süderbrück Weißenhof",
        "Zoo Park Markt Fluss Bahnhof",
        "Am 3. Oktober hat Dr. Krüger in {} den {} eröffnet. Die Bürger, z. B. Schüler, freut es.",
        "Der {} ist eröffnet.",
    ),
}
# Published models would have to be downloaded.
SMALL = dict.fromkeys(
    ("facebook/bart-base", "facebook/bart-large-xsum"), "demo/finetuned-pre-trained"
)
ROWS = ["--repeats", "1", "--seconds", "0.1", "--warmup", "0"]


@dataclass
class Stage:
    """The folder in which commands run, and the output of those that need not run again."""

    folder: Path
    patch: pytest.MonkeyPatch
    crawl: str
    done: dict[tuple[Command, str], str] = field(default_factory=dict)

    def run(self, command: Command, given: str) -> str:
        """Run one command with this standard input, check its success, and return its output."""
        name, *arguments = command.words
        if (command, given) in self.done:
            out = self.done[command, given]
        elif name.endswith("bart"):
            words = cheap(arguments, self.crawl)
            # The hub client reads its address when it is imported, hence a separate process.
            hub = "facebook/" in " ".join(words) or words[0] == "download" or "--push" in words
            if words[:2] == ["preprocess", "pretrain"]:
                words += ["--scheduler", scheduler()]
            out = self._process(words, given) if hub else self._bart(words, given)
        elif name == "make":
            subprocess.run(
                ["make", "-n", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True
            )
            out = ""
        elif name == "sbatch":  # the job script: of an earlier block, and valid
            subprocess.run(["bash", "-n", arguments[-1]], check=True)
            out = ""
        elif name in ("cat", "source"):
            out = Path(arguments[0]).read_text() if name == "cat" else ""
        else:
            raise AssertionError(f"`{name}`: mark the block `<!-- only parsed: reason -->`")
        self.done[command, given] = out
        if command.out not in (None, "|"):
            Path(str(command.out)).write_text(out)
            return ""
        return out

    def _bart(self, arguments: list[str], given: str) -> str:
        self.patch.setattr(sys, "argv", ["bart", *arguments])
        self.patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode()), "utf-8"))
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            app.main()
        assert ended.value.code == 0, f"bart {' '.join(arguments)}\n{err.getvalue()}"
        return out.getvalue()

    def _process(self, words: list[str], given: str) -> str:
        result = bart(*words, stdin=given, cwd=self.folder)
        assert result.returncode == 0, f"{' '.join(words)}\n{result.stderr}"
        return result.stdout


def cheap(arguments: list[str], crawl: str) -> list[str]:
    """Change a command to use little data and a small model; added options come last and win."""
    command = arguments[0]
    sets: list[str] = []
    more: list[str] = []
    if command == "download" and arguments[1] == "sample":
        more = "--megabytes 0.3 --train 40 --validation 6 --test 6".split()
    elif command == "download" and arguments[1] == "common-crawl":
        more = ["--base-url", crawl]
    elif command == "preprocess" and arguments[1] == "pretrain":
        more = ["--shards", "8"]
    elif command == "tokenizer":
        more = ["--vocab-size", "600"]
    elif command in ("pretrain", "finetune"):
        arguments = [SMALL.get(word, word) for word in arguments]
        sets = [*([] if "--init-from" in arguments else SMALL_MODEL), *SMALL_RUN]
        learning = {"runs/finetuned-ru", "runs/finetuned-de"}.intersection(arguments)
        sets += LEARNING_RUN if learning else []
        sets += SMALL_LOADER if command == "pretrain" else [*SMALL_SCORES, *SMALL_DECODING]
        more = ["--processes", "1"]
    elif command == "sweep":
        sets = [*SMALL_MODEL, *SMALL_RUN, *SMALL_LOADER]
    elif command == "evaluate":
        arguments = [SMALL.get(word, word) for word in arguments]
        more = ["--limit", "3"]
        sets = [] if "--predictions" in arguments else [*SMALL_SCORES, *SMALL_DECODING]
    elif command == "summarize":
        more = ["--max-length", "8", "--min-length", "0"]
        if "--model" not in arguments:
            more += ["--model", "facebook/bart-large-cnn"]  # the default, by name
    elif command == "benchmark":
        more = list(ROWS)
        if arguments[1] != "data":
            more += ["--batch-size", "1"]
            sets = SMALL_MODEL
        if arguments[1] == "train":
            more += ["--processes", "1"]
        elif arguments[1] == "inference":
            more += ["--max-length", "8"]
        elif arguments[1] == "data":
            more += ["--input", "data/sample/pretrain", "--data", "data/sample/summarization"]
            more += ["--workers", "1", "--tokenizer", "data/tokenizer"]
    changed = [word for key in sets for word in ("--set", key)]
    return [*arguments, *more, *changed]


def write_languages(folder: Path) -> None:
    """Write `text-XX` and `pairs-XX`: a corpus and pairs in Russian and in German."""
    for language, (towns, things, article, summary) in NEWS.items():
        pairs = [
            {"article": article.format(town, thing), "summary": summary.format(thing)}
            for town in towns.split()
            for thing in things.split()
        ]
        text, prepared = folder / f"text-{language}", folder / f"pairs-{language}"
        text.mkdir()
        prepared.mkdir()
        corpus = "\n\n".join(pair["article"] for pair in pairs)
        (text / "news.txt").write_text(corpus, encoding="utf-8")
        lines = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
        for split in ("train", "validation", "test"):
            (prepared / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def environment(patch: pytest.MonkeyPatch, hub: str, cache: Path) -> None:
    """Set variables for the commands and for the processes that they start."""
    for name, value in {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(cache),
        "HF_HUB_CACHE": str(cache / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_writer",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }.items():
        patch.setenv(name, value)
