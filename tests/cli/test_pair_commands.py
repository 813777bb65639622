"""One file or a hub data set as pairs, in real commands."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bart_cli.tokenizer import Tokenizer
from tests.cli.test_training_commands import SMALL, TINY
from tests.command import bart
from tests.servers.hub import serve_hub

ROWS = [
    {"article": f"The mayor of town {i} opened a bridge. It rained.", "summary": f"Bridge {i}."}
    for i in range(40)
]


@pytest.fixture
def pairs(tmp_path: Path, tiny_tokenizer: Tokenizer) -> Path:
    """Write a file of pairs and a tokenizer."""
    path = tmp_path / "one" / "news.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tiny_tokenizer.save(path.parent / "tokenizer")
    return path


def test_a_model_is_trained_validated_and_scored_on_parts_of_one_file(
    pairs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [
        *("finetune", "--data", pairs, "--out", run, *SMALL, *TINY),
        *("--set", "training.validate_every=2", "--set", "generation.max_length=8"),
        *("--set", "data.max_source_length=128", "--set", "generation.no_repeat_ngram=0"),
        *("--set", "model.max_position_embeddings=256"),
    ]
    refused = bart(*command)
    assert refused.returncode == 2
    assert "no validation split in" in refused.stderr
    assert "--validation-share" in refused.stderr
    assert not run.exists()

    result = bart(*command, "--validation-share", "0.2", "--test-share", "0.1")
    assert result.returncode == 0, result.stderr
    rows = (run / "final-evaluation" / "predictions.jsonl").read_text().splitlines()
    assert len(rows) == 4
    assert "validation_loss" in (run / "metrics.jsonl").read_text()

    # Of the run's own file, its test split; of another file, all pairs.
    table = tmp_path / "other.csv"
    table.write_text("Text,HIGHLIGHTS\nThe mayor, a poet., Poet.\n".replace("r, a", "r. A"))
    for data, count in ((pairs, 4), (table, 1)):
        scored = bart("evaluate", "--model", run, "--data", data, "--out", tmp_path / "e", "--json")
        assert scored.returncode == 0, scored.stderr
        assert json.loads(scored.stdout)["articles"] == count
        (tmp_path / "e").rename(tmp_path / f"e{count}")


def test_a_hub_data_set_is_given_by_its_id(pairs: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "someone" / "news"
    configurations = ""
    for name, count in (("1.0.0", 40), ("2.0", 7)):
        (repository / name).mkdir(parents=True)
        configurations += f"- config_name: '{name}'\n  data_files:\n"
        for split in ("train", "dev"):
            content = pa.Table.from_pylist(ROWS[:count])
            pq.write_table(content, repository / name / f"{split}.parquet")
            configurations += f"  - split: {split}\n    path: {name}/{split}.parquet\n"
    (repository / "README.md").write_text(f"---\nconfigs:\n{configurations}---\n")
    command = ["preprocess", "summarization", "--tokenizer", pairs.parent / "tokenizer", "--json"]
    with serve_hub(tmp_path / "hub") as url:
        environment = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": "1",
        }
        found = bart(
            *(
                *command,
                "--input",
                "someone/news:2.0",
                "--test-share",
                0.2,
                "--out",
                tmp_path / "o",
            ),
            **environment,
        )
        assert found.returncode == 0, found.stderr
        kept = {split: report["kept"] for split, report in json.loads(found.stdout).items()}
        assert kept == {"train": 6, "validation": 7, "test": 1}
        assert "articles of the validation split are also in the train split" in found.stderr
        for name in ("someone/none", "someone/news:3"):
            missing = bart(*command, "--data", name, "--out", tmp_path / "p", **environment)
            assert missing.returncode in (1, 2)
            assert f"no such file or folder: {name}; on the hub: " in missing.stderr
            assert "Traceback" not in missing.stderr
