"""The Summarizer: order, batches, long texts, streams."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bart_cli
from bart_cli.config.commands import SummarizeConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.inference.generate import generate
from bart_cli.inference.running import RunningBatch
from bart_cli.model.bart import Bart
from bart_cli.progress import Reporter, Task
from bart_cli.summarize.inputs import find_inputs
from bart_cli.summarize.long_texts import encode_texts
from bart_cli.summarize.run import Job, summarize_to_stream
from bart_cli.summarize.summarizer import SummariesInterrupted
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES, save_model, tiny_model_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "m"
    model = Bart(tiny_model_config(vocab_size=tiny_tokenizer.vocab_size, init_std=0.3))
    generation = GenerationConfig(beams=2, max_length=12, length_penalty=1.0)
    save_model(path, model, tiny_tokenizer, generation)
    return path


def test_summaries_come_in_order_and_do_not_depend_on_the_batch(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    texts = [SENTENCES[0], "", SENTENCES[1] * 3, " \n", SENTENCES[2]]
    together = summarizer.summarize(texts)
    assert [summary.text for summary in together][1::2] == ["", ""]
    for text, summary in zip(texts, together, strict=True):
        assert summarizer.summarize([text], batch_size=1)[0].text == summary.text


def test_a_text_that_is_too_long_is_marked_as_cut(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    short, long = summarizer.summarize([SENTENCES[0], SENTENCES[0] * 20])
    assert not short.cut
    assert long.cut
    assert long.used_tokens == 64


def test_decoding_settings_can_be_changed_per_call(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    (summary,) = summarizer.summarize([SENTENCES[0]], beams=3, return_sequences=3)
    assert len({summary.text, *summary.others}) > 1
    with pytest.raises(ValueError, match="beams"):
        summarizer.summarize([SENTENCES[0]], beams=0)


def test_one_text_has_one_summary(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    assert summarizer.summarize(SENTENCES[0]) == summarizer.summarize([SENTENCES[0]])[0]
    assert summarizer.summarize("").text == ""


def test_invalid_arguments_are_reported(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    wrong: list[tuple[object, dict[str, object], str]] = [
        ([None], {}, r"texts\[0\] is None: expected a string"),
        (None, {}, "texts is None"),
        (b"text", {}, "texts is of type bytes"),
        (["a"], {"batch_size": 0}, "batch_size=0: expected"),
        (["a"], {"batch_size": "4"}, "batch_size='4': expected"),
        (["a"], {"max_tokens": 0}, "max_tokens=0: expected"),
        (["a"], {"long": "half"}, "long='half': expected truncate"),
        (["a"], {"beams": "many"}, "beams=many"),
        (["a"], {"beam": 4}, "unknown key 'beam'"),
    ]
    for texts, options, words in wrong:
        with pytest.raises(ValueError, match=words) as caught:
            summarizer.summarize(texts, **options)  # type: ignore[call-overload]
        assert isinstance(caught.value, UsageError)
    with pytest.raises(UsageError, match="texts is one string"):
        next(summarizer.stream("abc"))
    for arguments, words in (
        ({"precision": "fp8"}, "precision='fp8': expected fp32"),
        ({"device": 0}, "device=0: expected auto"),
        ({"generation": {}}, "generation is of type dict: expected a GenerationConfig"),
        ({"checkpoint": "best"}, "--checkpoint best: not in"),
    ):
        with pytest.raises(UsageError, match=words):
            bart_cli.Summarizer.from_pretrained(folder, **arguments)  # type: ignore[arg-type]


def test_line_breaks_are_read_and_the_prefix_stands_before_every_text(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    text = "Ann: Hi.\r\nBob:  Yes."
    for rounds in summarizer.begin([text, f" {text}\n"], "truncate"):
        assert rounds.pieces == [summarizer.tokenizer.encode(text)]
    config = summarizer.model.config
    summarizer.model.config = config.model_copy(update={"prefix": "summarize: "})
    (rounds,) = summarizer.begin([text], "truncate")
    assert rounds.pieces == [summarizer.tokenizer.encode(f"summarize: {text}")]


def test_sampling_is_deterministic_given_its_seed(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    options = {"beams": 1, "sample": True, "top_k": 20, "top_p": 0.9, "return_sequences": 4}

    def texts(seed: int) -> tuple[str, ...]:
        (found,) = summarizer.summarize([SENTENCES[0]], **options, seed=seed)
        return (found.text, *found.others)

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_more_positions_than_the_model_has_are_refused(folder: Path) -> None:
    model = bart_cli.Summarizer.from_pretrained(folder).model
    with pytest.raises(UsageError, match="max_length=65 exceeds the model's 64"):
        generate(model, [[0, 5, 2]], GenerationConfig(max_length=65))
    with pytest.raises(UsageError, match="a source of 70 tokens"):
        generate(model, [[0] * 70], GenerationConfig(max_length=10))


LONG = "\n\n".join(SENTENCES * 6)  # 6 * 4 sentences, many times the 64 positions


def test_a_long_text_is_summarized_in_pieces_that_are_joined(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    (whole,) = summarizer.summarize([LONG], long="chunk")
    assert not whole.cut
    assert whole.pieces > 2
    pieces = encode_texts([LONG], summarizer.tokenizer, 64, whole=True)[0].pieces
    texts = [summarizer.tokenizer.decode(piece) for piece in pieces]
    each = [summary.text for summary in summarizer.summarize(texts)]
    assert whole.text == " ".join(text for text in each if text)
    assert len(texts) == whole.pieces


def test_joined_summaries_are_summarized_again_until_they_are_one(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    (joined,) = summarizer.summarize([LONG], long="chunk", max_length=8)
    (reduced,) = summarizer.summarize([LONG], long="reduce", max_length=8)
    text = joined.text
    while len(summarizer.tokenizer.encode(text)) > 64:
        (again,) = summarizer.summarize([text], long="chunk", max_length=8)
        text = again.text
    assert reduced.text == summarizer.summarize([text], max_length=8)[0].text
    assert (reduced.pieces, reduced.source_tokens) == (joined.pieces, joined.source_tokens)


def test_reducing_ends_when_summaries_are_not_shorter_than_texts(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    options = {"min_length": 62, "max_length": 64, "no_repeat_ngram": 0}
    (joined,) = summarizer.summarize([LONG], long="chunk", **options)
    (reduced,) = summarizer.summarize([LONG], long="reduce", **options)
    assert reduced.text == joined.text


def test_long_has_no_effect_on_short_texts(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    texts = [SENTENCES[0], "", SENTENCES[2]]
    expected = summarizer.summarize(texts)
    for long in ("chunk", "reduce"):
        assert summarizer.summarize(texts, long=long) == expected


def test_further_hypotheses_of_pieces_are_joined_by_rank(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    (summary,) = summarizer.summarize([LONG], long="chunk", beams=3, return_sequences=3)
    assert len(summary.others) == 2
    assert len({summary.text, *summary.others}) == 3


def test_a_stream_yields_its_first_summary_before_it_is_exhausted(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    read = []

    def texts() -> Iterator[str]:
        for number in range(12):
            read.append(number)
            yield SENTENCES[number % 4]

    stream = summarizer.stream(texts(), batch_size=2)
    first = next(stream)
    assert len(read) == 1
    rest = list(stream)
    assert [s.text for s in (first, *rest[:3])] == [s.text for s in summarizer.summarize(SENTENCES)]
    assert len(rest) == 11


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:0"])
def test_a_missing_device_is_refused(folder: Path, device: str) -> None:
    with pytest.raises(UsageError, match=f"device={device}"):
        bart_cli.Summarizer.from_pretrained(folder, device=device)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Raise KeyboardInterrupt after this many batches."""
    real, left = RunningBatch.join, [batches]

    def join(*arguments: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(*arguments)

    monkeypatch.setattr(RunningBatch, "join", join)


def test_ctrl_c_in_a_long_text_keeps_the_finished_pieces(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    whole = summarizer.summarize(SENTENCES[0] * 20, long="chunk")
    assert whole.pieces > 2
    assert not whole.missing
    interrupt_after(monkeypatch, 2)
    with pytest.raises(SummariesInterrupted) as caught:
        summarizer.summarize([SENTENCES[0] * 20, SENTENCES[1]], long="chunk", batch_size=1)
    part, other = caught.value.summaries
    assert part.text
    assert part.text[:10] in whole.text  # the longest pieces are decoded first
    assert (part.pieces, part.missing) == (2, whole.pieces - 2)
    assert part.used_tokens < whole.used_tokens
    assert (other.text, other.pieces, other.missing) == ("", 0, 1)


@pytest.mark.parametrize(("form", "kept"), [("text", 1), ("json", 1), ("jsonl", 0)])
def test_ctrl_c_writes_finished_results_unless_a_rerun_resumes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, kept: int
) -> None:
    text = tmp_path / "long.txt"
    text.write_text(SENTENCES[0] * 20, encoding="utf-8")
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    job = Job(
        inputs=find_inputs([str(text)], jsonl=False),
        config=SummarizeConfig(long="chunk"),
        form=form,
        batch_size=1,
    )
    interrupt_after(monkeypatch, 2)
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        summarize_to_stream(summarizer, job, stream, reporter=Reporter(), task=Task())
    assert bool(stream.getvalue().strip("[]\n ")) == bool(kept)


def test_scores_that_are_not_finite_are_an_error_that_names_the_model(
    folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.decoder.layers.0.fc1.weight"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    summarizer = bart_cli.Summarizer.from_pretrained(broken)
    settings: list[dict[str, Any]] = [
        {},
        {"beams": 1},
        {"beams": 1, "sample": True},
        {"beams": 3, "sample": True},
    ]
    for changes in settings:
        with pytest.raises(BartError, match="broken: scores are not finite") as caught:
            summarizer.summarize(SENTENCES[0], **changes)
        assert "--precision" in (caught.value.hint or "")


def test_precision_auto_is_one_that_the_machine_has(folder: Path) -> None:
    loaded = bart_cli.load_for_inference(str(folder), "auto", device="cpu")
    assert loaded.precision in ("fp32", "bf16", "int8")
    assert loaded.notice is not None
    assert loaded.notice.startswith(f"precision auto: {loaded.precision}")
