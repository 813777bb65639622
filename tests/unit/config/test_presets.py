"""Every preset is valid and has the published settings, and errors name the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bart_cli.config.presets import (
    flatten,
    load_config,
    load_preset,
    preset_config,
    preset_names,
)
from bart_cli.config.run import EvaluateConfig, FinetuneConfig, PretrainConfig, save_config
from bart_cli.config.training import OptimizerConfig, ScheduleConfig
from bart_cli.errors import UsageError

# name -> (sequence length, global batch, per-GPU batch, lr, warm-up, steps, precision); REFERENCE.
PRETRAIN = {
    "dgxa100-{n}node-phase1": (128, 64000, 200, 5e-3, 2166, 95040, "bf16"),
    "dgxa100-{n}node-phase1-tf32": (128, 64000, 100, 5e-3, 2166, 95040, "tf32"),
    "dgxa100-{n}node-phase2": (512, 30720, 32, 4e-3, 200, 7560, "bf16"),
    "dgxa100-{n}node-phase2-tf32": (512, 30720, 16, 4e-3, 200, 7560, "tf32"),
}
# (gpus, precision) -> (global batch, per-GPU batch, steps, evaluation batch)
FINETUNE = {
    ("1gpu", "bf16"): (40, 40, 2000, 128),
    ("8gpu", "bf16"): (320, 40, 2000, 128),
    ("1gpu", "tf32"): (24, 24, 3333, 64),
    ("8gpu", "tf32"): (192, 24, 3333, 64),
}


def assert_reference_optimizer(optimizer: OptimizerConfig, schedule: ScheduleConfig) -> None:
    """Check what the reference's code sets in every published run (docs/migration.md)."""
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
    assert (optimizer.weight_decay, optimizer.decay_layer_norms) == (0.1, True)
    assert (optimizer.clip_norm, optimizer.trust_without_decay) == (0.1, False)
    shape = (schedule.name, schedule.power, schedule.end_learning_rate)
    assert shape == ("polynomial", 1.0, 1e-7)


# Decoding settings of the published runs; XSum's first token was not forced.
GENERATION = {
    "cnn-dm": {
        "beams": 4,
        "length_penalty": 2.0,
        "min_length": 56,
        "max_length": 142,
        "no_repeat_ngram": 3,
        "early_stopping": True,
        "forced_bos": True,
    },
    "xsum": {
        "beams": 6,
        "length_penalty": 1.0,
        "min_length": 11,
        "max_length": 62,
        "no_repeat_ngram": 3,
        "early_stopping": True,
        "forced_bos": False,
    },
}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_described_and_survives_yaml(name: str, tmp_path: Path) -> None:
    config = preset_config(name)
    assert load_preset(name)["description"]
    save_config(config, tmp_path / "config.yaml")
    kind = type(config)
    again = load_config(kind, config_file=tmp_path / "config.yaml")
    if not isinstance(again, PretrainConfig):  # has the source of the setting
        assert set(again.generation_sources.values()) == {str(tmp_path / "config.yaml")}
        again = again.model_copy(update={"generation_sources": {}})
    assert again == config


@pytest.mark.parametrize("nodes", [1, 40])
@pytest.mark.parametrize("pattern", PRETRAIN)
def test_pretraining_presets_hold_the_published_settings(pattern: str, nodes: int) -> None:
    config = load_config(PretrainConfig, preset=pattern.format(n=nodes))
    training = config.training
    assert PRETRAIN[pattern] == (
        config.data.sequence_length,
        training.global_batch,
        training.micro_batch,
        config.optimizer.learning_rate,
        config.schedule.warmup_steps,
        training.max_steps,
        training.precision,
    )
    assert config.optimizer.name == "nvlamb"
    assert_reference_optimizer(config.optimizer, config.schedule)
    assert training.label_smoothing == 0
    assert (config.model.dropout, config.model.attention_dropout) == (0.1, 0.1)
    assert config.model.pre_layer_norm
    assert (config.model.d_model, config.model.encoder_layers) == (1024, 12)
    assert training.global_batch % (nodes * 8 * training.micro_batch) == 0
    assert config.data.streams % (40 * 8) == 0


@pytest.mark.parametrize("data", ["cnn-dm", "xsum"])
@pytest.mark.parametrize("variant", FINETUNE, ids="-".join)
def test_finetuning_presets_hold_the_published_settings(
    data: str, variant: tuple[str, str]
) -> None:
    config = load_config(FinetuneConfig, preset=f"{data}-dgxa100-{'-'.join(variant)}")
    training, generation = config.training, config.generation
    assert FINETUNE[variant] == (
        training.global_batch,
        training.micro_batch,
        training.max_steps,
        config.evaluation.batch_size,
    )
    assert training.precision == config.evaluation.precision == variant[1]
    optimizer, schedule, model = config.optimizer, config.schedule, config.model
    assert (optimizer.name, optimizer.learning_rate) == ("adamw", 1.25e-4)
    assert_reference_optimizer(optimizer, schedule)
    assert schedule.warmup_steps == 50
    assert (training.label_smoothing, training.freeze_embeddings) == (0.1, True)
    assert (model.dropout, model.attention_dropout, model.pre_layer_norm) == (0.1, 0.1, True)
    assert (model.d_model, model.encoder_layers, model.decoder_layers) == (1024, 12, 12)
    assert (config.data.max_source_length, config.data.group_by_length) == (1024, True)
    assert config.data.max_target_length == (142 if data == "cnn-dm" else 60)
    assert generation.model_dump(include=set(GENERATION[data])) == GENERATION[data]
    evaluation = load_config(EvaluateConfig, preset=f"{data}-dgxa100-{'-'.join(variant)}")
    assert evaluation.generation == generation


@pytest.mark.parametrize(
    ("row", "schemes"),
    [
        ("token-masking", ("mask",)),
        ("token-deletion", ("delete",)),
        ("text-infilling", ("infill",)),
        ("document-rotation", ("rotate",)),
        ("sentence-shuffling", ("permute",)),
        ("infilling-shuffling", ("permute", "infill")),
    ],
)
def test_the_rows_of_table_1_differ_in_noise_alone(row: str, schemes: tuple[str, ...]) -> None:
    one = load_config(PretrainConfig, preset=f"bart-base-{row}")
    other = load_config(PretrainConfig, preset="bart-base-sentence-shuffling")
    assert one.denoising.schemes == schemes
    assert (one.denoising.mask_ratio, one.training.max_steps) == (0.3, 1_000_000)
    if "infill" in schemes:
        assert one.denoising.poisson_lambda == 3.0
    if {"mask", "infill"} & set(schemes):
        assert one.denoising.random_ratio == 0
    same = {"denoising": other.denoising, "description": other.description}
    assert one.model_copy(update=same) == other


def test_values_come_from_preset_then_file_then_options_then_set(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("extends: tiny-cpu\ntraining:\n  max_steps: 7\n  seed: 8\n  log_every: 9\n")
    config = load_config(
        PretrainConfig,
        preset="dgxa100-1node-phase1",
        config_file=own,
        sets=["training.log_every=11", "optimizer.learning_rate=1e-4"],
        options={"training.seed": 10, "training.log_every": 3, "training.precision": None},
    )
    training = config.training
    assert (training.max_steps, training.seed, training.log_every) == (7, 10, 11)
    assert training.precision == "bf16"
    assert config.optimizer.learning_rate == 1e-4


def test_of_two_settings_of_one_number_that_of_the_later_layer_counts(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("extends: tiny-cpu\ntraining: {epochs: 3}\nschedule: {warmup_ratio: 0.1}\n")

    def found(*sets: str, **options: object) -> tuple[object, ...]:
        config = load_config(PretrainConfig, sets=sets, **options)  # type: ignore[arg-type]
        return config.training.epochs, config.training.max_steps, config.schedule.warmup_ratio

    assert found("training.epochs=2", preset="tiny-cpu") == (2, 1000, None)
    assert found(config_file=own) == (3, 1000, 0.1)
    assert found("training.max_steps=5", config_file=own) == (None, 5, 0.1)
    assert found("schedule.warmup_steps=5", config_file=own) == (3, 1000, None)
    resolved = load_config(PretrainConfig, config_file=own)
    training = resolved.training.model_copy(update={"max_steps": 77})
    save_config(resolved.model_copy(update={"training": training}), tmp_path / "config.yaml")
    assert found(config_file=tmp_path / "config.yaml") == (3, 77, 0.1)  # as a run has both
    assert found(config_file=tmp_path / "config.yaml", preset="tiny-cpu") == (3, 77, 0.1)
    with pytest.raises(UsageError, match=r"max_steps=5 and training.epochs=2 set the same"):
        found("training.max_steps=5", "training.epochs=2")


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (
            "training.patience=3",
            "training.patience=3 has no effect with training.validate_every=null",
        ),
        ("training.select_by=rouge2", "training.select_by=rouge2"),
        ("data.n_validation=9", "data.n_validation=9 has no effect"),
        (
            "optimizer.name=adafactor optimizer.beta1=0.8",
            "beta1=0.8 has no effect with optimizer.name=",
        ),
        ("optimizer.name=adafactor optimizer.epsilon=1e-6", "epsilon=1e-06"),
        ("optimizer.trust_without_decay=true", "=True has no effect with optimizer.name=adamw"),
        (
            "optimizer.decay_layer_norms=true optimizer.weight_decay=0",
            "with optimizer.weight_decay=0",
        ),
        ("schedule.name=linear schedule.power=2", "schedule.power=2.0"),
        ("schedule.cycles=2", "schedule.cycles=2 has no effect with schedule.name=polynomial"),
        ("schedule.name=constant schedule.end_learning_rate=1e-6", "end_learning_rate=1e-06"),
        ("init_from=m model.d_model=64", "model.d_model=64 has no effect with init_from"),
        ("generation.temperature=0.5", "temperature=0.5 has no effect without sampling"),
        ("generation.min_p=0.1", "min_p=0.1 has no effect without sampling"),
        ("evaluation.bertscore_layer=3", "bertscore_layer=3 has no effect with metrics without"),
    ],
)
def test_a_setting_without_effect_is_refused(sets: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        load_config(FinetuneConfig, sets=sets.split())


def test_noise_and_validation_shards_without_effect_are_refused_in_pre_training() -> None:
    with pytest.raises(UsageError, match=r"denoising.random_ratio=0.2 has no effect"):
        load_config(PretrainConfig, sets=["denoising.mask_ratio=0", "denoising.random_ratio=0.2"])
    with pytest.raises(UsageError, match=r"data.validation_path=v has no effect"):
        load_config(PretrainConfig, sets=["data.validation_path=v"])
    rouge = ["training.validate_every=5", "training.select_by=rouge1"]
    with pytest.raises(UsageError, match=r"training.select_by=rouge1 has no effect"):
        load_config(PretrainConfig, sets=rouge)


def test_an_option_can_make_a_setting_of_the_preset_ineffective(tmp_path: Path) -> None:
    preset = "cnn-dm-dgxa100-1gpu-bf16"
    sets = ["schedule.name=constant", "optimizer.weight_decay=0", "init_from=m"]
    config = load_config(FinetuneConfig, preset=preset, sets=sets)
    assert config.schedule.end_learning_rate == 0
    assert not config.optimizer.decay_layer_norms
    assert config.model.d_model == 1024
    own = tmp_path / "own.yaml"  # but not in a single file
    own.write_text("training: {patience: 3}\n")
    with pytest.raises(UsageError, match=r"own.yaml: training.patience=3"):
        load_config(FinetuneConfig, config_file=own, sets=["training.max_steps=3"])


def test_a_model_preset_gives_the_model_only() -> None:
    config = load_config(FinetuneConfig, preset="bart-large")
    assert config.model.d_model == 1024
    assert config.training == FinetuneConfig().training


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preset": "tiny-cpo"}, ["no preset 'tiny-cpo'", "Did you mean 'tiny-cpu'"]),
        ({"sets": ["opt.names=lamb"]}, ["unknown key 'opt.names'", "'optimizer.name'"]),
        ({"sets": ["training.lr=1"]}, ["unknown key 'training.lr'", "Use one of: training.max_"]),
        ({"preset": "xsum-dgxa100-1gpu-bf16"}, ["is for `bart finetune`", "dgxa100"]),
        ({"sets": ["training.max_step=3"]}, ["'training.max_step'", "'training.max_steps'"]),
        ({"sets": ["training.max_steps.x=3"]}, ["'training.max_steps' is a value"]),
        ({"sets": ["nonsense"]}, ["expected section.key=value"]),
        ({"sets": ["training.seed=[1"]}, ["not valid YAML"]),
        (
            {"sets": ["training.max_steps=0"]},
            ["training.max_steps=0", "greater than or equal to 1"],
        ),
        (
            {"preset": "tiny-cpu", "options": {"training.max_steps": 0}},
            ["options: training.max_steps=0"],
        ),
        ({"sets": ["training.validate_every=0"]}, ["training.validate_every=0", "or epoch"]),
        ({"sets": ["training.precision=int4"]}, ["training.precision=int4", "'fp32'"]),
        ({"sets": ["optimizer.learning_rate=.nan"]}, ["optimizer.learning_rate", "finite"]),
        # Larger numbers overflow the timer, the array of the samples of a step, and a slice.
        ({"sets": ["training.time_limit=1.0e300"]}, ["time_limit=1.0e300", "equal to 1000000"]),
        ({"sets": ["training.global_batch=1" + 30 * "0"]}, ["global_batch=1", "equal to 1000000"]),
        ({"sets": ["training.max_steps=1" + 30 * "0"]}, ["max_steps=1", "equal to 1000000000"]),
        (
            {"sets": ["training.micro_batch=9", "training.global_batch=8"]},
            ["micro_batch=9 is larger than training.global_batch=8"],
        ),
        ({"config_file": Path("no-such.yaml")}, ["no such configuration file: no-such.yaml"]),
        ({"config_file": Path("/")}, ["cannot read /: Is a directory"]),
    ],
)
def test_errors_name_the_key_the_value_and_what_is_allowed(
    arguments: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(PretrainConfig, **arguments)  # type: ignore[arg-type]
    text = f"{caught.value.message} {caught.value.hint or ''}"
    assert caught.value.exit_code == 2
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"training:\n  max_stepz: 3\n", ["unknown key 'training.max_stepz'", "max_steps"]),
        (b"training: [\n", ["line 2", "not valid YAML"]),
        (b"hello", ["expected sections"]),
        (b"\xff\xfe", ["bad.yaml is not UTF-8 text"]),
        (b"extends: nowhere\n", ["no preset 'nowhere'"]),
        (b"extends: tiny-cup\n", ["Did you mean 'tiny-cpu'? Run"]),
    ],
)
def test_an_error_names_the_bad_file_and_its_problem(
    tmp_path: Path, content: bytes, words: list[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_config(PretrainConfig, config_file=path)
    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint or ''}"


def test_presets_have_no_settings_that_only_repeat_what_they_extend() -> None:
    for name in preset_names():
        tree = load_preset(name)
        assert dict(flatten(tree)), name
