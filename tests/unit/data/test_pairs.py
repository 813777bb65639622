"""Pairs in common formats: every format gives the same pairs, and errors name the problem."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bart_cli.cli.generation import load_with_model
from bart_cli.cli.options import ConfigOptions
from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.run import EvaluateConfig, FinetuneConfig
from bart_cli.data.pair_ids import count_training_pairs, load_encoded
from bart_cli.data.pairs import PairSource, read_pairs
from bart_cli.data.preprocess.summarization import preprocess_summarization
from bart_cli.errors import UsageError
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer

Rows = list[tuple[str, str]]
ROWS: Rows = [(f"Article {i}, it says: \u201cyes\u201d.", f"Summary {i}.") for i in range(40)]


def table(rows: Rows, names: tuple[str, str] = ("article", "summary")) -> pa.Table:
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})


def separated(
    rows: Rows, delimiter: str = ",", names: tuple[str, str] = ("Article", "Summary")
) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows([names, *rows])
    return stream.getvalue()


def lines(rows: Rows, names: tuple[str, str] = ("article", "summary")) -> str:
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)


def array(rows: Rows) -> str:
    return json.dumps([{"document": a, "highlights": s} for a, s in rows], indent=1)


def write_saved(folder: Path, rows: Rows) -> None:
    splits = datasets.DatasetDict({"train": datasets.Dataset(table(rows))})
    splits.save_to_disk(folder / "saved")


def write_parallel(folder: Path, rows: Rows) -> None:
    for i, side in enumerate(("source", "target")):
        content = "".join(" ".join(row[i].split()) + "\n" for row in rows)
        (folder / f"train.{side}").write_bytes(content.encode())


def write_shards(folder: Path, rows: Rows) -> None:
    (folder / "data").mkdir()
    middle = len(rows) // 2
    for i, part in enumerate((rows[:middle], rows[middle:])):
        pq.write_table(table(part), folder / f"data/train-0000{i}-of-00002.parquet")


def arrow(stream: bool) -> Callable[[Path, Rows], None]:
    def write(folder: Path, rows: Rows) -> None:
        content = table(rows, ("Dialogue", "TARGET"))
        new = pa.ipc.new_stream if stream else pa.ipc.new_file
        with new(str(folder / "train.arrow"), content.schema) as writer:
            writer.write_table(content, max_chunksize=2)

    return write


def text(name: str, content: Callable[[Rows], str], encoding: str = "utf-8") -> Callable:
    def write(folder: Path, rows: Rows) -> None:
        data = content(rows).encode(encoding)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    return write


FORMS: dict[str, Callable[[Path, Rows], None]] = {
    "jsonl": text("train.jsonl", lines),
    "jsonl.gz": text("Train.JSONL.gz", lines),
    "jsonl utf-16": text("train.jsonl", lines, "utf-16"),
    "json array": text("train.json", array),
    "json array by another name": text("train.jsonl", array, "utf-8-sig"),
    "json data": text("train.json", lambda rows: json.dumps({"data": json.loads(array(rows))})),
    "json of lines": text("train.json", lines),
    "json of columns": text("train.json", lambda rows: json.dumps(table(rows).to_pydict())),
    "a word more": text("cnn-train.csv", separated),
    "folder": text("train/part.jsonl", lines),
    "csv": text("train.csv", separated),
    "csv with a mark": text("train.csv", separated, "utf-8-sig"),
    "csv with sep=": text("train.csv", lambda rows: f"sep=|\r\n{separated(rows, '|')}"),
    "csv semicolon": text("train.csv.gz", lambda rows: separated(rows, ";")),
    "tsv": text("train.tsv", lambda rows: separated(rows, "\t")),
    "parquet": lambda folder, rows: pq.write_table(table(rows), folder / "train.parquet"),
    "shards": write_shards,
    "arrow stream": arrow(True),
    "arrow file": arrow(False),
    "saved": write_saved,
    "parallel": write_parallel,
}
SPELLED = st.sampled_from(
    [*("<s>", "</s>", "<mask>", "<pad>"), *'",;\t\n', "\r\n", "\u2028", "\ufeff"]
)
CHARACTERS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
TEXTS = st.lists(SPELLED | CHARACTERS, max_size=6).map("".join)


def expected(rows: Rows) -> Rows:
    """Return the pairs expected from rows: no byte order mark, no empty side, no duplicate."""
    found: Rows = []
    for row in rows:
        source, target = (side.replace("\ufeff", "").strip() for side in row)
        pair = (source, target)
        if all(pair) and source.split() != target.split() and pair not in found:
            found.append(pair)
    return found


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), max_size=4))
def test_every_format_gives_the_same_pairs_to_every_command(
    tmp_path: Path, tiny_tokenizer: Tokenizer, rows: Rows
) -> None:
    rows = [("An article.", "A summary."), *rows]
    wanted = expected(rows)
    tmp_path = Path(tempfile.mkdtemp(dir=tmp_path))  # the examples share the fixture's folder
    for name, write in FORMS.items():
        folder = tmp_path / name
        folder.mkdir()
        write(folder, rows)
        data = SummarizationDataConfig(path=folder / "saved" if name == "saved" else folder)
        found = [(pair.source, pair.target) for pair in PairSource(data).read("train").pairs]
        if name == "parallel":
            assert found == expected(
                [(" ".join(a.split()), " ".join(s.split())) for a, s in rows]
            ), name
        else:
            assert found == wanted, name
    FORMS["csv"](folder, rows)
    data = SummarizationDataConfig(path=folder / "train.csv", max_target_length=1000)
    ids = load_encoded(PairSource(data), "train", None, data, tiny_tokenizer)
    preprocess_summarization(data, tmp_path / "out", tiny_tokenizer, reporter=Reporter())
    assert [(p.source, p.target) for p in read_pairs(tmp_path / "out", "train")] == wanted
    ready = SummarizationDataConfig(path=tmp_path / "out", max_target_length=1000)
    prepared = load_encoded(PairSource(ready), "train", None, ready, tiny_tokenizer)
    for one, other in ((prepared.sources, ids.sources), (prepared.targets, ids.targets)):
        assert list(map(list, one)) == list(map(list, other))


def test_a_tsv_whose_quotation_marks_are_characters(tmp_path: Path) -> None:
    content = 'article\tsummary\n"Yes," he said.\tHe said "yes".\nA 5" nail.\t"It" fits.\n'
    (tmp_path / "train.tsv").write_text(content)
    pairs = [(p.source, p.target) for p in read_pairs(tmp_path, "train")]
    assert pairs == [('"Yes," he said.', 'He said "yes".'), ('A 5" nail.', '"It" fits.')]


def test_hidden_files_beside_a_split_are_ignored(tmp_path: Path) -> None:
    """An archive made by macOS unpacks to news-train.csv and ._news-train.csv elsewhere."""
    (tmp_path / "news-train.csv").write_text("article,summary\nOne.,1\n")
    (tmp_path / "._news-train.csv").write_bytes(b"\0\5\x16\7\0")
    source = PairSource(SummarizationDataConfig(path=tmp_path))
    assert [pair.source for pair in source.read("train").pairs] == ["One."]


def test_a_csv_whose_lines_end_in_carriage_returns(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(separated(ROWS).replace("\r\n", "\r"))
    assert [(p.source, p.target) for p in read_pairs(tmp_path, "train")] == ROWS


def test_sentences_in_a_list_are_lines_and_empty_sides_are_counted(tmp_path: Path) -> None:
    rows = [
        {"article": ["One.", ["Two."]], "summary": ["First.", None, " Second. "]},
        {"article": None, "summary": "x"},
        {"article": "y", "summary": []},
        {"article": "z"},
        {"article": "One. Two.", "summary": "First.\nSecond."},
        {"article": "same text", "summary": "same\ntext"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = PairSource(SummarizationDataConfig(path=tmp_path / "a.jsonl")).read("train")
    assert [(p.source, p.target) for p in split.pairs] == [("One. Two.", "First.\nSecond.")]
    assert split.read == 6
    assert split.dropped == {
        "empty article": 1,
        "empty summary": 2,
        "duplicate": 1,
        "summary is the article": 1,
    }
    told: list[str] = []
    reporter = Reporter()
    reporter.warn = told.append  # type: ignore[method-assign]
    split.report(reporter)
    assert "skipped 5 of 6 pairs" in told[0]
    assert f"2 empty summary (first: {tmp_path}/a.jsonl, line 3)" in told[0]


def test_dialogues_and_objects_of_known_data_sets(tmp_path: Path) -> None:
    turns = [{"speaker": "Amanda", "text": "Hi!"}, {"role": "user", "content": "Yes?"}]
    rows = [
        {
            "dialogue": turns,
            "url": None,
            "summary": {"en": "They talk.", "parts": ["<S> a </S>", "b"]},
        },
        {
            "dialogue": [{"text": "Hi."}],
            "url": "x",
            "summary": {"en": None, "parts": ["c"]},
        },
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines.replace('"en": null', '"en": NaN'))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    found = []
    for name in ("a.jsonl", "a.parquet", "saved"):
        with pytest.raises(UsageError, match=r"found dialogue, .*summary\.en, summary\.parts"):
            PairSource(SummarizationDataConfig(path=tmp_path / name)).read("train")
        data = SummarizationDataConfig(path=tmp_path / name, target_field="summary.en")
        found += [(p.source, p.target) for p in PairSource(data).read("train").pairs]
    assert found == [("Amanda: Hi!\nuser: Yes?", "They talk.")] * 3
    data = SummarizationDataConfig(path=tmp_path / "a.jsonl", target_field="summary.parts")
    assert [p.target for p in PairSource(data).read("train").pairs] == ["a\nb", "c"]


def test_columns_are_chosen_by_option_and_found_in_any_case(tmp_path: Path) -> None:
    def find(names: list[str], **fields: str) -> list[tuple[str, str]]:
        (tmp_path / "a.csv").write_text(",".join(names) + "\n" + ",".join(names) + "\n")
        data = SummarizationDataConfig(path=tmp_path / "a.csv", **fields)  # type: ignore[arg-type]
        return [(p.source, p.target) for p in PairSource(data).read("train").pairs]

    assert find(["ID", "Source Text", "HIGHLIGHTS"]) == [("Source Text", "HIGHLIGHTS")]
    assert find(["body", "tldr"], source_field="Body", target_field="tldr") == [("body", "tldr")]
    assert find(["ctext", "text"], source_field="ctext", target_field="text") == [("ctext", "text")]
    assert find(["text", "title"], target_field="title") == [("text", "title")]
    assert find(["chapter", "tldr", "abstract"]) == [("chapter", "abstract")]
    assert find(["source", "body", "text", "tldr"]) == [("text", "tldr")]
    with pytest.raises(
        UsageError, match="line 1: 2 columns could be the article: article, text"
    ) as e:
        find(["article", "text", "summary"])
    assert e.value.hint == "Choose one with --source-field."
    assert find(["article", "text", "summary"], source_field="text") == [("text", "summary")]
    with pytest.raises(UsageError, match=r"no column for the article: .*found page, summary") as e:
        find(["page", "summary"])
    assert "--source-field" in str(e.value.hint)
    with pytest.raises(UsageError, match=r"expected 'x' .--target-field.; found article, summary"):
        find(["article", "summary"], target_field="x")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.csv": b"article,summary\na,b\nc\n"}, r"csv, line 3: 1 fields, but 2 columns"),
        ({"train.csv": b'article,summary\na,"b\nc,d\n'}, r"csv, line 2: not valid CSV"),
        ({"train.csv": b"article,summary\na,caf\xe9\n"}, r"csv is not UTF-8 text: .* line 2"),
        ({"train.jsonl": b'{"article": "a", "summary": "b"}\n{"a\n'}, r"line 2: not valid JSON"),
        ({"train.jsonl": b"[1]"}, r"row 1: expected a JSON object"),
        ({"train.jsonl": b'{"article": 3, "summary": "b"}'}, r"line 1: expected a text .* found 3"),
        ({"train.json": b'[{"article": "a",\n"summary" "b"}]'}, r"json, line 2: not valid JSON"),
        ({"train.json": b'{"a": 1}'}, r"no column for the article"),
        ({"train.csv": b'article,summary\na,"say \\"hi\\", b"\n'}, r"csv, line 2: not valid CSV"),
        ({"train.jsonl": b"%PDF-1.4"}, r"is not text: it is a PDF"),
        ({"train.jsonl.gz": gzip.compress(b"x" * 99)[:-9]}, r"jsonl.gz is damaged"),
        ({"train.arrow": b"nonsense"}, r"not a readable Arrow file"),
        ({"train.csv": b"", "train.jsonl": b""}, r"2 times: train.csv and train.jsonl"),
        ({"train.jsonl": b"", "data/train.jsonl": b""}, r"2 times: train.jsonl and data/train"),
        ({"train-00000-of-00002.parquet": b""}, r"1 of the 2 shards of the train split"),
        ({"pairs.jsonl": b""}, r"no train split in"),
        ({"train.source": b"a\nb\n", "train.target": b"a\n"}, r"has 2 lines, train.target has 1"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_pairs(tmp_path, "train")
    assert "\n" not in caught.value.message


# ---- splits --------------------------------------------------------------------------------------


def source_of(path: Path, **shares: float) -> PairSource:
    return PairSource(SummarizationDataConfig(path=path, **shares))  # type: ignore[arg-type]


def test_a_file_in_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfdxx")
    with pytest.raises(UsageError, match="it is compressed with zstd") as caught:
        read_pairs(tmp_path / "train.jsonl.zst", "train")
    assert str(caught.value.hint).startswith("Unpack it first: unzstd <")


def test_one_file_is_divided_by_shares_whatever_its_order(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(ROWS))
    (tmp_path / "b.csv").write_text(separated(ROWS[::-1]))
    shares = {"validation_share": 0.2, "test_share": 0.1}
    parts = []
    for name in ("a.jsonl", "b.csv"):
        source = source_of(tmp_path / name, **shares)
        assert source.splits == ["train", "validation", "test"]
        parts.append([{p.source for p in source.read(s).pairs} for s in source.splits])
    assert parts[0] == parts[1]
    assert [len(part) for part in parts[0]] == [28, 8, 4]
    assert set.union(*parts[0]) == {article for article, _ in ROWS}
    # One split does not depend on whether the other is held out.
    alone = source_of(tmp_path / "a.jsonl", test_share=0.1).read("test").pairs
    assert {p.source for p in alone} == parts[0][2]


def test_equal_articles_stay_on_one_side(tmp_path: Path) -> None:
    rows = [(article, f"{summary} {i}") for i in range(3) for article, summary in ROWS[:5]]
    (tmp_path / "a.jsonl").write_text(lines(rows))
    source = source_of(tmp_path / "a.jsonl", validation_share=0.2)
    train, validation = (
        {p.source for p in source.read(split).pairs} for split in ("train", "validation")
    )
    assert len(train) + len(validation) == 5
    assert validation


def test_a_file_without_shares_has_no_validation_but_can_be_scored(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(ROWS))
    source = source_of(tmp_path / "a.jsonl")
    assert source.splits == ["train"]
    assert len(source.read("test").pairs) == len(ROWS)
    with pytest.raises(UsageError, match="no test split") as caught:
        source_of(tmp_path / "a.jsonl", validation_share=0.1).read("test")
    assert "--test-share" in str(caught.value.hint)
    (tmp_path / "one.jsonl").write_text(lines(ROWS[:1]))
    with pytest.raises(UsageError, match="1 pairs: too few to split"):
        source_of(tmp_path / "one.jsonl", validation_share=0.1).read("train")
    with pytest.raises(ValueError, match="leave no pair for training"):
        source_of(tmp_path / "a.jsonl", validation_share=0.5, test_share=0.5)


def test_a_share_of_a_split_that_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(lines(ROWS))
    (tmp_path / "dev.csv").write_text(separated(ROWS[:3]))
    assert source_of(tmp_path, test_share=0.1).splits == ["train", "validation", "test"]
    with pytest.raises(UsageError, match="already has a validation split"):
        source_of(tmp_path, validation_share=0.1)


def test_articles_that_are_also_in_training_are_counted_and_named(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    (tmp_path / "train.jsonl").write_text(lines(ROWS[:10]))
    (tmp_path / "test.csv").write_text(separated([*ROWS[8:12], (ROWS[0][0], "Another summary.")]))
    told: list[str] = []
    reporter = Reporter()
    reporter.warn = told.append  # type: ignore[method-assign]
    data = SummarizationDataConfig(path=tmp_path)
    reports = preprocess_summarization(data, tmp_path / "out", tiny_tokenizer, reporter=reporter)
    assert reports["test"].in_training == 3
    assert "3 of 5 articles of the test split are also in the train split: id 2, 3, 6" in told[0]


def test_a_saved_data_set_without_splits_is_one_table(tmp_path: Path) -> None:
    datasets.Dataset(table(ROWS)).save_to_disk(tmp_path / "saved")
    assert source_of(tmp_path / "saved").splits == ["train"]
    assert len(source_of(tmp_path / "saved", test_share=0.1).read("test").pairs) == 4
    odd = datasets.DatasetDict({"tiny": datasets.Dataset(table(ROWS))})
    odd.save_to_disk(tmp_path / "odd")
    with pytest.raises(UsageError, match=r"no train split in .*odd; found tiny"):
        source_of(tmp_path / "odd").read("train")


@pytest.mark.parametrize("name", ["xsum", "here/none", "someone/none.jsonl", "a/b/c"])
def test_a_missing_path_is_not_looked_up_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"no such file or folder: {name}"):
        source_of(Path(name))


def test_prepared_pairs_keep_empty_articles_and_their_language(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    rows = [*ROWS[:3], ("", "A summary alone."), *ROWS[3:5]]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text(lines(rows))
    raw = SummarizationDataConfig(path=tmp_path, max_target_length=1000)
    preprocess_summarization(
        raw, tmp_path / "out", tiny_tokenizer, language="de", reporter=Reporter()
    )
    ready = raw.model_copy(update={"path": tmp_path / "out"})
    for split, scored in (("train", 5), ("validation", 6), ("test", 6)):
        for data in (raw, ready):
            source = PairSource(data)
            assert len(source.read(split, keep_empty=split != "train").pairs) == scored
            # The loss ignores pairs without an article, and the limit counts only the others.
            assert len(load_encoded(source, split, None, data, tiny_tokenizer).sources) == 5
            assert len(load_encoded(source, split, 4, data, tiny_tokenizer).sources) == 4
            if split == "train":
                assert count_training_pairs(source) == 5
                assert count_training_pairs(source, 4) == 4

    for data_path, option, language in (
        (tmp_path, None, "auto"),
        (tmp_path / "out", None, "de"),
        (tmp_path / "out", "fr", "fr"),
        (tmp_path / "out", "auto", "auto"),
    ):
        options = {"data.path": data_path, "evaluation.language": option}
        config, _ = load_with_model(ConfigOptions(), EvaluateConfig, options, lambda _: ((), ()))
        assert config.evaluation.language == language
    finetune = ConfigOptions(sets=["evaluation.language=sv"])
    config, _ = load_with_model(
        finetune, FinetuneConfig, {"data.path": tmp_path / "out"}, lambda _: ((), ())
    )
    assert config.evaluation.language == "sv"
