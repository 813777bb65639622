"""Grids and failing runs of sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bart_cli.errors import BartError, UsageError
from bart_cli.progress import Reporter
from bart_cli.training.sweep import Trial, parse_grid, run_sweep, spread, trials_of


def test_every_combination_is_trained_with_every_seed() -> None:
    grid = parse_grid(["optimizer.learning_rate=1e-3,3e-3", "denoising.schemes=[mask],[permute,infill]"])  # fmt: skip # noqa: E501
    assert grid["denoising.schemes"] == ["[mask]", "[permute,infill]"]
    trials = trials_of(grid, [42, 43])
    assert len({trial.name for trial in trials}) == len(trials) == 8
    assert "training.seed=42" in trials[0].sets


@pytest.mark.parametrize("text", ["a", "=1", "a=", "a=1,,2", "a=1,1"])
def test_a_grid_without_key_or_values_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--grid"):
        parse_grid([text])


@pytest.mark.parametrize(
    ("problem", "said"),
    [(BartError("out of memory"), "out of memory"), (KeyError("a bug"), "KeyError: 'a bug'")],
)
def test_a_failed_run_is_reported_and_the_others_continue(
    tmp_path: Path, problem: Exception, said: str
) -> None:
    trials = trials_of({"a.b": ["1", "2"]}, [1, 2])

    def train(trial: Trial, run: Path) -> Any:
        if trial.seed == 2 and trial.values[0][1] == "1":
            raise problem
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("training: {max_steps: 1, global_batch: 1}\n")
        row = {"step": 1, "loss": 4.0 + trial.seed, "tokens_per_second": 9.0}
        row |= {"sequences_per_second": 1.0, "skipped": 0}
        (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        return SimpleNamespace(model=run, signal=None)

    one, two = run_sweep(trials, train, tmp_path / "out", Reporter())
    assert one.failures == {"b=1,seed=2": said}
    assert (one.numbers["loss"], two.numbers["loss"]) == (spread([5.0]), spread([5.0, 6.0]))
    assert two.numbers["loss"].deviation == pytest.approx(0.5**0.5)
    assert (tmp_path / "out" / "sweep.json").is_file()


@pytest.mark.parametrize(
    ("signal", "outcome", "message", "code"),
    [
        (2, "stopped by SIGINT", "stopped by SIGINT in b=1,seed=1, run 1 of 2", 130),
        (15, "done", "stopped by SIGTERM in b=1,seed=1, run 1 of 2", 143),
        (None, "stopped by the time limit", "b=1,seed=1, run 1 of 2: stopped by the time li", 1),
    ],
)
def test_a_sweep_ends_with_the_run_that_was_stopped(
    tmp_path: Path, signal: int | None, outcome: str, message: str, code: int
) -> None:
    model = tmp_path if outcome == "done" else None
    result: Any = SimpleNamespace(model=model, signal=signal, outcome=outcome)
    trials = trials_of({"a.b": ["1", "2"]}, [1])
    with pytest.raises(BartError, match=message) as caught:
        run_sweep(trials, lambda trial, run: result, tmp_path / "out", Reporter())
    assert caught.value.exit_code == code
