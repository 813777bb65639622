"""Download files from the Hugging Face hub, or the mirror set in `HF_ENDPOINT`, to its cache.

In: the name of a repository and file patterns. Out: a local folder, or a one-line error.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import filter as matching
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from bart_cli.errors import BartError, UsageError, did_you_mean, first_line
from bart_cli.files import sha256

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
SECONDS = 30.0  # that a server may be silent
UPLOAD_SECONDS = 600.0  # the same after an upload, which it checks before it answers
CHUNK = 2**16  # bytes: the most that a dropped connection loses; the library's default is 10 MB
# Addresses of a model that people paste instead of its name.
ADDRESS = re.compile(r"(?:https?://[^/]+/|hf://)([\w.-]+/[\w-][\w.-]*?)(?:\.git)?(?:[/?#]|$)")
LOGIN = "set HF_TOKEN or run `hf auth login`"


def address() -> str:
    """Return the hub's address as configured, without validation."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def endpoint() -> str:
    """Return the hub's address.

    Raises:
        UsageError: `HF_ENDPOINT` is not an HTTP URL.
    """
    given = address()
    if not given.startswith(("http://", "https://")):
        raise UsageError(
            f"HF_ENDPOINT={given}: expected a URL that begins with https:// or http://"
        )
    return given


def fetch(
    name: str,
    patterns: Sequence[str],
    *,
    what: str,
    weights: Sequence[str] = (),
    foreign: Mapping[str, tuple[str, str]] = MappingProxyType({}),
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Download files from the top folder of a hub repository; return the local folder.

    Args:
        name: `owner/name`, or `name` for the hub's oldest models, optionally with `@revision` (a
            branch, tag or commit).
        patterns: file names or globs.
        what: the noun in error messages, such as 'model' or 'tokenizer'.
        weights: patterns in order of preference; only the first that matches is downloaded.
        foreign: file pattern -> (description, remedy) for weights in unsupported formats.
        check: called with the folder before weights are downloaded; raises if it is of no use.

    Raises:
        UsageError: `name` is neither an existing path nor a repository on the hub, or the
            repository has no weights in a supported format.
        BartError: the hub denies the request or cannot be reached, or the cache is not writable.
    """
    import huggingface_hub

    endpoint()
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        url = ADDRESS.match(name)
        hint = f"Pass its name: {url[1]}." if url else _near(name)
        raise UsageError(f"no such {what}: {name}", hint=hint)
    quiet_library()
    repository, _, revision = name.partition("@")

    def snapshot(wanted: list[str]) -> Path:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=wanted,
            ignore_patterns=["*/*"],
        )
        return Path(folder)

    try:
        folder = snapshot(list(patterns))
        if not weights:
            return folder
        offline = None
        try:
            # `list_repo_files` would retry an unreachable hub for 24 seconds.
            siblings = huggingface_hub.model_info(repository, revision=folder.name).siblings
            files = [file.rfilename for file in siblings or []]
        except Exception as error:  # the cache may still be complete
            offline = error
            files = [path.name for path in folder.iterdir()]
        top = [file for file in files if "/" not in file]
        found = next((chosen for form in weights if (chosen := matching(top, form))), None)
        if found is None:
            if offline is not None:
                raise offline
            for form, (kind, remedy) in foreign.items():
                if others := matching(files, form):
                    raise UsageError(
                        f"{what} '{name}' has {kind} ({others[0]})", hint=remedy.format(name)
                    )
            raise UsageError(
                f"{what} '{name}' has no weights that bart reads: expected model.safetensors or "
                f"pytorch_model.bin, found {', '.join(files[:8]) or 'no file'}",
                hint="Convert them with the library that wrote them, or choose another model.",
            )
        if check is not None:
            check(folder)
        for file in found:
            if not (folder / file).exists() and offline is None:
                _transfer(repository, file, folder)
        return snapshot([*patterns, *found])
    except BartError:
        raise
    except Exception as error:  # from the library, one of its HTTP clients or the operating system
        raise refusal(error, name, what) from error


def quiet_library() -> None:
    """Hide warnings, show progress bars on a terminal only, and give every request a time limit."""
    from huggingface_hub.utils import get_session, logging  # type: ignore[attr-defined]
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    hooks = getattr(get_session(), "event_hooks", None)  # None: a session of requests, before 1.0
    if hooks is not None and _limit not in hooks["request"]:
        hooks["request"].append(_limit)


def _limit(request: Any) -> None:
    """Limit the time of a request that has no limit, as some of the library have."""
    limits = dict.fromkeys(("connect", "read", "write", "pool"), SECONDS)
    if request.method not in ("GET", "HEAD"):
        limits["read"] = UPLOAD_SECONDS
    given = request.extensions.get("timeout", {})
    request.extensions["timeout"] = limits | {part: t for part, t in given.items() if t}


@dataclass(frozen=True)
class Fault:
    """The root of an error from huggingface_hub."""

    cause: BaseException  # the first in the chain with an HTTP response, else the last
    offline: bool  # whether HF_HUB_OFFLINE forbade the request
    status: int | None  # of the response; None without a response
    said: str  # the hub's message, else that of the cause

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """Find the root of an error."""
        from huggingface_hub import errors

        cause = error
        while cause.__cause__ is not None and not (
            hasattr(cause, "response")
            or isinstance(cause, errors.OfflineModeIsEnabled)
            or _is(cause, "ProxyError", "TimeoutException")
        ):
            cause = cause.__cause__
        offline = isinstance(cause, errors.OfflineModeIsEnabled)
        response: Any = getattr(cause, "response", None)
        if response is None:
            return cls(cause, offline, None, first_line(cause))
        said = response.headers.get("x-error-message") or f"HTTP {response.status_code}"
        return cls(cause, offline, response.status_code, said)


def unreachable(fault: Fault) -> BartError | None:
    """Return the one-line error if a proxy blocked the request, else None."""
    hub = endpoint()
    if fault.status != 407 and not _is(fault.cause, "ProxyError"):
        return None
    if fault.status == 407 or "407" in fault.said:
        return BartError(
            f"the proxy {_proxy()} requires a login (HTTP 407), so {hub} cannot be reached",
            hint="Set HTTPS_PROXY=http://user:password@host:port, or list the hub's host in "
            "NO_PROXY.",
        )
    return BartError(
        f"the proxy {_proxy()} blocks access to {hub}: {fault.said}",
        hint="Correct HTTPS_PROXY, or list the hub's host in NO_PROXY.",
    )


def gated(name: str, what: str, said: str = "") -> BartError:
    """Return the one-line error for a repository whose terms must be accepted first."""
    from huggingface_hub import get_token

    hub = endpoint()
    page = f"{hub}/datasets/{name}" if what == "data set" else f"{hub}/{name}"
    login = "" if get_token() else f", then {LOGIN}"
    return BartError(
        f"{what} '{name}' is gated: {hub} denies access{said}",
        hint=f"Accept its terms at {page}{login}.",
    )


def refusal(error: Exception, name: str, what: str, *, local: bool = True) -> BartError:
    """Convert any error of a download from the hub to a one-line error with a hint.

    Args:
        local: whether `name` could have been a path.
    """
    from huggingface_hub import constants, errors, get_token

    hub = endpoint()
    fault = Fault.of(error)
    cause, status, said = fault.cause, fault.status, fault.said
    near = _near(name) if local else None
    neither = "neither an existing path nor" if local else "not"
    if isinstance(error, errors.HFValidationError):
        return UsageError(f"no such {what}: {name}", hint=near)
    if fault.offline:
        return BartError(
            f"{what} '{name}' is not in the cache, and HF_HUB_OFFLINE forbids downloading it",
            hint="Unset HF_HUB_OFFLINE.",
        )
    if blocked := unreachable(fault):
        return blocked
    if isinstance(cause, errors.GatedRepoError):
        return gated(name, what, f" ({said})")
    if status == 401 and get_token():
        saved = not os.environ.get("HF_TOKEN")
        renew = "`hf auth login`" if saved else "set HF_TOKEN"
        return BartError(
            f"{hub} rejects {'the saved token' if saved else 'HF_TOKEN'}: {said}",
            hint=f"Renew the token ({renew}), or remove it for public models.",
        )
    if status == 401:
        return BartError(
            f"no such {what}: '{name}' is {neither} a public repository of {hub}",
            hint=near or f"If it is private, {LOGIN}.",
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return UsageError(f"{what} '{name}': {hub} has the repository, but not the revision")
    if status == 404:
        return UsageError(
            f"no such {what}: '{name}' is {neither} a repository of {hub}",
            hint=near or (None if get_token() else f"If it is private, {LOGIN}."),
        )
    if status is not None:
        hint = "Try again later, or set HF_ENDPOINT to a mirror."
        if status == 403:
            hint = f"Use a token with read access to {name}: {LOGIN}."
        elif status == 429:
            hint = "Wait a few minutes" + ("." if get_token() else f", or {LOGIN}.")
        verb = "denies access to" if status < 500 else "cannot send"
        code = f"HTTP {status}"
        reason = "" if said == code else f": {said}"
        return BartError(f"{hub} {verb} {what} '{name}' ({code}){reason}", hint=hint)
    number, cache = getattr(cause, "errno", None), constants.HF_HUB_CACHE
    if number in NO_SPACE or "No space left" in said:
        return BartError(
            f"no space left in {cache} for {what} '{name}'",
            hint="Free space, or set HF_HOME to a folder on a larger disk; rerun to resume.",
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return BartError(
            f"the cache {cache} is not writable: {getattr(cause, 'strerror', None) or said}",
            hint="Set HF_HOME to a writable folder.",
        )
    if isinstance(cause, ValueError) and "Expecting value" in said:
        said = "the answer is not the hub's (a login page of the network?)"
    absent = "not an existing path, and " if local else ""
    retry = "Check the network (HTTPS_PROXY), or set HF_ENDPOINT to a mirror; rerun to resume."
    line = f"{what} '{name}': {absent}the download from {hub} failed: {said}"
    return BartError(line, hint=near or retry)


def _transfer(name: str, file: str, snapshot: Path) -> None:
    """Download a large file into the cache, resuming an interrupted transfer.

    huggingface_hub discards partial files since version 1. Ours is named after the file's etag, so
    that it is never resumed with the content of another version.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    url = hf_hub_url(name, file, revision=snapshot.name)
    known = get_hf_file_metadata(url)
    if not known.etag or known.size is None:
        return  # an unusual mirror: let the library download the file
    blob = snapshot.parents[1] / "blobs" / known.etag
    part = blob.with_name(f"{known.etag}.part")
    blob.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # the ranks of a run download the same model
        if not blob.exists():
            if stream.tell() > known.size:
                stream.truncate(0)
            http_get(
                url,
                stream,
                resume_size=os.fstat(stream.fileno()).st_size,
                headers=build_hf_headers(),
                expected_size=known.size,
                displayed_filename=file,
            )
            stream.flush()
            os.fsync(stream.fileno())
            if len(known.etag) == 64 and sha256(part) != known.etag:  # the etag of large files
                part.unlink()
                raise BartError(
                    f"{file} of '{name}' is corrupt: its SHA-256 is not {known.etag}",
                    hint="Rerun the command to download it again.",
                )
            part.replace(blob)
        else:
            part.unlink(missing_ok=True)


def _near(name: str) -> str | None:
    """Suggest an existing path with a name similar to `name`, or return None."""
    parent = Path(name).parent
    return did_you_mean(name, map(str, parent.iterdir())) if parent.is_dir() else None


def _is(error: BaseException, *names: str) -> bool:
    """Whether it is an error with one of these names, from whichever HTTP client."""
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _proxy() -> str:
    """Host and port of the proxy, without its password."""
    proxies = getproxies()
    scheme = urlsplit(endpoint()).scheme
    parts = urlsplit(proxies.get(scheme) or proxies.get("all") or "")
    return parts.netloc.rpartition("@")[2] or "between here and the hub"
