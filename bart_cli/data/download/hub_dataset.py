"""Data sets of the Hugging Face hub (or of the mirror that `HF_ENDPOINT` names) by `datasets`.

The library downloads, resumes and checks; its cache holds the rows as Arrow, so that a second run
begins at once.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bart_cli.errors import BartError, UsageError
from bart_cli.hub import endpoint, refusal

if TYPE_CHECKING:
    from datasets import Dataset

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

    def load(self, split: str, jobs: int = 1, *, bars: bool = False) -> Dataset:
        """The rows of a split.

        Args:
            bars: show the library's own, with bytes and speed, on a terminal.

        Raises:
            UsageError: no such data set, configuration or split.
            BartError: the hub could not be reached, or the data set is of a kind that `datasets`
                cannot read.
        """
        import datasets
        from datasets.exceptions import DatasetNotFoundError

        if bars and sys.stderr.isatty():
            datasets.enable_progress_bars()
        else:
            datasets.disable_progress_bars()
        datasets.logging.set_verbosity_error()
        try:
            return datasets.load_dataset(
                self.repository,
                self.configuration,
                revision=self.revision,
                split=split,
                num_proc=jobs if jobs > 1 else None,
            )
        except DatasetNotFoundError as error:
            raise refusal(error, self.repository, "data set") from error
        except ValueError as error:  # unknown configuration or split: the message lists them
            raise UsageError(f"data set '{self.repository}': {_first_line(error)}") from None
        except RuntimeError as error:
            raise BartError(
                f"data set '{self.repository}': {_first_line(error)}",
                hint="--revision refs/convert/parquet takes the hub's own copy in parquet",
            ) from None
        except Exception as error:  # of the library, its HTTP clients and the system
            raise refusal(error, self.repository, "data set") from error

    def size(self) -> int:
        """Bytes of the files that hold rows of this configuration, as the hub tells.

        Raises:
            UsageError, BartError: as `load`.
        """
        import huggingface_hub

        try:
            info: Any = huggingface_hub.HfApi().dataset_info(
                self.repository, revision=self.revision, files_metadata=True
            )
        except Exception as error:  # of the library, its HTTP client and the system
            raise refusal(error, self.repository, "data set") from error
        files = [f for f in info.siblings if f.rfilename.endswith(SIZED)]
        named = [f for f in files if f.rfilename.split("/")[0] == self.configuration]
        return sum(f.size or 0 for f in named or files)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
