"""`bart launch`: print job scripts for clusters."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bart_cli.cli.options import ConfigOptions, complete_preset, option
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.errors import UsageError
from bart_cli.runtime.slurm import SlurmJob, slurm_script

app = typer.Typer(no_args_is_help=True, help="Print job scripts for clusters.")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def slurm(
    context: typer.Context,
    preset: Annotated[
        str | None,
        option("Preset of the run; see `bart presets list`.", autocompletion=complete_preset),
    ] = None,
    config_file: Annotated[
        Path | None, option("YAML file with settings, instead of a preset.", "--config")
    ] = None,
    nodes: Annotated[
        int | None, option("Number of nodes. Default: the number in the preset's name.", min=1)
    ] = None,
    gpus: Annotated[int, option("GPUs per node, one task each.", min=1)] = 8,
    cpus_per_task: Annotated[
        int | None, option("CPU cores per task. Default: the loader processes plus two.", min=1)
    ] = None,
    hours: Annotated[float, option("Time limit of the job.", min=0.1)] = 24.0,
    partition: Annotated[str | None, option("Partition of the cluster.")] = None,
    account: Annotated[str | None, option("Account to charge.")] = None,
    qos: Annotated[str | None, option("Quality of service.")] = None,
    container: Annotated[
        str | None, option("Container image for Pyxis (srun --container-image).")
    ] = None,
    mounts: Annotated[
        str | None, option("Folders to mount into the container: FROM:TO,…", metavar="FROM:TO,…")
    ] = None,
) -> None:
    """Print an sbatch script for a preset.

    Other options are passed to `bart pretrain` or `bart finetune` and checked as if by that
    command. Options after `--` are passed to sbatch unchanged. A job that reaches its time limit
    writes a checkpoint and requeues itself.

    [bold]bart launch slurm --preset dgxa100-40node-phase1 --data /data/shards -- --reservation=bart
    > job.sh && sbatch job.sh[/bold]
    """
    if (preset is None) == (config_file is None):
        raise UsageError("pass either --preset NAME or --config FILE")
    arguments, sbatch = _divide(context.args, sys.argv)
    settings = ConfigOptions(preset, config_file)
    name, task = settings.name or "", settings.task() or "pretrain"
    if task not in ("pretrain", "finetune"):
        raise UsageError(f"{name} is for `bart {task}`, which needs no job script")
    source = ["--config", str(config_file)] if preset is None else ["--preset", preset]
    config = _configuration(task, [*source, *arguments])
    job = SlurmJob(
        name=name,
        command=["bart", task, *source, *arguments],
        nodes=nodes,
        gpus=gpus,
        cpus_per_task=cpus_per_task or getattr(config.data, "workers", 0) + 2,
        hours=hours,
        options={"partition": partition, "account": account, "qos": qos},
        sbatch=sbatch,
        container=container,
        mounts=mounts,
    )
    typer.echo(slurm_script(job), nl=False)


def _divide(words: Sequence[str], line: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate options of the run from those for sbatch after `--`, which the parser removes."""
    after = list(line[line.index("--") + 1 :]) if "--" in line else []
    for word in after:
        if not word.startswith("-"):
            raise UsageError(f"after `--`: expected sbatch options as --name=value, got {word}")
    return list(words[: len(words) - len(after)]), after


def _configuration(task: str, arguments: Sequence[str]) -> PretrainConfig | FinetuneConfig:
    """Return the configuration with which `bart TASK ARGUMENTS` would run."""
    module: Any = importlib.import_module(f"bart_cli.cli.{task}")
    app = typer.Typer()
    app.command(name=task)(module.command)
    context = typer.main.get_command(app).make_context(f"bart {task}", list(arguments))
    return module.configure(**module.command.fill(dict(context.params)))
