"""Uploads to a hub with the real one's protocol, and what is said when it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from bart_cli.errors import UsageError
from bart_cli.export.card import sign
from bart_cli.export.push import refusal, require_destination
from tests.command import python
from tests.servers.hub import Faults, serve_hub

pytestmark = pytest.mark.slow

# The library reads its environment when it is imported: one process for many uploads.
DRIVER = """
import json, os, sys
from pathlib import Path
from bart_cli.errors import BartError
from bart_cli.export.push import push
from bart_cli.progress import Reporter

class Notes(Reporter):
    def info(self, text):
        notes.append(text)
    warn = info

for folder, name, private, token, edit in json.loads(sys.argv[1]):
    os.environ["HF_TOKEN"], notes = token, []
    if edit:
        Path(edit[0]).write_text(edit[1])
    try:
        done = push(Path(folder), name, private, Notes())
        print(json.dumps([done.url, done.commit, done.private, notes]))
    except BartError as error:
        print(json.dumps([error.message, error.hint, error.exit_code]))
"""
ENVIRONMENT = {"NO_PROXY": "*", "HF_HOME": "/nowhere"}
CARD = sign("---\nlibrary_name: transformers\n---\n\n# news\n")


def push_all(endpoint: str, *uploads: tuple[object, ...]) -> list[list[str]]:
    """The results of uploads: folder, name, private, token, and a file to write before."""
    rows = [[str(folder), *rest, *[None] * (4 - len(rest))] for folder, *rest in uploads]
    variables = {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **ENVIRONMENT}
    result = python(DRIVER, json.dumps(rows), **variables)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # nothing around the one line
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "export"
    made.mkdir()
    (made / "README.md").write_text(CARD)
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(os.urandom(70_000))
    return made


def test_a_folder_is_one_commit_and_cards_that_people_edited_stay(
    folder: Path, tmp_path: Path
) -> None:
    hub, faults = tmp_path / "hub", Faults()
    name, there = "someone/news", hub / "someone/news"
    edited = "---\nlicense: mit\n---\n\n# Ours\n"
    later = CARD.replace("# news", "# news of today")
    with serve_hub(hub, faults) as endpoint:
        first, again, kept, replaced = push_all(
            endpoint,
            (folder, name, True, "hf_writer"),
            (folder, name, True, "hf_writer"),
            (folder, name, False, "hf_writer", (str(there / "README.md"), edited)),
            (folder, name, False, "hf_writer", (str(folder / "README.md"), later)),
        )
    assert first[0] == f"{endpoint}/someone/news"
    assert first[2:] == [True, []]
    assert again == first  # nothing has changed: no commit
    assert kept[3] == ["README.md of someone/news was edited on the hub: it is kept"]
    assert replaced[3] == []
    assert (there / "README.md").read_text() == later
    for file in folder.iterdir():
        assert (there / file.name).read_bytes() == file.read_bytes()
    paths = [path for method, path, _ in faults.requests if method in ("POST", "PUT")]
    assert sum("/commit/" in path for path in paths) == 2
    assert sum(path.endswith("objects/batch") for path in paths) >= 1


def test_refusals_are_one_line_with_a_remedy(folder: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    for name in ("public", "moved"):
        (hub / "someone" / name).mkdir(parents=True)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "README.md").write_text("---\nbase_model: ./runs/mine\n---\n")
    faults = Faults(
        moved={"someone/moved"}, refuse={"someone/full": (402, "", "Storage limit reached")}
    )
    with serve_hub(hub, faults) as endpoint:
        expired, reader, other, public, moved, card, full = push_all(
            endpoint,
            (folder, "someone/news", False, "hf_expired"),
            (folder, "someone/news", False, "hf_reader"),
            (folder, "else/news", False, "hf_writer"),
            (folder, "someone/public", True, "hf_writer"),
            (folder, "someone/moved", False, "hf_writer"),
            (bad, "someone/news", False, "hf_writer"),
            (folder, "someone/full", False, "hf_writer"),
        )
    assert expired[0] == (
        f"{endpoint} rejects the token: Invalid credentials in Authorization header"
    )
    assert "set HF_TOKEN or run `hf auth login`" in expired[1]
    for row, name in ((reader, "someone/news"), (other, "else/news")):
        assert f"does not let this token write to '{name}': You don't have the rights" in row[0]
        assert "Use a token with write access" in row[1]
    assert "--private" in public[0]
    assert "already exists and is public" in public[0]
    assert not list((hub / "someone/public").iterdir())  # nothing became public
    assert "'someone/moved' changed during the upload: A commit has happened since" in moved[0]
    assert '"base_model[0]" with value "./runs/mine" is not valid' in card[0]
    assert "Storage limit reached" in full[0]
    assert [row[2] for row in (expired, reader, other, public, moved, card, full)] == [
        *(1, 1, 1, 2, 1, 1, 1)
    ]
    for hint in (expired[1], reader[1], moved[1], card[1], full[1]):
        assert "is kept: rerun the command to push it" in hint


def test_a_refusal_names_the_folder_as_it_is_spelled() -> None:
    error = OSError("denied")
    error.response = SimpleNamespace(status_code=403, headers={})  # type: ignore[attr-defined]
    hint = refusal(error, "me/news", Path("exports/news")).hint
    assert hint is not None
    assert hint.endswith(". exports/news is kept: rerun the command to push it.")


def test_a_place_to_push_to_is_checked_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    require_destination("someone/news-2.1")
    for name in (
        "news",
        "a/b/c",
        "a/",
        "/b",
        "a b/c",
        "a/b--c",
        "https://hub/a/b",
        "a/" + "x" * 99,
    ):
        with pytest.raises(UsageError, match="expected USER/NAME"):
            require_destination(name)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UsageError, match="no token for") as caught:
        require_destination("someone/news")
    assert caught.value.hint == "Set HF_TOKEN or run `hf auth login`."
