"""`bart pretrain`: pre-train a model to denoise the text in shards."""

from collections.abc import Mapping
from pathlib import Path

from bart_cli.config.model import ModelConfig
from bart_cli.config.presets import load_config
from bart_cli.config.run import PretrainConfig
from bart_cli.data.batch import Collate
from bart_cli.data.pretrain_loader import PretrainLoader, share_of_cut_tokens, validation_batches
from bart_cli.data.shards import find_tokenizer, open_shards, resolve_shards
from bart_cli.errors import UsageError
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model, require_room
from bart_cli.progress import Reporter
from bart_cli.runtime.signals import StopRequest
from bart_cli.runtime.world import World, held_by_rank_0, join_world
from bart_cli.tokenizer import Tokenizer
from bart_cli.training import run as runs
from bart_cli.training.checkpoint import list_checkpoints
from bart_cli.training.checks import check_run, in_steps
from bart_cli.training.loop import Validate
from bart_cli.training.metrics import Row
from bart_cli.training.resume import changes, find_start, read_outcome
from bart_cli.training.validation import mean_loss, validation_share


def run_pretrain(
    config: PretrainConfig,
    run: Path,
    *,
    resume: str = "auto",
    dry_run: bool = False,
    reporter: Reporter,
) -> runs.RunResult:
    """Pre-train in a run folder, from the beginning or from its newest checkpoint.

    Args:
        resume: auto, none, or a checkpoint folder.
        dry_run: write nothing, and only estimate a run that is not finished.
    """
    with join_world() as world, held_by_rank_0(run, world, reporter, writes=not dry_run):
        reporter = reporter if world.is_main else Reporter()
        data = config.data
        config, shards, tokenizer = _check(config, world, reporter)
        content = world.on_rank_0(lambda: _digests(config, shards, tokenizer)) or {}
        start = world.from_rank_0(lambda: find_start(run, config, content, resume, reporter))
        if start.finished:
            return runs.finished_result(run, world)
        cut = share_of_cut_tokens(shards, tokenizer, data.sequence_length) if world.is_main else 0.0
        if cut >= 0.01:
            reporter.warn(
                f"{cut:.1%} of the tokens of {shards} are never read: samples are longer than "
                f"data.sequence_length={data.sequence_length}. Preprocess the text again with "
                f"--target-length {data.sequence_length}, or raise the sequence length"
            )
        model = runs.start_model(
            config, tokenizer, world, reporter, checkpoint=start.checkpoint, grow=True
        )
        if excess := _excess(data.sequence_length, model.config):
            raise UsageError(excess[0])
        collate = Collate.of(tokenizer, model.config)
        return runs.run_training(
            config,
            run,
            world,
            model,
            tokenizer,
            start,
            content,
            longest=(data.sequence_length, data.sequence_length),
            make_loader=lambda share: PretrainLoader(shards, config, tokenizer, share, collate),
            make_validation=lambda config: _validation(config, shards, tokenizer, model, world),
            dry_run=dry_run,
            reporter=reporter,
        )


def _excess(sequence_length: int, model: ModelConfig) -> list[str]:
    """Return the problem that samples are longer than the position table, if they are."""
    positions = model.max_position_embeddings
    if sequence_length <= positions:
        return []
    return [
        f"data.sequence_length={sequence_length} exceeds model.max_position_embeddings={positions}"
    ]


def check_phases(phases: Mapping[Path, PretrainConfig], world: World) -> None:
    """Check all phases, by run folder, before the first one starts: settings, data and folders.

    Each phase starts from the weights of the previous one.
    """
    before: tuple[Tokenizer, ModelConfig] | None = None
    extended: Path | None = None  # an earlier phase that is to be trained further
    for run, config in phases.items():
        try:
            before, changed = check_pretrain_run(config, run, world, before)
            if extended and changed is not None:
                raise UsageError(
                    f"it was trained from the weights of {extended.name}, which would now be "
                    "trained further",
                    hint=f"Choose another --out, or move {run} away to train it again.",
                )
            if changed is not None and (changed or read_outcome(run) is None):
                extended = run
        except UsageError as error:
            error.message = f"phase {run.name}: {error.message}"
            raise


def check_pretrain_run(
    config: PretrainConfig,
    run: Path,
    world: World,
    before: tuple[Tokenizer, ModelConfig] | None = None,
) -> tuple[tuple[Tokenizer, ModelConfig], dict[str, str] | None]:
    """Check settings, data and run folder; return tokenizer and architecture, and `changes`.

    `before` are tokenizer and architecture of the run whose weights this one starts from.
    """
    config, shards, tokenizer = _check(config, world, Reporter(), before and before[1])
    if before is None:
        before = tokenizer, _starting_model(config, run, tokenizer)
        if excess := _excess(config.data.sequence_length, before[1]):
            raise UsageError(excess[0])
    elif tokenizer.fingerprint() != before[0].fingerprint():
        raise UsageError("its tokenizer differs from that of the first phase")
    return before, changes(run, config, _digests(config, shards, tokenizer))


def _starting_model(config: PretrainConfig, run: Path, tokenizer: Tokenizer) -> ModelConfig:
    """Return the architecture that a run starts with, or has started with."""
    if list_checkpoints(run):
        return load_config(PretrainConfig, config_file=run / "config.yaml").model
    if config.init_from is None:
        return runs.fit_vocabulary(config.model, tokenizer)
    model = load_model(config.init_from).model.config
    require_room(tokenizer, model)
    return model


def _check(
    config: PretrainConfig, world: World, reporter: Reporter, model: ModelConfig | None = None
) -> tuple[PretrainConfig, Path, Tokenizer]:
    """Check settings and data; return the settings that follow from them, shards and tokenizer.

    `model` is the architecture of the weights in `init_from`, if it is known.
    """
    data = config.data
    problems: list[str] = []
    if data.path is None:
        raise UsageError(
            "no data: pass --data with the output folder of `bart preprocess pretrain`"
        )
    if data.streams % world.size:
        problems.append(
            f"data.streams={data.streams} is not divisible by the number of ranks ({world.size})"
        )
    if config.init_from is None:
        model = config.model
    if model is not None:
        problems += _excess(data.sequence_length, model)
    shards = resolve_shards(data.path, data.sequence_length)
    if config.training.validate_every is not None:
        _validation_shards(config, shards)
    tokenizer = find_tokenizer(shards, data.tokenizer)
    config = in_steps(config, lambda: open_shards(shards).samples, reporter)
    check_run(config, world, problems)
    return config, shards, tokenizer


def _validation_shards(config: PretrainConfig, shards: Path) -> Path:
    folder = config.data.validation_path or shards.parent / "validation"
    return resolve_shards(folder, config.data.sequence_length, "validation")


def _digests(config: PretrainConfig, shards: Path, tokenizer: Tokenizer) -> dict[str, str]:
    """Compute digests of the data by name, independent of where the files are."""
    folders = {"train": shards}
    if config.training.validate_every is not None:
        folders["validation"] = _validation_shards(config, shards)
    content = {"the tokenizer": tokenizer.fingerprint()}
    for split, folder in folders.items():
        found = open_shards(folder)
        found.require_tokenizer(tokenizer)
        content |= {f"{split}/{name}": digest for name, digest in found.digests().items()}
    return content


def _validation(
    config: PretrainConfig, shards: Path, tokenizer: Tokenizer, model: Bart, world: World
) -> Validate | None:
    """Return the validation, or None if it is disabled."""
    if config.training.validate_every is None:
        return None
    folder = _validation_shards(config, shards)
    share, collate = validation_share(config.training, world), Collate.of(tokenizer, model.config)

    def validate(stop: StopRequest) -> Row:
        found = validation_batches(folder, config, tokenizer, share, collate)
        loss = mean_loss(model, found, world, config.training.precision, stop)
        return {"validation_loss": loss, "score": -loss}

    return validate
