"""Files from the Hugging Face hub (or the mirror that `HF_ENDPOINT` names), kept in its cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bart_cli.errors import BartError, UsageError


def address() -> str:
    """What is given as the hub's address, whatever it is."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def endpoint() -> str:
    """The hub's address.

    Raises:
        UsageError: `HF_ENDPOINT` is no address of the web.
    """
    given = address()
    if not given.startswith(("http://", "https://")):
        raise UsageError(
            f"HF_ENDPOINT={given}: expected an address that begins with https:// or http://"
        )
    return given


def fetch(name: str, patterns: Sequence[str], *, what: str) -> Path:
    """Download the files of a hub repository that match; a local folder with them comes back.

    Args:
        name: `owner/name`, or `name` for the hub's oldest models.
        patterns: file names or globs.
        what: how to call it in an error line: 'model', 'tokenizer' …

    Raises:
        UsageError: `name` is neither a path that exists nor a repository of the hub.
        BartError: the hub could not be reached and the cache does not have it.
    """
    import huggingface_hub
    from huggingface_hub import errors

    hub = endpoint()
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UsageError(f"no such {what}: {name}")
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise UsageError(
            f"no such {what}: '{name}' is neither a path that exists nor a repository of {hub}"
        ) from None
    except (errors.LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BartError(
            f"no such {what} here: '{name}' is not a path that exists, "
            f"and {hub} could not be asked ({reason[:120]})",
            hint="give the path of a folder, or set HF_ENDPOINT to a mirror that answers",
        ) from None
