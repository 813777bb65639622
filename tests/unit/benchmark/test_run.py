"""Cases in separate processes: what happens when one dies or the user interrupts."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bart_cli.benchmark import run
from bart_cli.benchmark.cases import Sweep, plan_decoding, plan_training
from bart_cli.benchmark.data_load import run_data_benchmark
from bart_cli.benchmark.loads import DecodingLoad, TrainingLoad
from bart_cli.benchmark.processes import WorkerGroup, processes_of
from bart_cli.benchmark.session import Case
from bart_cli.cli.app import build_app
from bart_cli.config.commands import BenchmarkConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.run import PretrainConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.model.bart import Bart
from bart_cli.progress import Reporter, Task
from bart_cli.runtime import flops
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES, save_model, tiny_model_config
from tests.ranks import measured_here

ALONE = World(0, 1, torch.device("cpu"))
QUICK = BenchmarkConfig(repeats=3, warm_up=0)


def tiny_case(*sizes: int, **changes: object) -> Case:
    data = {"sequence_length": 16}
    settings = {"model": tiny_model_config().model_dump(), "data": data} | changes
    load = TrainingLoad("Pre-training", 16, PretrainConfig.model_validate(settings))
    return Case(load, sizes, QUICK)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure without starting processes, and with a smaller product for the ceiling."""
    monkeypatch.setattr(run, "processes_of", measured_here)
    monkeypatch.setitem(flops.SQUARE, "cpu", 128)


class Impatient(Reporter):
    """Raise KeyboardInterrupt after the first row."""

    @contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        class Stop(Task):
            def advance(self, amount: float = 1, detail: str = "") -> None:
                raise KeyboardInterrupt

        yield Stop()


@pytest.mark.usefixtures("in_this_process")
def test_complete_rows_survive_an_interruption(tmp_path: Path) -> None:
    groups = [[tiny_case(1, 2)]]
    report = run.run_benchmark(groups, tmp_path, "Training", command="", reporter=Impatient())
    assert report.interrupted
    assert [(row.size, row.outcome, len(row.seconds)) for row in report.rows] == [(1, "ok", 3)]
    (line,) = (tmp_path / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["items"] == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("work", ["training", "inference"])
def test_transformers_does_the_same_work_and_operators_are_profiled(
    tmp_path: Path, work: str
) -> None:
    case = tiny_case(2)
    if work == "inference":
        decoding = GenerationConfig(beams=2, max_length=8)
        case = replace(case, load=DecodingLoad("Inference", 16, tiny_model_config(), decoding))
    else:
        case = replace(case, benchmark=QUICK.model_copy(update={"profile": True}))
    groups = [[case, replace(case, side="transformers")]]
    report = run.run_benchmark(groups, tmp_path, work, command="", reporter=Reporter())
    ours, theirs = report.rows
    assert (ours.side, theirs.side) == ("bart", "transformers")
    assert ours.tokens == theirs.tokens  # the same batches
    assert 0 < ours.summary()["mfu_measured"] < 1
    titles = [table.title for table in report.tables]
    assert any("measured in turn" in title for title in titles)
    if work == "training":
        assert "Hottest operators (trace-transformers-fp32-1x16.json)" in titles
        trace = json.loads((tmp_path / "trace-bart-fp32-1x16.json").read_text())
        assert any("aten::" in event.get("name", "") for event in trace["traceEvents"])


@pytest.mark.usefixtures("in_this_process")
def test_a_rank_of_a_launcher_that_runs_out_of_memory_ends_the_benchmark(tmp_path: Path) -> None:
    groups = [[tiny_case(10**12)]]
    with pytest.raises(BartError, match="rank 0 ran out of memory"):
        run.run_benchmark(groups, tmp_path, "Training", command="", reporter=Reporter())


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_the_stages_of_the_data_are_measured(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    tiny_tokenizer.save(tmp_path / "tokenizer")
    corpus, pairs = tmp_path / "corpus", tmp_path / "pairs"
    corpus.mkdir()
    pairs.mkdir()
    text = " ".join(SENTENCES * 4)
    (corpus / "a.txt").write_text("".join(f"x-{i} {text}\n" for i in range(200)))
    row = json.dumps({"article": text, "summary": SENTENCES[0]}) + "\n"
    (pairs / "train.jsonl").write_text(row * 80)
    report = run_data_benchmark(
        tmp_path / "out",
        corpus=corpus,
        pairs=pairs,
        tokenizer=str(tmp_path / "tokenizer"),
        length=64,
        batch=32,
        workers=[1],
        benchmark=QUICK,
        command="",
        reporter=Reporter(),
    )
    rows = {row.name: row for row in report.rows}
    assert list(rows) == ["preprocess", "denoise", "shards", "pairs"]
    assert rows["preprocess"].items == [(corpus / "a.txt").stat().st_size] * 3
    assert rows["denoise"].items == rows["shards"].items == rows["pairs"].items == [32 * 16] * 3
    assert [line[1] for line in report.tables[0].rows] == ["1", "1", "1", "1"]


def test_a_file_in_place_of_the_results_is_reported_before_measuring(
    tmp_path: Path,
) -> None:
    out = tmp_path / "file"
    out.touch()
    with pytest.raises(UsageError, match="is a file; expected a folder"):
        run.run_benchmark([[tiny_case(1)]], out, "Training", command="", reporter=Reporter())


@pytest.mark.slow
def test_a_failing_worker_reports_the_reason_and_a_killed_one_is_out_of_memory(
    tmp_path: Path,
) -> None:
    missing = tiny_case(1, data={"path": str(tmp_path / "none"), "sequence_length": 16})
    with processes_of(missing, ALONE) as group:
        assert isinstance(group, WorkerGroup)
        with pytest.raises(BartError, match="a bart worker failed: TypeError"):
            group.ask("prepare")
        with pytest.raises(UsageError, match="no such folder"):
            group.ask("prepare", missing, 1)
        (worker,) = group.workers.values()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        assert group.ask("prepare", missing, 1) == group.ask("measure", False) == []
        assert group.outcome == "out of memory"


def test_a_trained_model_and_real_pairs_can_replace_random_ones(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    row = {"article": " ".join(SENTENCES[:2]), "summary": SENTENCES[0]}
    for split in ("train", "test"):
        (pairs / f"{split}.jsonl").write_text((json.dumps(row) + "\n") * 6)
    tiny_tokenizer.save(pairs / "tokenizer")
    model = Bart(tiny_model_config(vocab_size=tiny_tokenizer.vocab_size, init_std=0.3))
    save_model(tmp_path / "model", model, tiny_tokenizer, GenerationConfig(beams=2, max_length=9))
    ((case,),) = plan_decoding(
        None,
        Sweep(precisions=["fp32"]),
        benchmark=QUICK,
        model=str(tmp_path / "model"),
        data=pairs,
        options={"generation.min_length": 3},
    )
    assert isinstance(case.load, DecodingLoad)
    generation = case.load.generation
    assert (generation.beams, generation.max_length) == (2, 9)  # as it was saved
    _, units = case.load.start(case, ALONE)
    length = len(tiny_tokenizer.encode_batch([row["article"]])[0])
    assert 2 * 3 <= next(units(2)).tokens - 2 * length <= 2 * 9
    with pytest.raises(UsageError, match="6 test articles per process"):
        units(7)
    sets = ["model.vocab_size=400", "model.d_model=32", "model.encoder_layers=1"]
    ((case,),) = plan_training(
        ["tiny-cpu-finetune"],
        Sweep(precisions=["fp32"], processes=[1], sets=sets),
        benchmark=QUICK,
        data=pairs,
    )
    target = len(tiny_tokenizer.encode_batch([row["summary"]])[0])
    _, units = case.load.start(case, ALONE)
    assert next(units(2)).tokens == 2 * (length + target)


def test_everything_that_cannot_run_here_is_reported_at_once() -> None:
    with pytest.raises(UsageError) as refused:
        plan_training(
            ["tiny-cpu"],
            Sweep(precisions=["tf32", "fp16"], processes=[1], sets=["optimizer.backend=apex"]),
            benchmark=BenchmarkConfig(),
        )
    for word in ("--precision tf32", "--precision fp16", "apex.optimizers"):
        assert word in refused.value.message


def test_a_preset_sets_the_batch_and_on_a_cpu_both_precisions() -> None:
    groups = plan_training(["tiny-cpu"], Sweep(processes=[1, 2]), benchmark=BenchmarkConfig())
    cases = [group[0] for group in groups]
    assert [(c.processes, c.precision, c.sizes) for c in cases] == [
        (1, "fp32", (16,)),
        (1, "bf16", (16,)),
        (2, "fp32", (16,)),
        (2, "bf16", (16,)),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train --preset tiny-cpu --precision fp32,tf32", ["--precision tf32", "GPU"]),
        ("train --preset tiny-cpx", ["no preset 'tiny-cpx'"]),
        ("train --preset tiny-cpu --batch-size 2,x", ["--batch-size 2,x", "1,4,8"]),
        ("train --preset tiny-cpu --accumulation 0", ["accumulation=0"]),
        ("inference --preset tiny-cpu --precision int3", ["--precision int3", "bf16"]),
        ("inference --preset tiny-cpu --max-length 9999", ["512 positions"]),
        ("inference --preset tiny-cpu --compare fairseq", ["compare=fairseq", "'transformers'"]),
        ("inference --preset tiny-cpu --lengths long", ["lengths=long", "'full'"]),
        ("data --workers 0", ["--workers 0"]),
    ],
)
def test_unmeasurable_cases_are_refused_before_anything_runs(
    arguments: str, words: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        build_app("benchmark")(["benchmark", *arguments.split()], standalone_mode=False)
    for word in words:
        assert word in refused.value.message
