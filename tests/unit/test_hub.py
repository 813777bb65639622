"""Downloads from a hub that behaves like the real one, and errors if they fail."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

from bart_cli.data.hub_pairs import HubDataset
from bart_cli.errors import UsageError
from bart_cli.hub import quiet_library, refusal
from bart_cli.model.formats import HUB_FILES, HUB_WEIGHTS
from tests.command import python
from tests.servers.hub import Faults, serve_hub

pytestmark = pytest.mark.slow

# The library reads its environment when it is imported, so one process makes many downloads.
DRIVER = """
import json, os, sys
from bart_cli.errors import BartError
from bart_cli.hub import fetch
from bart_cli.model.formats import FOREIGN
asked, patterns, weights = map(json.loads, sys.argv[1:])
for name, token in asked:
    os.environ.pop("HF_TOKEN", None)
    os.environ.update({"HF_TOKEN": token} if token else {})
    try:
        folder = fetch(name, patterns, what="model", weights=weights, foreign=FOREIGN)
        print(json.dumps(sorted(path.name for path in folder.iterdir())))
    except BartError as error:
        print(json.dumps([error.message, error.hint, error.exit_code]))
"""


def fetch(endpoint: str, home: Path, *names: str | tuple[str, str]) -> list[list[str]]:
    asked = [(name, "") if isinstance(name, str) else name for name in names]
    result = python(
        *(DRIVER, *map(json.dumps, (asked, HUB_FILES, HUB_WEIGHTS))),
        **{"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # only one line
    return [json.loads(line) for line in result.stdout.splitlines()]


def repository(hub: Path, name: str, *files: str) -> Path:
    for file in ("config.json", "vocab.json", "merges.txt", "trainer_state.json", *files):
        path = hub / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return hub / name


def test_only_one_format_of_the_weights_is_downloaded(tmp_path: Path) -> None:
    both = ("model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack")
    repository(tmp_path / "hub", "a/both", *both, "onnx/model.safetensors", "onnx/config.json")
    shards = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    repository(tmp_path / "hub", "a/shards", *shards, "pytorch_model.bin.index.json")
    repository(tmp_path / "hub", "a/tensorflow", "tf_model.h5")
    repository(tmp_path / "hub", "a/javascript", "onnx/encoder_model.onnx")
    faults = Faults(renamed={"old/shards": "a/shards"})
    asked = ("a/both", "a/shards", "a/tensorflow", "a/javascript", "old/shards")
    with serve_hub(tmp_path / "hub", faults) as endpoint:
        found = fetch(endpoint, tmp_path / "home", *asked)
    small = ["config.json", "merges.txt", "vocab.json"]
    assert found[0] == sorted([*small, "model.safetensors"])
    assert found[1] == sorted([*small, *shards, "pytorch_model.bin.index.json"])
    assert found[4] == found[1]
    assert "has TensorFlow weights (tf_model.h5)" in found[2][0]
    assert "has ONNX graphs (onnx/encoder_model.onnx)" in found[3][0]
    sent = [path for method, path, _ in faults.requests if method == "GET"]
    assert not [path for path in sent if "onnx" in path or "both/pytorch" in path]
    # Without the hub, the cache answers.
    gone = fetch("http://127.0.0.1:9", tmp_path / "home", "a/both", "a/shards", "a/other")
    assert gone[:2] == found[:2]
    assert "a/other" in gone[2][0]
    assert "the download from http://127.0.0.1:9 failed" in gone[2][0]


def test_a_broken_transfer_prints_one_line_and_resumes(tmp_path: Path) -> None:
    folder = repository(tmp_path / "hub", "a/model")
    content = os.urandom(300_000)
    (folder / "model.safetensors").write_bytes(content)
    faults = Faults(cut={"model.safetensors": 200_000})
    with serve_hub(tmp_path / "hub", faults) as endpoint:
        ((message, hint, code),) = fetch(endpoint, tmp_path / "home", "a/model")
        assert "'a/model'" in message
        assert endpoint in message
        assert "Try again later" in hint or "rerun to resume" in hint
        assert code == 1
        faults.refuse.clear()
        faults.requests.clear()
        (files,) = fetch(endpoint, tmp_path / "home", "a/model")
    assert "model.safetensors" in files
    ranges = [asked for method, path, asked in faults.requests if path.startswith("cdn/") and asked]
    assert ranges == ["bytes=196608-"]
    blobs = [p for p in (tmp_path / "home").rglob("blobs/*") if p.stat().st_size == len(content)]
    assert blobs[0].read_bytes() == content
    assert not list((tmp_path / "home").rglob("*.part"))


def test_errors_have_a_hint(tmp_path: Path) -> None:
    for name in ("gated", "private", "expired", "busy", "forbidden"):
        repository(tmp_path / "hub", f"a/{name}", "model.safetensors")
    repository(tmp_path / "hub", "a/lora", "adapter_config.json", "adapter_model.safetensors")
    repository(tmp_path / "hub", "a/model", "model.safetensors")
    faults = Faults(
        gated={"a/gated"},
        refuse={
            "a/private": (401, "RepoNotFound", "Repository not found"),
            "a/expired": (401, "", 'User Access Token "x" is expired'),
            "a/forbidden": (403, "", "Your token lacks the permission"),
            "a/busy": (503, "", "Try later"),
            "a/model/revision/v9": (404, "RevisionNotFound", "Invalid rev id: v9"),
        },
    )
    asked = (
        *("a/gated", "a/private", ("a/expired", "hf_x"), ("a/forbidden", "hf_x")),
        *("a/missing", "a/lora", "a/busy", "a/model@v9", "a/model@main"),
        "https://huggingface.co/a/model/tree/main",
    )
    with serve_hub(tmp_path / "hub", faults) as endpoint:
        rows = fetch(endpoint, tmp_path / "home", *asked)
        gated, private, expired, forbidden, missing, lora, busy, revision, branch, url = rows
        (tmp_path / "file").touch()
        ((unwritable, remedy, _),) = fetch(endpoint, tmp_path / "file" / "home", "a/gated")
    assert "is gated" in gated[0]
    assert f"Accept its terms at {endpoint}/a/gated, then set HF_TOKEN" in gated[1]
    assert "neither an existing path nor a public repository" in private[0]
    assert "If it is private, set HF_TOKEN" in private[1]
    assert 'rejects HF_TOKEN: User Access Token "x" is expired' in expired[0]
    assert "Renew the token" in expired[1]
    assert "Your token lacks the permission" in forbidden[0]
    assert [row[2] for row in (gated, private, expired, forbidden, missing)] == [1, 1, 1, 1, 2]
    assert "'a/lora' has LoRA or other adapter weights (PEFT)" in lora[0]
    assert "from_pretrained('a/lora').merge_and_unload()" in lora[1]
    assert f"{endpoint} cannot send model 'a/busy' (HTTP 503): Try later" in busy[0]
    assert "has the repository, but not the revision" in revision[0]
    assert "model.safetensors" in branch
    assert url[1] == "Pass its name: a/model."
    assert f"the cache {tmp_path}/file/home/hub is not writable" in unwritable
    assert "Set HF_HOME" in remedy


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_cache_is_named(number: int) -> None:
    error = refusal(OSError(number, os.strerror(number)), "a/model", "model")
    assert error.exit_code == 1
    assert "no space left in" in error.message or "is not writable" in error.message
    assert error.hint
    assert "HF_HOME" in error.hint


def test_a_proxy_that_requires_a_login_is_reported_without_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.example:3128")
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    error = refusal(type("ProxyError", (OSError,), {})("407 Proxy Auth"), "a/model", "model")
    assert "proxy.example:3128 requires a login" in error.message
    assert "secret" not in error.message
    assert not isinstance(error, UsageError)


@pytest.mark.parametrize(("method", "limit"), [("GET", 30.0), ("POST", 600.0)])
def test_every_request_has_a_time_limit(method: str, limit: float) -> None:
    """The library asks for a repository without one, and a silent hub would hold it forever."""
    quiet_library()
    given = {"timeout": {"connect": 5.0, "read": None}}
    request = SimpleNamespace(method=method, extensions=given, headers={})
    *_, hook = get_session().event_hooks["request"]
    hook(request)
    limits = {"connect": 5.0, "read": limit, "write": 30.0, "pool": 30.0}
    assert request.extensions["timeout"] == limits


def test_a_path_is_suggested_only_where_one_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    pairs = refusal(OSError("refused"), "corpos", "data set")
    assert (pairs.hint, "existing path" in pairs.message) == ("Did you mean 'corpus'?", True)
    corpus = refusal(OSError("refused"), "corpos", "data set", local=False)
    assert "path" not in corpus.message
    assert "mean" not in (corpus.hint or "")


def test_a_stream_from_a_hub_that_vanished_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(HubDataset, "_partial", lambda *_: "")
    read = [f"STREAMING_{action}_MAX_RETRIES" for action in ("READ", "OPEN")]
    for name in read:
        monkeypatch.setattr(datasets.config, name, 20)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: [getattr(datasets.config, name) for name in read]
    )
    assert max(HubDataset("a/b").load("train", streaming=True)) < 6
