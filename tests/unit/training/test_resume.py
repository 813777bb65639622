"""Resuming run folders: other data, a non-finite loss, a rollback, more steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import bart_cli.training.loop as loop
from bart_cli.config.run import PretrainConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.progress import Reporter
from bart_cli.summarize.summarizer import Summarizer
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.checkpoint import list_checkpoints, step_of
from bart_cli.training.finetune import run_finetune
from bart_cli.training.metrics import read_metrics
from bart_cli.training.pretrain import run_pretrain
from bart_cli.training.resume import changes
from bart_cli.training.run import RunResult
from tests.conftest import SENTENCES
from tests.unit.training.test_runs import (
    assert_equal_runs,
    finetune_config,
    pairs,  # noqa: F401
    pretrain_config,
    shards,  # noqa: F401
)

pytestmark = pytest.mark.slow


def start(config: PretrainConfig, run: Path, **options: str) -> RunResult:
    return run_pretrain(config, run, reporter=Reporter(), **options)


def changed(config: PretrainConfig, section: str, **values: object) -> PretrainConfig:
    inner = getattr(config, section).model_copy(update=values)
    return config.model_copy(update={section: inner})


def steps(run: Path) -> list[int]:
    return [step_of(path.name) for path in list_checkpoints(run)]


def test_a_run_is_bound_to_the_content_of_its_shards_and_not_to_their_location(
    shards: Path,  # noqa: F811
    tmp_path: Path,
    tiny_tokenizer: Tokenizer,
) -> None:
    config = pretrain_config(shards, max_steps=3, validate_every=3)
    start(config, tmp_path / "whole")
    run = tmp_path / "run"
    start(changed(config, "training", time_limit=1e-9), run)
    copy = tmp_path / "local disk"
    shutil.copytree(shards, copy)
    moved = changed(config, "data", path=copy / "48" / "train")

    shard = copy / "48" / "train" / "shard-1.parquet"
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(UsageError, match=r"shard-1\.parquet is missing, though listed"):
        start(moved, run)
    shutil.copy(shard.with_name("shard-0.parquet"), shard)
    with pytest.raises(UsageError, match=r"other inputs: train/shard-1\.parquet has changed"):
        start(moved, run)
    shard.write_bytes(content)

    other = Tokenizer.train(
        [text.translate(str.maketrans("ae", "ea")) for text in SENTENCES] * 50, vocab_size=400
    )
    assert other.vocab_size == tiny_tokenizer.vocab_size
    other.save(tmp_path / "other")
    named = changed(moved, "data", tokenizer=str(tmp_path / "other"))
    with pytest.raises(UsageError, match="were made with another tokenizer"):
        start(named, tmp_path / "new")

    assert start(moved, run).outcome == "done"
    assert_equal_runs(tmp_path / "whole", run)


def test_a_run_is_bound_to_the_content_of_its_pairs(
    pairs: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    # 3 epochs of 4 different pairs are 12 samples, or 2 steps of 8.
    config = finetune_config(pairs, training={"epochs": 3, "time_limit": 1e-9})
    run_finetune(config, tmp_path / "run", reporter=Reporter())
    moved = pairs.rename(tmp_path / "moved")
    data = config.data.model_copy(update={"path": moved})
    config = config.model_copy(update={"data": data})
    file = moved / "train.jsonl"
    before = file.read_text()
    file.write_text(before.replace("Monday", "Friday"))
    with pytest.raises(UsageError, match=r"other inputs: train/train\.jsonl has changed"):
        run_finetune(config, tmp_path / "run", reporter=Reporter())
    file.write_text(before.splitlines()[0] + "\n")  # one step is enough for these
    with pytest.raises(UsageError, match=r"other inputs: train/train\.jsonl has changed"):
        run_finetune(config, tmp_path / "run", reporter=Reporter())
    file.write_text(before)
    result = run_finetune(config, tmp_path / "run", reporter=Reporter())
    assert (result.step, result.outcome) == (2, "stopped by the time limit")
    config = changed(config, "training", time_limit=None)
    assert run_finetune(config, tmp_path / "run", reporter=Reporter()).outcome == "done"
    longer = changed(config, "training", epochs=5)
    assert run_finetune(longer, tmp_path / "run", reporter=Reporter()).step == 3
    with pytest.raises(UsageError, match=r"training\.max_steps=2 \(was 3\)"):
        run_finetune(config, tmp_path / "run", reporter=Reporter())
    # The caller's settings reach the functions that read and write.
    for checkpoint in ("last", "2"):
        summarizer = Summarizer.from_pretrained(tmp_path / "run", checkpoint=checkpoint)
        assert summarizer.source_length == 60
        assert (summarizer.generation.beams, summarizer.generation.max_length) == (2, 24)


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 4 steps with a rate above 0.1, the weights give NaN forever."""
    original, moved = loop.update, []

    def update(job: Any, rate: float) -> float:
        norm = original(job, rate)
        if job.progress.step == 3 and rate > 0.1:  # becomes step 4, whose own loss is finite
            job.parameters[0].data.fill_(float("nan"))
            moved.append(rate)
        return norm

    monkeypatch.setattr(loop, "update", update)


@pytest.mark.usefixtures("diverging")
def test_a_run_with_a_non_finite_loss_resumes_from_the_last_good_checkpoint_with_a_lower_rate(
    shards: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = pretrain_config(
        shards, max_steps=7, max_bad_steps=2, checkpoint_every=1, keep_last=1, log_every=1
    )
    high = changed(config, "optimizer", learning_rate=0.5)
    run = tmp_path / "run"
    with pytest.raises(BartError, match="not finite for 2 steps in a row, up to step 6") as caught:
        start(high, run)
    assert f"lower --learning-rate with the same --out: the run resumes from {run}" in (
        caught.value.hint or ""
    )
    assert steps(run) == [3]  # step 4 was saved, and gave NaN
    with pytest.raises(BartError, match="up to step 6"):  # the same rate fails again
        start(high, run)
    with pytest.raises(UsageError, match=r"other settings: training\.seed=1"):
        start(changed(config, "training", seed=1), run)
    assert start(config, run).outcome == "done"
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3, 4, 5, 6, 7]
    assert (run / "abandoned-1" / "metrics.jsonl").is_file()
    with pytest.raises(UsageError, match=r"learning_rate=0\.5 \(was 0\.01\)"):
        start(high, run)  # a finished run cannot change its rate


@pytest.mark.usefixtures("diverging")
def test_a_non_finite_loss_at_the_last_step_does_not_finish_the_run(
    shards: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = changed(pretrain_config(shards, max_steps=5), "optimizer", learning_rate=0.5)
    with pytest.raises(BartError, match="not finite at step 5"):
        start(config, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    with pytest.raises(BartError, match="validation loss is not finite"):
        start(changed(config, "training", validate_every=4), tmp_path / "validated")


def test_a_rollback_happens_once_and_sets_the_old_branch_aside(
    shards: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = pretrain_config(
        shards, max_steps=6, checkpoint_every=2, keep_last=9, log_every=1, validate_every=2
    )
    start(config, tmp_path / "whole")
    run = tmp_path / "run"
    shutil.copytree(tmp_path / "whole", run)
    (run / ".best.77.tmp").mkdir()
    (run / "checkpoints" / ".step-00000008.77.tmp").mkdir()
    back = str(run / "checkpoints" / "step-00000002")
    stopping = changed(config, "training", time_limit=1e-9)
    assert start(stopping, run, resume=back).step == 3
    aside = run / "abandoned-1"
    assert steps(run) == [2, 3]
    assert steps(aside) == [4, 6]
    assert {row["step"] for row in read_metrics(aside)} == {3, 4, 5, 6}
    assert {"best", "model", "done.json"} <= {path.name for path in aside.iterdir()}
    assert json.loads((run / "best" / "step.json").read_text())["step"] == 2
    # The same command again, as after a requeue, resumes even if PATH no longer exists.
    shutil.rmtree(back)
    assert start(stopping, run, resume=back).step == 4
    assert start(config, run, resume=back).outcome == "done"
    assert start(config, run, resume=back).outcome == "done"
    assert not list(run.glob("abandoned-2"))
    assert not list(run.rglob(".*.tmp"))
    assert_equal_runs(tmp_path / "whole", run)


def test_a_finished_run_is_unchanged_until_max_steps_is_raised(
    shards: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = changed(pretrain_config(shards, max_steps=4), "schedule", name="constant")
    start(config, tmp_path / "whole")
    run = tmp_path / "run"
    fewer = changed(config, "training", max_steps=2)
    start(changed(fewer, "training", time_limit=1e-9), run, resume="none")
    with pytest.raises(UsageError, match="holds an unfinished run"):
        start(fewer, run, resume="none")
    with monkeypatch.context() as patch:  # SLURM repeats the command
        patch.setenv("SLURM_RESTART_COUNT", "1")
        assert start(fewer, run, resume="none").step == 2
    weights = run / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert start(changed(config, "training", max_steps=2), run).outcome == "done"
    assert weights.stat().st_mtime_ns == before
    assert start(config, run).step == 4
    assert_equal_runs(tmp_path / "whole", run)
    assert weights.read_bytes() == (tmp_path / "whole/model/model.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"training\.max_steps=2 \(was 4\)"):
        start(changed(config, "training", max_steps=2), run)


def test_the_best_checkpoints_are_kept_besides_the_last(
    shards: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = iter([3.0, 1.0, 2.0, 9.0, 8.0, 7.0])
    monkeypatch.setattr("bart_cli.training.pretrain.mean_loss", lambda *_: next(losses))
    config = pretrain_config(
        shards, max_steps=6, checkpoint_every=5, keep_last=2, keep_best=2, validate_every=1
    )
    run = tmp_path / "run"
    start(config, run)
    # 2 and 3 have the best losses; 1 was among the best for a while.
    assert steps(run) == [2, 3, 5, 6]
    assert json.loads((run / "best" / "step.json").read_text())["step"] == 2


def test_a_run_does_not_start_in_the_folder_of_an_evaluation(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: evaluate\n")
    with pytest.raises(UsageError, match="holds an evaluation"):
        changes(tmp_path, PretrainConfig(), {})
