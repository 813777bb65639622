"""Folders that an evaluation refuses to write to, and the references that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.run import EvaluateConfig, FinetuneConfig
from bart_cli.errors import UsageError
from bart_cli.evaluation.evaluate import evaluate_run, run_evaluate
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES


@pytest.mark.parametrize(
    "content", [b"task: finetune\n", b"{{{", b"\xff\xfe\0", b"a: [\n", b"- 1\n"]
)
def test_an_unrelated_folder_is_not_changed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UsageError, match="is not an evaluation folder"):
        run_evaluate(evaluation(tmp_path), tmp_path, reporter=Reporter())
    assert (tmp_path / "config.yaml").read_bytes() == content


def test_a_run_without_a_test_split_says_that_it_is_not_scored(tmp_path: Path) -> None:
    class Recorder(Reporter):
        def info(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    (tmp_path / "own.csv").write_text("article,summary\na,b\n", encoding="utf-8")
    config = FinetuneConfig(data=SummarizationDataConfig(path=tmp_path / "own.csv"))
    assert evaluate_run(config, tmp_path, reporter=Recorder()) is None
    assert [line.partition(": ")[0] for line in said] == [f"no test split in {tmp_path}/own.csv"]


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "file"
    out.touch()
    with pytest.raises(UsageError, match="is a file; expected a folder"):
        run_evaluate(evaluation(tmp_path), out, reporter=Reporter())


def evaluation(folder: Path) -> EvaluateConfig:
    pairs = folder / "test.jsonl"
    pairs.write_text('{"article": "one", "summary": "two"}\n')
    data = SummarizationDataConfig(path=pairs)
    return EvaluateConfig(model_path=str(folder), data=data)


def test_references_of_existing_predictions_are_truncated_as_those_of_a_model(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    pairs, predictions = tmp_path / "pairs", tmp_path / "predictions.txt"
    pairs.mkdir()
    row = {"article": SENTENCES[0], "summary": " ".join(SENTENCES[:3])}
    (pairs / "test.jsonl").write_text(json.dumps(row) + "\n")
    predictions.write_text(SENTENCES[0] + "\n")
    data = {"path": pairs, "max_test_target_length": 8}
    config = EvaluateConfig.model_validate({"predictions": predictions, "data": data})
    with pytest.raises(UsageError, match="references of --predictions needs a tokenizer"):
        run_evaluate(config, tmp_path / "out", reporter=Reporter())
    tiny_tokenizer.save(tmp_path / "tokenizer")
    data["tokenizer"] = str(tmp_path / "tokenizer")
    config = EvaluateConfig.model_validate({"predictions": predictions, "data": data})
    run_evaluate(config, tmp_path / "out", reporter=Reporter())
    (line,) = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert json.loads(line)["reference"] in SENTENCES[0]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["settings"]["split"] == "test"


def test_all_pairs_of_a_single_file_are_not_called_a_split(tmp_path: Path) -> None:
    predictions = tmp_path / "predictions.txt"
    predictions.write_text("two\n")
    config = evaluation(tmp_path).model_copy(
        update={"model_path": None, "predictions": predictions}
    )
    result = run_evaluate(config, tmp_path / "out", reporter=Reporter())
    assert result is not None
    assert result.settings["split"] is None
    assert " split)" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_scores_of_predictions_are_not_replaced_by_those_of_others(tmp_path: Path) -> None:
    config = evaluation(tmp_path).model_copy(
        update={"model_path": None, "predictions": tmp_path / "predictions.txt"}
    )
    assert config.predictions is not None
    for _ in range(2):
        config.predictions.write_text("two\n")
        run_evaluate(config, tmp_path / "out", reporter=Reporter())
    config.predictions.write_text("other\n")
    with pytest.raises(UsageError, match="other inputs: file of predictions has changed"):
        run_evaluate(config, tmp_path / "out", reporter=Reporter())
    assert '"two"' in (tmp_path / "out" / "predictions.jsonl").read_text()
