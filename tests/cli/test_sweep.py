"""`bart sweep`: killed and resumed, and wrong usage."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bart_cli.cli.app import build_app
from bart_cli.errors import UsageError
from bart_cli.tokenizer import Tokenizer
from tests.cli.test_training_commands import TINY
from tests.command import bart, start
from tests.conftest import SENTENCES

SETTINGS = [
    "--preset=tiny-cpu", *TINY, "--set=data.sequence_length=64", "--set=training.max_steps=2",
    "--set=training.global_batch=8", "--set=training.micro_batch=8",
    "--set=schedule.warmup_steps=1", "--set=training.checkpoint_every=1",
]  # fmt: skip
GRID = ["--grid=optimizer.learning_rate=1e-3,3e-3", "--grid=denoising.schemes=[mask],[permute,infill]"]  # fmt: skip # noqa: E501


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    """Shards as LDDL writes them: text alone."""
    folder = tmp_path_factory.mktemp("sweep") / "shards"
    folder.mkdir()
    for number in range(8):
        table = pa.table({"sentences": [" ".join(SENTENCES)] * 4})
        pq.write_table(table, folder / f"shard-{number}.parquet")
    tiny_tokenizer.save(folder / "tokenizer")
    return folder


def test_a_killed_sweep_is_resumed(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["sweep", *SETTINGS, *GRID, "--seeds", "2", "--data", shards, "--out", out]
    first, second = (out / f"learning_rate=1e-3,schemes=_mask_,seed={seed}" for seed in (42, 43))
    killed = start(*command)
    while not list(second.glob("checkpoints/step-*")) and killed.running:
        time.sleep(0.01)
    killed.signal(signal.SIGKILL)
    assert killed.wait().returncode == -signal.SIGKILL
    assert (first / "done.json").is_file()
    assert not (second / "done.json").exists()
    written = (first / "done.json").stat().st_mtime_ns
    again = bart(*command, "--json")
    assert again.returncode == 0, again.stderr
    assert (first / "done.json").stat().st_mtime_ns == written, "a finished run was trained again"
    assert "resuming from" in again.stderr
    rows = json.loads(again.stdout)
    assert json.loads((out / "sweep.json").read_text()) == rows
    assert [list(row["settings"].values()) for row in rows] == [
        [rate, schemes] for rate in ("1e-3", "3e-3") for schemes in ("[mask]", "[permute,infill]")
    ]
    for row in rows:
        losses = []
        for run in map(Path, row["runs"]):
            config = (run / "config.yaml").read_text()
            assert f"learning_rate: {float(row['settings']['optimizer.learning_rate'])}" in config
            log = (run / "metrics.jsonl").read_text().splitlines()
            assert [json.loads(line)["step"] for line in log] == [1, 2]
            losses.append(json.loads(log[-1])["loss"])
        assert len(losses) == 2
        assert row["numbers"]["loss"]["mean"] == pytest.approx(sum(losses) / 2)
        deviation = abs(losses[0] - losses[1]) / 2**0.5
        assert row["numbers"]["loss"]["deviation"] == pytest.approx(deviation)
    # Another sweep with the same names is refused before anything is trained.
    other = [*map(str, command), "--set=optimizer.weight_decay=0.5"]
    with pytest.raises(UsageError, match=r"seed=42 holds a run with other settings: optimizer.wei"):
        build_app("sweep")(args=other, standalone_mode=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid="], "--grid : expected section.key=value,value"),
        (["--grid=optimizer.learning_rate="], "expected section.key=value,value"),
        ([], "nothing to compare"),
        (["--grid=optimizer.lerning_rate=1,2"], "unknown key 'optimizer.lerning_rate'"),
        (["--grid=optimizer.learning_rate=1e-3,50"], "optimizer.learning_rate=50: "),
        (["--grid=optimizer.learning_rate=1e-3,0.001"], "=0.001,seed=42 is the same as"),
        (["--grid=training.max_steps=2,3"], "--grid training.max_steps: --set training.max"),
        (["--grid=data.path=a,b"], "--grid data.path: --data "),
        (["--grid=training.seed=1,2"], "--grid does not accept training.seed"),
        (["--grid=model.max_position_embeddings=32,64"], "data.sequence_length=64 exceeds"),
        (["--seeds=2", "--set=training.seed=7"], "not part of this sweep: seed=1 and 1 more"),
    ],
)  # fmt: skip
def test_wrong_usage_is_reported_before_anything_is_trained(
    options: list[str], message: str, shards: Path, tmp_path: Path
) -> None:
    for seed in (1, 2):
        (tmp_path / f"seed={seed}").mkdir()
        (tmp_path / f"seed={seed}" / "config.yaml").touch()
    command = ["sweep", *SETTINGS, "--data", str(shards), "--out", str(tmp_path), *options]
    with pytest.raises(UsageError) as error:
        build_app("sweep")(args=command, standalone_mode=False)
    assert message in error.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed=1", "seed=2"]
