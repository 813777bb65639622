"""Upload an export to the Hugging Face hub (or the mirror in `HF_ENDPOINT`).

In: a folder and `USER/NAME`. Out: a repository with the folder's files, or an error in one line.
"""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bart_cli.errors import BartError, UsageError
from bart_cli.export import card
from bart_cli.hub import LOGIN, Fault, endpoint, quiet_library, unreachable
from bart_cli.progress import Reporter


@dataclass(frozen=True)
class Pushed:
    """An uploaded repository: its address, its newest commit, and whether it is private."""

    url: str
    commit: str
    private: bool


def require_destination(name: str) -> None:
    """Check the repository name and the presence of a token, before the export begins."""
    from huggingface_hub import errors, get_token
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    hub = endpoint()
    try:
        validate_repo_id(name)
    except errors.HFValidationError:
        valid = False
    else:
        valid = name.count("/") == 1
    if not valid:
        raise UsageError(
            f"--push {name}: expected USER/NAME or ORGANIZATION/NAME, of letters, digits, -, _ "
            "and ., 96 characters at most"
        )
    if not get_token():
        raise UsageError(
            f"--push {name}: no token for {hub}", hint=f"{LOGIN[0].upper()}{LOGIN[1:]}."
        )


def push(folder: Path, name: str, private: bool, reporter: Reporter) -> Pushed:
    """Create the repository if it does not exist, and upload all files of `folder`."""
    import huggingface_hub

    quiet_library()
    api = huggingface_hub.HfApi()
    try:
        # Omit `private` if it is not set: an organization may have a default of its own.
        visibility: dict[str, Any] = {"private": True} if private else {}
        api.create_repo(name, exist_ok=True, **visibility)
        info = api.model_info(name)
        if private and not info.private:  # the hub ignores `private` for an existing one
            raise UsageError(
                f"--private: {endpoint()}/{name} already exists and is public",
                hint="Make it private in its settings, or push to a new name.",
            )
        _choose_transfer(name)
        kept = _edited_there(folder, name)
        if kept:
            reporter.info(f"README.md of {name} was edited on the hub: it is kept")
        with warnings.catch_warnings(record=True) as noticed:
            warnings.simplefilter("always", UserWarning)
            commit = api.upload_folder(
                repo_id=name,
                folder_path=folder,
                ignore_patterns=[card.NAME] if kept else None,
                commit_message=f"Upload with {card.program()}",
            )
        for warning in noticed:
            reporter.warn(" ".join(str(warning.message).split()))
    except BartError:
        raise
    except Exception as error:  # of the library, an HTTP client or the system
        raise refusal(error, name, folder) from error
    return Pushed(f"{endpoint()}/{name}", commit.oid, bool(info.private))


def _choose_transfer(name: str) -> None:
    """Use git LFS if the hub has no Xet storage, as mirrors: hf_xet would retry for minutes."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

    url = f"{endpoint()}/api/models/{name}/xet-write-token/main"
    answer = get_session().get(url, headers=build_hf_headers())
    if answer.status_code == 404 or (answer.status_code == 200 and b"casUrl" not in answer.content):
        constants.HF_HUB_DISABLE_XET = True


def _edited_there(folder: Path, name: str) -> bool:
    """Whether the repository's card was edited by a person, and the folder's was not."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    here = folder / card.NAME
    if here.is_file() and card.is_edited(here.read_bytes()):
        return False
    with tempfile.TemporaryDirectory() as scratch:
        try:
            there = huggingface_hub.hf_hub_download(name, card.NAME, local_dir=scratch)
        except EntryNotFoundError:
            return False
        return card.is_edited(Path(there).read_bytes())


def refusal(error: Exception, name: str, folder: Path) -> BartError:
    """Return the error, in one line with a hint, for a failed upload."""
    fault = Fault.of(error)
    hub, status = endpoint(), fault.status
    if fault.offline:
        line, hint = "HF_HUB_OFFLINE forbids the upload", "Unset HF_HUB_OFFLINE. "
    elif blocked := unreachable(fault):
        return blocked
    elif status is None and not isinstance(error, ValueError):
        line = f"the upload to {hub} failed: {fault.said}"
        hint = "Check the network (HTTPS_PROXY). "
    elif status in (None, 400):  # the library reports invalid metadata of the card as a ValueError
        said = " ".join(str(error).split()) if isinstance(error, ValueError) else fault.said
        line, hint = f"{hub} rejects the files of {folder}: {said[:500]}", "Correct them. "
    elif status == 401:
        line, hint = f"{hub} rejects the token: {fault.said}", f"Renew it ({LOGIN}). "
    elif status in (403, 404):
        line = f"{hub} does not let this token write to '{name}': {fault.said}"
        hint = "Use a token with write access to it, or push to a name of your own. "
    elif status in (409, 412):
        line, hint = f"'{name}' changed during the upload: {fault.said}", ""
    else:
        line = f"{hub} rejects the upload to '{name}' (HTTP {status}): {fault.said}"
        hint = "Try again later. "
    return BartError(line, hint=f"{hint}{folder} is kept: rerun the command to push it.")
