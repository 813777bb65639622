"""The job script as text; that bash runs it is tested with the command."""

from __future__ import annotations

from bart_cli.training.job_script import slurm_script


def script(*arguments: str) -> str:
    return slurm_script(
        *("tiny-cpu", "pretrain", arguments),
        nodes=None,
        gpus=2,
        hours=1.5,
        partition=None,
        container=None,
    )


def test_a_preset_alone_is_enough() -> None:
    assert "srun bart pretrain --preset tiny-cpu\n" in script()
    assert "runs/pretrain-tiny-cpu/done.json" in script()


def test_the_run_is_looked_for_where_out_says() -> None:
    for arguments in (("--out", "my/run"), ("--data", "x", "--out=my/run")):
        assert "[[ ! -f my/run/done.json ]]" in script(*arguments)
