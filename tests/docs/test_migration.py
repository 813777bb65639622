"""docs/migration.md maps every option of the reference, and only to options that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from bart_cli.cli.app import build_app
from bart_cli.config.presets import flatten, preset_names
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| reference", "| option", "| argument"))
]

SCRIPTS = """build.sh launch.sh get_data.sh get_pretraining_data.sh preprocess_pretrain_data.sh
run_pretraining.sh run_summarization.sh run_eval_summarization.sh run_summarization_eval.sh
cnn_dm_params.sh xsum_params.sh run_training_benchmark.sh run_inference_benchmark.sh""".split()

TRAINING = """config_path cache_dir resume_from_checkpoint encoder_layerdrop decoder_layerdrop
dropout attention_dropout learning_rate lr_scheduler weight_decay gradient_clip_val
max_grad_norm adam_epsilon max_steps warmup_steps num_workers min_num_train_epochs
train_batch_size eval_batch_size adafactor lamb affinity
allreduce_post_accumulation_half_precision output_dir fp16 bf16 n_tpu_cores do_train do_predict
gradient_accumulation_steps seed data_dir log_freq save_checkpoint_steps profile pre_ln
max_source_length load_model_weights_only freeze_encoder freeze_embeds logger_name n_train
buffer_size task label_smoothing mlm_probability permute_sentence_ratio src_lang tgt_lang
early_stopping_patience local_rank json-summary n_val n_test max_target_length
val_max_target_length test_max_target_length eval_max_gen_length sortish_sampler
max_tokens_per_batch eval_beams val_metric save_top_k distill layers do_encoder do_decoder
gpus""".split()

EVALUATION = """type_path device prefix task bs n_obs num_return_sequences fp16 dump-args info
eval_max_gen_length eval_beams max_source_length max_target_length sync_timeout debug
json-summary distill layers do_encoder do_decoder local_rank""".split()

LDDL = """warc-files-start-date warc-files-end-date start-date end-date wikipedia common-crawl
open-webtext sink target-seq-length num-blocks""".split()

POSITIONAL = """train_batch_size_phase1 train_batch_size_phase2 learning_rate_phase1
learning_rate_phase2 precision use_preln num_gpus warmup_steps_phase1 warmup_steps_phase2
train_steps_phase1 train_steps_phase2 save_checkpoint_steps num_accumulation_phase1
num_accumulation_steps_phase2 config_path DATA_DIR CKPT_PATH INIT_CKPT CONFIG_PATH NUM_GPU LR BS
ACCUM PREC PRECISION TRAIN_STEPS WARMUP_STEPS MAX_SOURCE_LEN MAX_TARGET_LEN EVAL_BEAMS EVAL_BS
PRED_BS PRELN""".split()


def section(title: str) -> str:
    """Return the text below a heading, up to the next heading of the same level."""
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for inner in getattr(command, "commands", {}).values():
        yield from options(inner)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_mapped(name: str) -> None:
    assert name in section("Scripts")


@pytest.mark.parametrize("name", TRAINING)
def test_every_option_of_training_is_mapped(name: str) -> None:
    assert f"`--{name}`" in section("Options of pretrain.py and finetune.py")


@pytest.mark.parametrize("name", EVALUATION)
def test_every_option_of_evaluation_is_mapped(name: str) -> None:
    assert f"`--{name}`" in section("Options of run_eval.py")


@pytest.mark.parametrize("name", LDDL)
def test_every_option_of_lddl_is_mapped(name: str) -> None:
    assert f"`--{name}`" in section("Scripts")


@pytest.mark.parametrize("name", POSITIONAL)
def test_every_positional_argument_is_mapped(name: str) -> None:
    assert f"`{name}`" in section("Positional arguments of the scripts")


def test_no_replacement_is_empty() -> None:
    for row in ROWS:
        if not set(row[0]) <= {"-", "|"}:
            assert len(row) == 2, row
            assert len(row[1].strip("| ")) > 3, row


def test_replacements_only_name_existing_options_settings_and_presets() -> None:
    known_options = set(options(typer.main.get_command(build_app(None, everything=True))))
    known_options |= {"--tag", "--ipc=host", "--volume", "--cpu-bind"}  # options of docker and srun
    known_keys = {
        key
        for kind in (PretrainConfig, FinetuneConfig)
        for key, _ in flatten(kind().model_dump(mode="json"))
    }
    known_sections = {key.split(".")[0] for key in known_keys}
    for row in ROWS:
        if set(row[0]) <= {"-", "|"}:
            continue
        for code in re.findall(r"`([^`]+)`", row[1]):
            if not code.startswith("docker"):
                for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", code):
                    assert option in known_options, (row[0], option)
            for key in re.findall(r"^([a-z]+\.[a-z_]+)(?:=\S+)?$", code):
                if key.split(".")[0] in known_sections and key != "model.pt":
                    assert key in known_keys, (row[0], key)
            for preset in re.findall(r"(?:dgxa100|cnn-dm|xsum)-[a-z0-9-]*\d(?:-bf16)?", code):
                assert preset in preset_names(), (row[0], preset)
