"""Load data sets with `datasets`: from a folder, the Hugging Face hub, or the mirror `HF_ENDPOINT`.

The library downloads, resumes and verifies. It caches the rows as Arrow, so that a second run
starts immediately.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bart_cli.data.pair_files import FORMS
from bart_cli.data.text_files import unpacked_name
from bart_cli.errors import BartError, UsageError, first_line
from bart_cli.extras import require
from bart_cli.files import no_such
from bart_cli.hub import endpoint, gated, quiet_library, refusal

# Data sets that are loading scripts on the hub, each with a complete copy in a supported format.
CONVERTED = {
    "openwebtext": "Skylion007/openwebtext",
    "wikipedia": "wikimedia/wikipedia",
    "cnn_dailymail": "abisee/cnn_dailymail",
    "xsum": "EdinburghNLP/xsum",
}
STREAM_ATTEMPTS = 4  # to read from a file of a stream, each of about half a minute
PARQUET = "refs/convert/parquet"  # branch with the hub's automatic conversion to Parquet
SIZED = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".zst", ".gz", ".xz", ".txt")
# OWNER/NAME[@REVISION][:CONFIGURATION]
HUB_ID = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?(?::([\w.+-]+))?")


@dataclass(frozen=True)
class HubDataset:
    """A data set on the hub: `owner/name`, a configuration, and a branch, tag or commit.

    local: whether a path could have been given instead, which errors then suggest.
    """

    repository: str
    configuration: str | None = None
    revision: str | None = None
    local: bool = False

    def url(self) -> str:
        """The address recorded in the manifest."""
        at = f"@{self.revision}" if self.revision else ""
        part = f" {self.configuration}" if self.configuration else ""
        return f"{endpoint()}/datasets/{self.repository}{at}{part}"

    def load(
        self, split: str | None, jobs: int = 1, *, bars: bool = False, streaming: bool = False
    ) -> Any:
        """Load one split (a `Dataset`), or all splits by name (a `DatasetDict`).

        Args:
            split: name of the split; None loads all.
            jobs: number of processes that download and convert files.
            bars: show the progress bars of `datasets` if standard error is a terminal.
            streaming: fetch rows during iteration, without caching them.

        Raises:
            UsageError: the data set, configuration or split does not exist, or the split is
                incomplete.
            BartError: the hub cannot be reached, or `datasets` does not support the format.
        """
        require(f"data set '{self.repository}'", "data")
        import datasets
        import huggingface_hub
        from datasets.data_files import EmptyDatasetError
        from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

        quiet_library()
        if bars and sys.stderr.isatty():
            datasets.enable_progress_bars()
        else:
            datasets.disable_progress_bars()
        datasets.logging.set_verbosity_error()
        # By default, a read from a hub that has vanished is repeated for ten minutes.
        datasets.config.STREAMING_OPEN_MAX_RETRIES = STREAM_ATTEMPTS
        datasets.config.STREAMING_READ_MAX_RETRIES = STREAM_ATTEMPTS
        needed, first = split or "train", None
        try:
            part = self._partial(needed, self.revision)
        except Exception as error:  # from the HTTP library, which is httpx or requests
            part, first = "", error  # the rows may be in the cache
            if getattr(error, "response", None) is None:
                # The hub does not respond; `datasets` would retry for half a minute.
                datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
        if part:
            raise UsageError(
                f"data set '{self.repository}' contains only part of the {needed} split: {part}",
                hint=f"Choose a complete copy, such as {self._complete_copy()}",
            )
        try:
            return datasets.load_dataset(
                self.repository,
                self.configuration,
                revision=self.revision,
                split=split,
                num_proc=jobs if jobs > 1 else None,
                streaming=streaming,
            )
        except DatasetNotFoundError as error:
            if "is a gated dataset" in str(error):  # `datasets` hides the cause
                raise gated(self.repository, "data set") from None
            if error.__cause__ is None:  # the hub responded: it has no such repository
                raise UsageError(
                    f"no such data set: '{self.repository}' is not a public repository of "
                    f"{endpoint()}",
                    hint="If it is private, log in with `hf auth login` or set HF_TOKEN.",
                ) from None
            raise refusal(first or error, self.repository, "data set", local=self.local) from error
        except (EmptyDatasetError, DataFilesNotFoundError):
            raise UsageError(
                f"data set '{self.repository}' has no files of rows, such as .parquet or .jsonl",
                hint=f"Choose a complete copy, such as {self._complete_copy()}",
            ) from None
        except ValueError as error:  # unknown configuration or split; the message lists valid ones
            listed = " ".join(str(error).split("\n")[:2])
            hint = None
            if self.local and "onfig" in listed:
                hint = f"Choose a configuration: {self.repository}:NAME."
            raise UsageError(f"data set '{self.repository}': {listed}", hint=hint) from None
        except RuntimeError as error:
            hint = f"Choose a copy in parquet, such as {self._complete_copy()}"
            with suppress(Exception):  # from the HTTP library
                if part := self._partial(needed, PARQUET):
                    hint = (
                        f"Choose a complete copy, such as {self._complete_copy()} (the hub's own "
                        f"conversion is incomplete: {part})"
                    )
            raise BartError(
                f"data set '{self.repository}': {first_line(error)}", hint=hint
            ) from None
        except Exception as error:  # from the library, its HTTP clients or the operating system
            raise refusal(first or error, self.repository, "data set", local=self.local) from error

    def size(self) -> int:
        """Total size of this configuration's data files in bytes, as reported by the hub."""
        try:
            files = self._files(self.revision)
        except Exception as error:  # from the library, its HTTP client or the operating system
            raise refusal(error, self.repository, "data set", local=self.local) from error
        return sum(f.size or 0 for f in files)

    def _files(self, revision: str | None) -> list[Any]:
        """Data files in the folder named after the configuration, or all if there is none."""
        import huggingface_hub

        info: Any = huggingface_hub.HfApi().dataset_info(
            self.repository, revision=revision, files_metadata=True
        )
        files = [f for f in info.siblings or () if f.rfilename.endswith(SIZED)]
        return [f for f in files if f.rfilename.split("/")[0] == self.configuration] or files

    def _partial(self, split: str, revision: str | None) -> str:
        """Folder and size of an incomplete conversion (the hub stops at 5 GB), or ""."""
        cut = [f for f in self._files(revision) if f"partial-{split}" in f.rfilename.split("/")]
        size = sum(f.size or 0 for f in cut)
        amount = f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e3:,.1f} kB"
        return f"{cut[0].rfilename.rpartition('/')[0]}, {amount}" if cut else ""

    def _complete_copy(self) -> str:
        known = CONVERTED.get(self.repository.rpartition("/")[2].lower())
        if known and known != self.repository:
            return known
        return "a repository with .parquet files named train-*"


def load_saved(path: Path) -> Any:
    """Load a data set saved with `datasets`' `save_to_disk`."""
    require(f"{path}, saved by `datasets`,", "data")
    import datasets

    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # `datasets` passes on any error of its readers
        raise UsageError(f"{path}: not a readable data set: {first_line(error)}") from None


@cache
def load_from_hub(path: Path) -> Any:
    """Load the splits of a data set on the hub."""
    known = HUB_ID.fullmatch(str(path))
    suffix = unpacked_name(path).suffix
    if known is None or suffix in FORMS or Path(path.parts[0]).exists():
        hint = None
        if len(path.parts) == 1 and suffix not in FORMS:
            hint = "Write a data set on the hub as OWNER/NAME, as in EdinburghNLP/xsum."
        raise no_such(path, hint=hint)
    repository, revision, configuration = known.groups()
    try:
        return HubDataset(repository, configuration, revision, local=True).load(None)
    except BartError as error:
        raise type(error)(
            f"no such file or folder: {path}; on the hub: {error.message}",
            hint=error.hint and error.hint.replace("--dataset", "--data"),
            exit_code=error.exit_code,
        ) from None
