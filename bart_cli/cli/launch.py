"""`bart launch`: job scripts for clusters."""

from __future__ import annotations

from typing import Annotated

import typer

from bart_cli.cli.options import complete_preset
from bart_cli.config.presets import load_preset
from bart_cli.training.job_script import slurm_script

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Job scripts for clusters.")


@app.callback()
def group() -> None:
    """Job scripts for clusters."""


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def slurm(
    context: typer.Context,
    preset: Annotated[
        str,
        typer.Option(
            help="Preset of the run; see `bart presets list`.", autocompletion=complete_preset
        ),
    ],
    nodes: Annotated[int | None, typer.Option(min=1, help="Default: as the preset says.")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of a node.")] = 8,
    hours: Annotated[float, typer.Option(min=0.1, help="Time limit of the job.")] = 24.0,
    partition: Annotated[str | None, typer.Option(help="Partition of the cluster.")] = None,
    container: Annotated[
        str | None, typer.Option(help="Image for Pyxis: --container-image of srun.")
    ] = None,
    mounts: Annotated[
        str | None,
        typer.Option(metavar="FROM:TO,…", help="Folders that the container sees."),
    ] = None,
) -> None:
    """Print an sbatch script for a preset; what follows goes to the command unchanged.

    A job that reaches its time limit writes a checkpoint and is put into the queue again.

    [bold]bart launch slurm --preset dgxa100-40node-phase1 --data /data/shards > job.sh &&
    sbatch job.sh[/bold]
    """
    tree = load_preset(preset)
    typer.echo(
        slurm_script(
            preset,
            str(tree.get("task", "pretrain")),
            context.args,
            nodes=nodes,
            gpus=gpus,
            hours=hours,
            partition=partition,
            container=container,
            mounts=mounts,
        ),
        nl=False,
    )
