"""Claims of the pages that go stale: lists, counts, names of options, settings and files."""

from __future__ import annotations

import re

import pytest

from bart_cli.cli.app import COMMANDS
from bart_cli.config.presets import flatten, preset_names
from bart_cli.config.run import EvaluateConfig, FinetuneConfig, PretrainConfig
from bart_cli.data.abbreviations import ABBREVIATIONS
from bart_cli.data.fields import SOURCE_FIELDS, TARGET_FIELDS
from bart_cli.extras import EXTRAS
from tests.docs.pages import PAGES, ROOT
from tests.docs.test_migration import options
from tests.docs.test_pages import PARSER

TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in [*PAGES, "CONTRIBUTING.md"]}
README, DATA = TEXTS["README.md"], TEXTS["docs/data.md"]
# Options of docker, srun and sbatch.
OPTIONS = {*options(PARSER), "--help", "--user", "--ipc", "--gpus-per-task", "--gpus-per-node"}
OPTIONS |= {"--ntasks-per-node", "--kill-on-bad-exit", "--reservation"}
KINDS = (PretrainConfig, FinetuneConfig, EvaluateConfig)
SETTINGS = {key for kind in KINDS for key, _ in flatten(kind().model_dump(mode="json"))}
SECTIONS = {key.partition(".")[0] for key in SETTINGS if "." in key}


def test_the_readme_lists_all_commands_extras_and_presets() -> None:
    assert set(re.findall(r"^\| `bart (\w+)", README, re.MULTILINE)) == set(COMMANDS)
    assert set(re.findall(r"`\.\[(\w+)\]`", README)) == {*EXTRAS, "all"}
    assert f"| {len(preset_names())} preset files |" in README


def test_the_page_on_data_lists_all_columns_and_counts_the_languages() -> None:
    assert not [name for name in (*SOURCE_FIELDS, *TARGET_FIELDS) if f"`{name}`" not in DATA]
    (languages,) = re.findall(r"with abbreviations for (\d+) of", DATA)
    assert int(languages) == len(ABBREVIATIONS.keys() - {""})


# migration.md names options of the reference, and has its own test.
@pytest.mark.parametrize("page", sorted(TEXTS.keys() - {"docs/migration.md"}))
def test_sentences_only_name_existing_options_settings_and_files(page: str) -> None:
    assert "bart-cli[" not in TEXTS[page], "bart is not on PyPI: write '.[EXTRA]'"
    prose = re.sub(r"```.*?```", "", TEXTS[page], flags=re.DOTALL)
    for code in re.findall(r"`([^`\n]+)`", prose):
        if code.startswith(("bart ", "--")) and page != "docs/performance.md":
            assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", code)) <= OPTIONS, code
        for key in re.findall(r"^([a-z]+\.(?!json$|pt$|onnx$)[a-z_]+)(?:=\S+)?$", code):
            if key.partition(".")[0] in SECTIONS:
                assert key in SETTINGS, code
        for name in re.findall(r"^(?:benchmarks|docs|presets|tests)/[\w/.-]+\w$", code):
            assert (ROOT / name).exists(), code
