"""Data sets of the Hugging Face hub (or of the mirror that `HF_ENDPOINT` names) by `datasets`.

The library downloads, resumes and checks; its cache holds the rows as Arrow, so that a second run
begins at once.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from bart_cli.errors import BartError, UsageError, first_line
from bart_cli.extras import require
from bart_cli.hub import endpoint, refusal

# Data sets that are scripts on the hub, and the complete copy of each that can be read.
CONVERTED = {
    "openwebtext": "Skylion007/openwebtext",
    "wikipedia": "wikimedia/wikipedia",
    "cnn_dailymail": "abisee/cnn_dailymail",
    "xsum": "EdinburghNLP/xsum",
}
PARQUET = "refs/convert/parquet"  # the branch of the hub's own conversion
SIZED = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".zst", ".gz", ".xz", ".txt")


@dataclass(frozen=True)
class HubDataset:
    """Where a data set lies: `owner/name`, a configuration of it, a branch, tag or commit."""

    repository: str
    configuration: str | None = None
    revision: str | None = None

    def url(self) -> str:
        """The address that a manifest names."""
        at = f"@{self.revision}" if self.revision else ""
        part = f" {self.configuration}" if self.configuration else ""
        return f"{endpoint()}/datasets/{self.repository}{at}{part}"

    def load(
        self,
        split: str | None,
        jobs: int = 1,
        *,
        bars: bool = False,
        streaming: bool = False,
    ) -> Any:
        """The rows of a split (a `Dataset`), or all splits by name (a `DatasetDict`).

        Args:
            split: None: all.
            bars: show the library's own, with bytes and speed, on a terminal.
            streaming: read the rows while they are iterated over; nothing is kept in the cache.

        Raises:
            UsageError: no such data set, configuration or split, or a part of the split only.
            BartError: the hub could not be reached, or the data set is of a kind that `datasets`
                cannot read.
        """
        require(f"data set '{self.repository}'", "data")
        import datasets
        import huggingface_hub
        from datasets.exceptions import DatasetNotFoundError

        if bars and sys.stderr.isatty():
            datasets.enable_progress_bars()
        else:
            datasets.disable_progress_bars()
        datasets.logging.set_verbosity_error()
        needed = split or "train"
        absent = self._absent()
        if (
            absent is not None
        ):  # the cache may have the rows; `datasets` would try for half a minute
            datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
        elif part := self._partial(needed, self.revision):
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
            if error.__cause__ is None:  # the hub answered, and does not know it
                raise UsageError(
                    f"no such data set: '{self.repository}' is not a public repository of "
                    f"{endpoint()}",
                    hint="If it is private, log in with `hf auth login` or set HF_TOKEN.",
                ) from None
            raise refusal(absent or error, self.repository, "data set") from error
        except ValueError as error:  # unknown configuration or split: the message lists them
            raise UsageError(f"data set '{self.repository}': {first_line(error)}") from None
        except RuntimeError as error:
            part = self._partial(needed, PARQUET)
            raise BartError(
                f"data set '{self.repository}': {first_line(error)}",
                hint=f"Choose a complete copy, such as {self._complete_copy()} (the hub's own "
                f"conversion is incomplete: {part})"
                if part
                else f"Choose a copy in parquet, such as {self._complete_copy()}",
            ) from None
        except Exception as error:  # of the library, its HTTP clients and the system
            raise refusal(absent or error, self.repository, "data set") from error

    def _absent(self) -> Exception | None:
        """The error of a hub that does not answer at all; None for any answer."""
        import huggingface_hub

        try:
            huggingface_hub.HfApi().dataset_info(self.repository, revision=self.revision)
        except Exception as error:
            return None if getattr(error, "response", None) is not None else error
        return None

    def size(self) -> int:
        """Bytes of the files that hold rows of this configuration, as the hub tells.

        Raises:
            UsageError, BartError: as `load`.
        """
        try:
            files = self._files(self.revision)
        except Exception as error:  # of the library, its HTTP client and the system
            raise refusal(error, self.repository, "data set") from error
        return sum(f.size or 0 for f in files)

    def _files(self, revision: str | None) -> list[Any]:
        """The files with rows of this configuration; of all where no folder has its name."""
        import huggingface_hub

        info: Any = huggingface_hub.HfApi().dataset_info(
            self.repository, revision=revision, files_metadata=True
        )
        files = [f for f in info.siblings if f.rfilename.endswith(SIZED)]
        return [f for f in files if f.rfilename.split("/")[0] == self.configuration] or files

    def _partial(self, split: str, revision: str | None) -> str:
        """Folder and size of a conversion that the hub cut off (at 5 GB); empty when there is none.

        A hub that does not answer is left to `load`, which may have the rows in its cache.
        """
        try:
            files = self._files(revision)
        except Exception:  # of the HTTP library, which is httpx or requests
            return ""
        cut = [f for f in files if f"partial-{split}" in f.rfilename.split("/")]
        size = sum(f.size or 0 for f in cut)
        amount = f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e3:,.1f} kB"
        return f"{cut[0].rfilename.rpartition('/')[0]}, {amount}" if cut else ""

    def _complete_copy(self) -> str:
        known = CONVERTED.get(self.repository.rpartition("/")[2].lower())
        if known and known != self.repository:
            return known
        return "a repository with .parquet files named train-*"
