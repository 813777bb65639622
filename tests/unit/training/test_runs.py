"""Runs resume bit for bit, report errors, and keep good checkpoints."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bart_cli.config.presets import load_config
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.config.training import ScheduleConfig
from bart_cli.data.preprocess.pretrain import PreprocessSettings, preprocess_pretrain
from bart_cli.errors import BartError, UsageError
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model
from bart_cli.progress import Reporter
from bart_cli.runtime import signals
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.checkpoint import list_checkpoints
from bart_cli.training.finetune import run_finetune
from bart_cli.training.loop import train
from bart_cli.training.metrics import read_metrics
from bart_cli.training.pretrain import run_pretrain
from tests.clusters import scheduler
from tests.conftest import SENTENCES, save_model, tiny_model_config

pytestmark = pytest.mark.slow

# Measured since the last row of the log, or since the process started.
MEASURED = {"seconds", "sequences_per_second", "tokens_per_second", "padding"}


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("data")
    text = "".join(f"id{i} {SENTENCES[i % 4]} {SENTENCES[(i + 1) % 4]}\n" for i in range(80))
    (folder / "a.txt").write_text(text, encoding="utf-8")
    settings = PreprocessSettings(
        inputs=(("a", folder / "a.txt", "lines"),),
        target_lengths=(48,),
        shards=2,
        validation_share=0.2,
    )
    out = folder / "shards"
    preprocess_pretrain(settings, out, tiny_tokenizer, scheduler=scheduler(), reporter=Reporter())
    return out


@pytest.fixture
def pairs(tmp_path: Path, tiny_tokenizer: Tokenizer) -> Path:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for split in ("train", "validation"):
        rows = [
            {"article": f"{SENTENCES[i % 4]} {SENTENCES[(i + 1) % 4]}", "summary": SENTENCES[i % 4]}
            for i in range(12)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    tiny_tokenizer.save(folder / "tokenizer")
    return folder


def pretrain_config(shards: Path, **training: object) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {
            "model": tiny_model_config(dropout=0.1, attention_dropout=0.1).model_dump(),
            "data": {"path": shards, "sequence_length": 48, "streams": 4, "workers": 0},
            "optimizer": {"learning_rate": 1e-2, "clip_norm": 1.0},
            "schedule": {"warmup_steps": 2},
            "training": {
                "max_steps": 9,
                "global_batch": 8,
                "micro_batch": 3,
                "log_every": 2,
                "checkpoint_every": 100,
                **training,
            },
        }
    )


def finetune_config(pairs: Path, **changes: dict[str, object]) -> FinetuneConfig:
    base = pretrain_config(pairs).model_dump()
    return FinetuneConfig.model_validate(
        {
            "model": base["model"],
            "data": {"path": pairs, "max_source_length": 60, "max_target_length": 40},
            "optimizer": base["optimizer"],
            "training": base["training"] | changes.get("training", {}),
            "generation": {"beams": 2, "max_length": 24},
        }
    )


def comparable(run: Path) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in read_metrics(run)]


def assert_equal_runs(one: Path, other: Path) -> None:
    assert comparable(one) == comparable(other)
    first, second = list_checkpoints(one)[-1], list_checkpoints(other)[-1]
    assert first.name == second.name
    for file in ("model/model.safetensors", "optimizer.safetensors"):
        left, right = load_file(first / file), load_file(second / file)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left), file


class StopAt(Reporter):
    """Sends a signal to this process after this many steps of the loop."""

    def __init__(self, step: int, number: int) -> None:
        self.left, self.number = step, number

    def task(self, name, total=None, unit=""):  # type: ignore[no-untyped-def]
        outer = self
        context = super().task(name, total, unit)
        task = context.__enter__()

        def advance(amount: float = 1, detail: str = "") -> None:
            if amount and unit == "steps":
                outer.left -= int(amount)
                if outer.left == 0:
                    os.kill(os.getpid(), outer.number)

        task.advance = advance  # type: ignore[method-assign]
        from contextlib import nullcontext

        return nullcontext(task)


@pytest.mark.parametrize(
    ("optimizer", "parameters"),
    [("adamw", "fp32"), ("nvlamb", "fp32"), ("nvlamb", "bf16"), ("adafactor", "fp32")],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    shards: Path, tmp_path: Path, optimizer: str, parameters: str
) -> None:
    precision = "bf16" if parameters == "bf16" else "fp32"
    config = pretrain_config(shards, checkpoint_every=5, parameters=parameters, precision=precision)
    skipping = {"encoder_layerdrop": 0.5, "decoder_layerdrop": 0.5}
    config = config.model_copy(
        update={
            "optimizer": config.optimizer.model_copy(update={"name": optimizer}),
            "model": config.model.model_copy(update=skipping),
        }
    )
    run_pretrain(config, tmp_path / "whole", reporter=Reporter())
    stopped = run_pretrain(config, tmp_path / "parts", reporter=StopAt(3, signal.SIGTERM))
    assert stopped.outcome == "stopped by SIGTERM"
    assert stopped.step == 3
    assert stopped.model is None
    resumed = run_pretrain(config, tmp_path / "parts", reporter=Reporter())
    assert resumed.outcome == "done"
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_compiled_model_trains_alike(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced and differentiated as usual, but not compiled to C++, which would take a minute.
    monkeypatch.setattr(Bart, "compile", partialmethod(Bart.compile, backend="aot_eager"))
    found = []
    for compiled in (False, True):
        config = pretrain_config(shards, max_steps=1, log_every=1, micro_batch=8, compile=compiled)
        changes = {
            "model": tiny_model_config(encoder_layers=1, decoder_layers=1),
            "schedule": ScheduleConfig(),
        }
        run = tmp_path / str(compiled)
        run_pretrain(config.model_copy(update=changes), run, reporter=Reporter())
        found.append([read_metrics(run)[0][name] for name in ("loss", "gradient_norm")])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_micro_batches_do_not_change_the_loss(shards: Path, tmp_path: Path) -> None:
    for size in (2, 8):
        config = pretrain_config(shards, micro_batch=size)
        plain = config.model.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0})
        config = config.model_copy(update={"model": plain})
        run_pretrain(config, tmp_path / str(size), reporter=Reporter())
    rows = [read_metrics(tmp_path / str(size)) for size in (2, 8)]
    for one, two in zip(*rows, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)


def cut(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:500])


def turn_a_bit(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


def test_a_damaged_newest_checkpoint_is_reported_and_the_previous_one_is_used(
    shards: Path, tmp_path: Path
) -> None:
    class Listening(Reporter):
        def __init__(self) -> None:
            self.warnings: list[str] = []

        def warn(self, text: str) -> None:
            self.warnings.append(text)

    run = tmp_path / "run"
    config = pretrain_config(shards, checkpoint_every=2, max_steps=6, keep_last=2)
    run_pretrain(config, run, reporter=Reporter())
    for damage, name in (
        (cut, "model/model.safetensors"),
        (turn_a_bit, "model/model.safetensors"),
        (turn_a_bit, "optimizer.safetensors"),
        (Path.unlink, "optimizer.safetensors"),
    ):
        assert [p.name for p in list_checkpoints(run)] == ["step-00000004", "step-00000006"]
        (run / "done.json").unlink()
        damage(run / "checkpoints/step-00000006" / name)
        reporter = Listening()
        assert run_pretrain(config, run, reporter=reporter).outcome == "done"
        newest = run / "checkpoints/step-00000006"
        assert f"skipping damaged checkpoint {newest}" in reporter.warnings[0]


def test_too_many_non_finite_losses_stop_the_run(shards: Path, tmp_path: Path) -> None:
    config = pretrain_config(shards, max_bad_steps=3, max_steps=50)
    spoiled = config.model.model_copy(update={"init_std": 1.0})
    config = config.model_copy(
        update={
            "model": spoiled,
            "optimizer": config.optimizer.model_copy(
                update={"learning_rate": 10.0, "clip_norm": 0.0, "name": "adafactor"}
            ),
        }
    )
    run_pretrain(config.model_copy(), tmp_path / "fine", reporter=Reporter())  # large, yet finite
    import bart_cli.training.loop as loop

    original = loop.linear_cross_entropy
    training = config.training.model_copy(update={"log_every": 1})
    config = config.model_copy(update={"training": training})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loop, "linear_cross_entropy", lambda *a, **k: original(*a, **k) * float("nan")
        )
        with pytest.raises(BartError, match="not finite for 3 steps in a row, up to step 3"):
            run_pretrain(config, tmp_path / "bad", reporter=Reporter())
    lines = (tmp_path / "bad" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["loss"] for line in lines] == [None] * 2


def test_a_bad_step_is_skipped_and_counted_and_the_run_continues(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bart_cli.training.loop as loop

    original = loop.linear_cross_entropy
    calls = iter(range(100))

    def spoiled(*arguments: Any, **options: Any) -> torch.Tensor:
        loss = original(*arguments, **options)
        return loss * float("nan") if next(calls) == 2 else loss

    monkeypatch.setattr(loop, "linear_cross_entropy", spoiled)
    config = pretrain_config(shards, max_steps=6, log_every=1, micro_batch=8, checkpoint_every=1)
    config = config.model_copy(
        update={"training": config.training.model_copy(update={"keep_last": 9})}
    )
    run = tmp_path / "run"
    assert run_pretrain(config, run, reporter=Reporter()).outcome == "done"
    assert [row["skipped"] for row in read_metrics(run)] == [0, 0, 1, 1, 1, 1]
    # Nothing of step 3 is left, and none of its checkpoints is considered good.
    assert [path.name[-1] for path in list_checkpoints(run)] == ["1", "2", "4", "5", "6"]
    weights = load_file(run / "model/model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_failed_start_leaves_nothing_behind(shards: Path, pairs: Path, tmp_path: Path) -> None:
    run_pretrain(pretrain_config(shards, max_steps=2), tmp_path / "pre", reporter=Reporter())
    good = finetune_config(pairs, training={"max_steps": 2})
    good = good.model_copy(update={"init_from": str(tmp_path / "pre")})
    long = good.data.model_copy(update={"max_source_length": 999})
    (tmp_path / "a.txt").write_text("not a model\n")
    for change, message in (
        ({"init_from": str(tmp_path / "none")}, "no such model"),
        ({"init_from": str(tmp_path / "a.txt")}, "a.txt is text, not weights"),
        ({"keep_encoder_layers": (7,)}, "keep_encoder_layers=7"),
        ({"data": long}, "exceeds the model's 64 positions"),
    ):
        with pytest.raises(BartError, match=message):
            run_finetune(good.model_copy(update=change), tmp_path / "fine", reporter=Reporter())
        assert not (tmp_path / "fine").exists()
    with pytest.raises(UsageError, match="no checkpoint there"):
        run_finetune(good, tmp_path / "fine", resume=str(tmp_path), reporter=Reporter())
    assert run_finetune(good, tmp_path / "fine", reporter=Reporter()).outcome == "done"


def test_a_run_records_the_actual_model_not_the_preset(
    shards: Path, pairs: Path, tmp_path: Path
) -> None:
    run_pretrain(pretrain_config(shards, max_steps=2), tmp_path / "pre", reporter=Reporter())
    config = finetune_config(pairs, training={"max_steps": 2, "time_limit": 1e-9})
    config = config.model_copy(
        update={
            "init_from": str(tmp_path / "pre"),
            "keep_decoder_layers": (1,),
            "model": config.model.model_copy(update={"d_model": 64}),
        }
    )
    assert run_finetune(config, tmp_path / "fine", reporter=Reporter()).step == 1
    saved = load_config(FinetuneConfig, config_file=tmp_path / "fine/config.yaml").model
    assert (saved.d_model, saved.encoder_layers, saved.decoder_layers) == (32, 2, 1)
    # The same command still resumes; another dropout rate is another run.
    assert run_finetune(config, tmp_path / "fine", reporter=Reporter()).step == 2
    other = config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.3})})
    with pytest.raises(UsageError, match=r"model\.dropout=0\.3 \(was 0\.1\)"):
        run_finetune(other, tmp_path / "fine", reporter=Reporter())


@pytest.mark.parametrize("data", [{}, {"max_tokens": 64}, {"group_by_length": False}])
def test_fine_tuning_resumes_bit_for_bit(
    pairs: Path, tmp_path: Path, data: dict[str, object]
) -> None:
    config = finetune_config(pairs, training={"checkpoint_every": 4, "validate_every": 3})
    config = config.model_copy(update={"data": config.data.model_copy(update=data)})
    run_finetune(config, tmp_path / "whole", reporter=Reporter())
    result = run_finetune(config, tmp_path / "parts", reporter=StopAt(5, signal.SIGTERM))
    assert result.outcome == "stopped by SIGTERM"
    run_finetune(config, tmp_path / "parts", reporter=Reporter())
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("how", ["SIGTERM", "the time limit"])
def test_a_stop_is_honored_while_a_validation_decodes(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    settings = {"max_steps": 2, "validate_every": 2, "select_by": "rouge1"}
    config = finetune_config(pairs, training=settings)
    run_finetune(config, tmp_path / "whole", reporter=Reporter())

    def endless(*_: object, **__: object) -> None:
        if how == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            patch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: 1e12))
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        for _ in range(6000):
            time.sleep(0.01)
        pytest.fail("nothing has stopped the decoding")

    training = config.training.model_copy(update={"time_limit": 1000.0})
    with monkeypatch.context() as patch:
        patch.setattr("bart_cli.inference.generate.generate", endless)
        result = run_finetune(
            config.model_copy(update={"training": training}),
            tmp_path / "parts",
            reporter=Reporter(),
        )
    assert (result.outcome, result.step) == (f"stopped by {how}", 2)
    run_finetune(config, tmp_path / "parts", reporter=Reporter())  # repeats the validation
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_run_leaves_no_loader_process_to_wait_for(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[object] = []  # alive, as if the garbage collector were late

    def kept(job: Any, *rest: Any) -> str:
        jobs.append(job)
        return train(job, *rest)

    monkeypatch.setattr("bart_cli.training.run.train", kept)
    config = pretrain_config(shards, max_steps=2)
    data = config.data.model_copy(update={"workers": 1})
    run_pretrain(config.model_copy(update={"data": data}), tmp_path / "run", reporter=Reporter())
    assert jobs
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
    assert left == []


def test_a_frozen_encoder_does_not_change(shards: Path, pairs: Path, tmp_path: Path) -> None:
    run_pretrain(pretrain_config(shards, max_steps=3), tmp_path / "pre", reporter=Reporter())
    config = finetune_config(pairs, training={"freeze_encoder": True, "max_steps": 3})
    config = config.model_copy(update={"init_from": str(tmp_path / "pre")})
    run_finetune(config, tmp_path / "fine", reporter=Reporter())
    before, after = (load_model(tmp_path / run).model.state_dict() for run in ("pre", "fine"))
    for name in before:
        encoder = name.startswith("model.encoder") or name == "final_logits_bias"
        assert torch.equal(before[name], after[name]) == encoder, name


def test_all_problems_are_reported_at_once(shards: Path, tmp_path: Path) -> None:
    config = pretrain_config(shards, precision="fp16", sharding="fsdp", parameters="bf16")
    config = config.model_copy(
        update={
            "schedule": config.schedule.model_copy(update={"warmup_steps": 99}),
            "data": config.data.model_copy(update={"sequence_length": 65, "path": shards / "48"}),
        }
    )
    with pytest.raises(UsageError) as caught:
        run_pretrain(config, tmp_path / "run", reporter=Reporter())
    for words in (
        "sequence_length=65",
        "fp16 needs an NVIDIA GPU",
        "warmup_steps=99",
        "sharding=fsdp cannot be combined with training.precision=fp16",
        "parameters=bf16 requires optimizer.name=nvlamb",
    ):
        assert words in caught.value.message
    assert not (tmp_path / "run").exists()


def test_fine_tuning_starts_from_pretrained_weights_and_keeps_the_best(
    shards: Path, pairs: Path, tmp_path: Path
) -> None:
    run_pretrain(pretrain_config(shards), tmp_path / "pre", reporter=Reporter())
    config = finetune_config(pairs, training={"validate_every": 3, "freeze_embeddings": True})
    config = config.model_copy(update={"init_from": str(tmp_path / "pre")})
    result = run_finetune(config, tmp_path / "fine", reporter=Reporter())
    assert result.best_step in (3, 6, 9)
    assert load_model(tmp_path / "fine/best").generation == config.generation
    before = load_model(tmp_path / "pre").model.state_dict()
    after = load_model(tmp_path / "fine").model.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    frozen = {name for name in before if "embed_positions" in name or "shared" in name}
    assert same == frozen | {"final_logits_bias"}
    rows = [row for row in read_metrics(tmp_path / "fine") if "validation_loss" in row]
    assert [row["step"] for row in rows] == [3, 6, 9]


def test_validation_by_rouge_decodes_and_patience_ends_the_run(pairs: Path, tmp_path: Path) -> None:
    config = finetune_config(
        pairs, training={"validate_every": 1, "select_by": "rouge2", "patience": 2, "max_steps": 99}
    )
    shorter = {"max_validation_target_length": 6, "prefix": "summarize: "}
    config = config.model_copy(update={"data": config.data.model_copy(update=shorter)})
    frozen = config.optimizer.model_copy(update={"learning_rate": 1e-12})
    config = config.model_copy(update={"optimizer": frozen})
    result = run_finetune(config, tmp_path / "fine", reporter=Reporter())
    assert result.outcome == "stopped: no improvement for 2 validations"
    assert result.step == 3
    assert {"rouge1", "rouge2", "rougeLsum"} <= read_metrics(tmp_path / "fine")[0].keys()
    assert load_model(tmp_path / "fine").model.config.prefix == "summarize: "


def test_layers_of_the_teacher_are_kept(shards: Path, pairs: Path, tmp_path: Path) -> None:
    run_pretrain(pretrain_config(shards), tmp_path / "pre", reporter=Reporter())
    config = finetune_config(pairs).model_copy(
        update={"init_from": str(tmp_path / "pre"), "keep_decoder_layers": (1,)}
    )
    run_finetune(config, tmp_path / "student", reporter=Reporter())
    student = load_model(tmp_path / "student").model.config
    assert (student.encoder_layers, student.decoder_layers) == (2, 1)
    bad = config.model_copy(update={"keep_decoder_layers": (0, 5)})
    with pytest.raises(UsageError, match="keep_decoder_layers=0,5: expected"):
        run_finetune(bad, tmp_path / "bad", reporter=Reporter())


def test_a_model_without_an_embedding_of_mask_trains(
    shards: Path, pairs: Path, tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    """Like facebook/bart-large-cnn, with a number of positions that is not a multiple of 8."""
    torch.manual_seed(0)
    rows = tiny_tokenizer.vocab_size - 1
    model = Bart(tiny_model_config(vocab_size=rows, max_position_embeddings=50))
    save_model(tmp_path / "cnn", model, tiny_tokenizer)
    notices: list[str] = []
    reporter = Reporter()
    reporter.info = notices.append  # type: ignore[method-assign]
    config = pretrain_config(shards, max_steps=2).model_copy(
        update={"init_from": str(tmp_path / "cnn")}
    )
    data = config.data.model_copy(update={"sequence_length": 50, "path": shards / "48/train"})
    run_pretrain(config.model_copy(update={"data": data}), tmp_path / "pre", reporter=reporter)
    assert load_model(tmp_path / "pre").model.config.vocab_size == rows + 1
    assert any("the table grows by 1 (<mask>)" in notice for notice in notices)

    (pairs / "train.jsonl").write_text(
        json.dumps({"article": "<mask>" + SENTENCES[0] * 9, "summary": SENTENCES[0]}) + "\n"
    )
    tuning = finetune_config(pairs, training={"max_steps": 2, "validate_every": 1}).model_copy(
        update={"init_from": str(tmp_path / "cnn")}
    )
    data = tuning.data.model_copy(update={"max_source_length": 50})
    run_finetune(tuning.model_copy(update={"data": data}), tmp_path / "fine", reporter=reporter)
    assert load_model(tmp_path / "fine").model.config.vocab_size == rows


@pytest.mark.parametrize(
    ("failure", "message", "hint"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "micro-batch 4", "--micro-batch 2"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "out of memory on cpu",
            "--micro-batch 2",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."),
            "/dev/shm",
            "--shm-size",
        ),
    ],
)
def test_too_little_shared_memory_gives_one_line_and_a_hint(
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: RuntimeError,
    message: str,
    hint: str,
) -> None:
    def train(*_: object) -> str:
        raise failure

    monkeypatch.setattr("bart_cli.training.run.train", train)
    with pytest.raises(BartError, match=message) as caught:
        run_pretrain(pretrain_config(shards, micro_batch=4), tmp_path / "run", reporter=Reporter())
    assert hint in (caught.value.hint or "")
