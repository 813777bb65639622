"""`bart finetune`: fine-tune a model on pairs of article and summary."""

from pathlib import Path

from bart_cli import tokenizer_files
from bart_cli.config.run import FinetuneConfig
from bart_cli.data.batch import Collate
from bart_cli.data.pair_ids import count_training_pairs, encode_pairs, load_encoded, load_prepared
from bart_cli.data.pairs import PairSource, Split
from bart_cli.data.summarization_loader import SummarizationLoader, summarization_validation_batches
from bart_cli.errors import UsageError
from bart_cli.model.bart import Bart
from bart_cli.model.formats import resolve_model
from bart_cli.model.pickles import load_pickle
from bart_cli.progress import Reporter
from bart_cli.runtime.signals import StopRequest
from bart_cli.runtime.world import World, held_by_rank_0, join_world
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.checkpoint import list_checkpoints
from bart_cli.training.checks import check_run, in_steps
from bart_cli.training.loop import Validate
from bart_cli.training.metrics import Row
from bart_cli.training.resume import changes, find_start
from bart_cli.training.run import RunResult, finished_result, run_training, start_model
from bart_cli.training.setup import keep_layers
from bart_cli.training.validation import mean_loss, require_no_stop, validation_share

KEPT_SAMPLES = 3  # summaries to keep of a validation


def run_finetune(
    config: FinetuneConfig,
    run: Path,
    *,
    resume: str = "auto",
    dry_run: bool = False,
    reporter: Reporter,
) -> RunResult:
    """Fine-tune in a run folder, from the beginning or from its newest checkpoint.

    Args:
        resume: auto, none, or a checkpoint folder.
        dry_run: write nothing, and only estimate a run that is not finished.
    """
    with join_world() as world, held_by_rank_0(run, world, reporter, writes=not dry_run):
        reporter = reporter if world.is_main else Reporter()
        config, source, tokenizer = _check(config, run, world, reporter)
        data = config.data
        content = world.on_rank_0(lambda: _digests(config, source, tokenizer)) or {}
        start = world.from_rank_0(lambda: find_start(run, config, content, resume, reporter))
        if start.finished:
            return finished_result(run, world)
        model = start_model(config, tokenizer, world, reporter, checkpoint=start.checkpoint)
        if start.checkpoint is None:
            model = keep_layers(model, config.keep_encoder_layers, config.keep_decoder_layers)
        if data.prefix is not None:  # saved with the model, to be used at inference
            model.config = model.config.model_copy(update={"prefix": data.prefix})
        positions = model.config.max_position_embeddings
        for name in ("max_source_length", "max_target_length", "max_validation_target_length"):
            if (length := getattr(data, name)) is not None and length > positions:
                raise UsageError(
                    f"data.{name}={length} exceeds the model's {positions} positions",
                    hint=f"Pass --set data.{name}={positions}.",
                )
        tokenizer = tokenizer.fitted(model.config.vocab_size)
        train_pairs = load_encoded(
            source, "train", data.n_train, data, tokenizer, model.config.prefix, reporter, world
        )
        for name, rows, limit in (
            ("articles", train_pairs.sources, data.max_source_length),
            ("summaries", train_pairs.targets, data.max_target_length),
        ):
            if rows.cut:
                reporter.info(
                    f"{rows.cut:,} of {len(rows):,} {name} are truncated to {limit} tokens"
                )
        collate = Collate.of(tokenizer, model.config)
        return run_training(
            config,
            run,
            world,
            model,
            tokenizer,
            start,
            content,
            longest=(
                int(train_pairs.sources.lengths.max(initial=1)),
                int(train_pairs.targets.lengths.max(initial=1)),
            ),
            make_loader=lambda share: SummarizationLoader(
                train_pairs, data, share, seed=config.training.seed, collate=collate
            ),
            make_validation=lambda config: _validation(
                config, source, tokenizer, model, world, reporter
            ),
            generation=config.generation,
            dry_run=dry_run,
            reporter=reporter,
        )


def check_finetune_run(config: FinetuneConfig, run: Path, world: World) -> None:
    """Check settings, data and run folder."""
    config, source, tokenizer = _check(config, run, world, Reporter())
    changes(run, config, _digests(config, source, tokenizer))


def _check(
    config: FinetuneConfig, run: Path, world: World, reporter: Reporter
) -> tuple[FinetuneConfig, PairSource, Tokenizer]:
    """Check settings and data; return the settings that follow from them, pairs and tokenizer."""
    from bart_cli.inference.load import as_targets_begin, in_language

    data = config.data
    if data.path is None:
        raise UsageError("no data: pass --data with a folder of pairs (train.jsonl …)")
    tokenizer = Tokenizer.from_pretrained(data.tokenizer or _tokenizer_of(config, run))
    source, target = data.source_language, data.target_language
    if tokenizer.languages and target is None:  # the language of the articles
        target = tokenizer.target_language or source or tokenizer.source_language
    tokenizer = tokenizer.with_languages(source, target).with_max_length(data.max_source_length)
    # Decode like the training targets: in their language, and with <s> forced if they begin so.
    generation, sources = as_targets_begin(tokenizer, config.generation, config.generation_sources)
    generation = in_language(tokenizer, generation)
    matched = {"generation": generation, "generation_sources": sources}
    config = config.model_copy(update=matched)
    pairs = PairSource(data)
    every = config.training.validate_every
    if every is not None and "validation" not in pairs.splits:
        raise UsageError(
            f"no validation split in {data.path}, but training.validate_every={every}",
            hint="Pass --validation-share 0.05 to hold out part of the pairs, or "
            "--set training.validate_every=null.",
        )

    def count() -> int:
        return world.from_rank_0(lambda: count_training_pairs(pairs, data.n_train))

    config = in_steps(config, count, reporter)
    check_run(config, world, [])
    return config, pairs, tokenizer


def _digests(config: FinetuneConfig, source: PairSource, tokenizer: Tokenizer) -> dict[str, str]:
    """Compute digests of the data by name, independent of where the files are."""
    splits = ["train"] + (["validation"] if config.training.validate_every is not None else [])
    content = {"the tokenizer": tokenizer.fingerprint()}
    for split in splits:
        content |= {f"{split}/{name}": digest for name, digest in source.digests(split).items()}
    return content


def _tokenizer_of(config: FinetuneConfig, run: Path) -> str | Path:
    """Find the folder or hub id of the tokenizer.

    A resumed run has its own tokenizer: its pre-trained model may no longer exist. A new run uses
    the tokenizer of the pre-trained model or, from scratch, the one next to prepared pairs.
    """
    if kept := list_checkpoints(run):
        return kept[-1] / "model"
    if config.init_from is not None:
        path = resolve_model(config.init_from)
        if not path.is_file():
            return path
        if not any((path.parent / name).is_file() for name in tokenizer_files.FILES):
            load_pickle(path)  # a file that is no model is a worse problem
        return path.parent
    assert config.data.path is not None
    path = config.data.path
    beside = (path.parent if path.is_file() else path) / "tokenizer"
    if beside.is_dir():
        return beside
    raise UsageError(
        "no tokenizer: neither --init-from nor pairs prepared by `bart preprocess summarization`",
        hint="Pass one with --set data.tokenizer=FOLDER.",
    )


def _validation(
    config: FinetuneConfig,
    source: PairSource,
    tokenizer: Tokenizer,
    model: Bart,
    world: World,
    reporter: Reporter,
) -> Validate | None:
    """Return the validation: the loss and, if ROUGE selects the best model, ROUGE scores.

    Returns None if validation is disabled.
    """
    data, training = config.data, config.training
    if training.validate_every is None:
        return None
    limit, prefix = data.n_validation, model.config.prefix
    longest = data.max_validation_target_length
    if longest is not None:
        data = data.model_copy(update={"max_target_length": longest})
    pairs = load_prepared(source, "validation", limit, data, tokenizer, prefix)
    found = Split("validation")  # read where its texts are needed
    if pairs is None:
        read = found.keep(source.stream(found, limit))
        pairs = encode_pairs(read, data, tokenizer, prefix, reporter, world)
        # For prepared pairs, `bart preprocess` has reported it.
        world.on_rank_0(lambda: source.report_overlap(found, reporter))
    elif training.select_by != "loss":
        found = world.on_rank_0(lambda: source.read("validation", limit=limit)) or found
    found.report(reporter)
    references = [pair.references for pair in found.pairs] if training.select_by != "loss" else []
    shown = found.pairs[:KEPT_SAMPLES]
    if longest is not None:
        references = [tuple(tokenizer.cut_targets(texts, longest)) for texts in references]
    share, collate = validation_share(training, world), Collate.of(tokenizer, model.config)

    def validate(stop: StopRequest) -> Row:
        batches = summarization_validation_batches(pairs, share, collate)
        loss = mean_loss(model, batches, world, training.precision, stop)
        if training.select_by == "loss":
            return {"validation_loss": loss, "score": -loss}
        scores, texts = decoded_rouge(stop)
        samples = [
            {"article": pair.source, "reference": pair.target, "prediction": text}
            for pair, text in zip(shown, texts, strict=False)
        ]
        score = scores[training.select_by]
        return {"validation_loss": loss, "score": score} | scores | {"samples": samples}

    def decoded_rouge(stop: StopRequest) -> tuple[Row, list[str]]:
        """Return ROUGE of summaries decoded by all ranks, and the first summaries."""
        from bart_cli.evaluation.rouge import score_systems
        from bart_cli.inference.generate import generate

        require_no_stop(stop, world)
        with stop.cutting():
            own = range(world.rank, len(pairs.sources), world.size)
            found = generate(
                model,
                [pairs.sources[i].tolist() for i in own],
                config.generation,
                batch_size=config.evaluation.batch_size,
            )
        require_no_stop(stop, world)
        parts = world.gather_all(tokenizer.decode_batch([best.tokens for best, *_ in found]))
        scores: Row = {}
        texts: list[str] = []
        if world.is_main:
            texts = [parts[i % world.size][i // world.size] for i in range(len(references))]
            with stop.cutting():
                scored = score_systems({"": texts}, references, config.evaluation)
                scores = dict(scored[""].mean)
        require_no_stop(stop, world)
        return world.broadcast((scores, texts[:KEPT_SAMPLES]))

    return validate
