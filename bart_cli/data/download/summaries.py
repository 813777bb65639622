"""Write CNN-DailyMail and XSum as pairs of article and summary, from the hub or the original files.

Out: {train,validation,test}.jsonl with `id`, `article` and `summary` (one sentence per line), and
optionally .source + .target files in the reference format.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

from bart_cli.data.download.writing import DownloadReport, write_pairs
from bart_cli.data.hub_pairs import HubDataset
from bart_cli.data.manifest import Manifest
from bart_cli.data.pair_files import SOURCE_FIELDS, TARGET_FIELDS
from bart_cli.data.pairs import Pair
from bart_cli.errors import UsageError
from bart_cli.files import remove_leftovers
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import exclusive

SPLITS = ("train", "validation", "test")
URL_LISTS = {"train": "all_train.txt", "validation": "all_val.txt", "test": "all_test.txt"}
ARCHIVES = (".tgz", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz")
ENDS = (".", "!", "?", "...", "'", "`", '"', "\u2019", "\u201d", ")")
XSUM_SPLIT_FILE = "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json"
# The authors' `.summary` files contain [SN]; the `.data` files of their downloader, [XSUM].
XSUM_PARTS = re.compile(
    r"\[(?:SN|XSUM)\](URL|TITLE|FIRST-SENTENCE|INTRODUCTION|RESTBODY)\[(?:SN|XSUM)\]"
)
# Labels of buttons on the pages, which the data set on the hub omits, too.
XSUM_BUTTONS = {
    "Share this with", "Email", "Facebook", "Messenger", "Twitter", "Pinterest", "WhatsApp",
    "Linkedin", "LinkedIn", "Copy this link",
    "These are external links and will open in a new window",
}  # fmt: skip


class Originals:
    """Files by name: below a folder, in the tar archives of that folder, or in one archive.

    Archives are unpacked into an unnamed temporary file in `out`.

    Raises:
        UsageError: an archive is damaged.
    """

    def __init__(self, path: Path, suffixes: tuple[str, ...], out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, Path | tuple[int, int]] = {}
        self._unpacked = TemporaryFile(dir=out)  # noqa: SIM115
        paths = [path] if path.is_file() else sorted(path.rglob("*"))
        for archive in (p for p in paths if p.name.endswith(ARCHIVES) and p.is_file()):
            try:
                self._unpack(archive, suffixes)
            except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
                raise UsageError(
                    f"{archive} is damaged: {str(error) or type(error).__name__}",
                    hint="Download it again.",
                ) from None
        self._files |= {p.name: p for p in paths if p.name.endswith(suffixes) and p.is_file()}

    def _unpack(self, archive: Path, suffixes: tuple[str, ...]) -> None:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = Path(member.name).name
                wanted = member.isfile() and name.endswith(suffixes) and not name.startswith("._")
                if wanted and (stream := tar.extractfile(member)):
                    self._files[name] = (self._unpacked.tell(), member.size)
                    shutil.copyfileobj(stream, self._unpacked)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, *names: str) -> bytes | None:
        """Return the content of the first of these files that exists, or None."""
        found = next((self._files[name] for name in names if name in self._files), None)
        if isinstance(found, Path):
            return found.read_bytes()
        if found is None:
            return None
        self._unpacked.seek(found[0])
        return self._unpacked.read(found[1])

    def named(self, ending: str) -> list[str]:
        """Return the file names with this ending, sorted."""
        return sorted(name for name in self._files if name.endswith(ending))


@exclusive
def download_hub_pairs(
    dataset: HubDataset, out: Path, *, name: str, parallel: bool, jobs: int, reporter: Reporter
) -> DownloadReport:
    """Write the three splits of a data set on the hub.

    Args:
        name: name of the corpus in the manifest.
        parallel: also write .source and .target files.
        jobs: number of processes that download and convert files.

    Raises:
        UsageError: there is no such data set, or a column is missing.
        BartError: the hub cannot be reached.
    """
    dropped = {"pair without summary or text": 0}

    def read(split: str) -> Iterator[Pair]:
        rows = dataset.load(split, jobs)
        fields = [
            next((field for field in names if field in rows.column_names), None)
            for names in (SOURCE_FIELDS, TARGET_FIELDS)
        ]
        if None in fields:
            raise UsageError(
                f"{dataset.url()}: no article and summary columns among {rows.column_names}"
            )
        for number, row in enumerate(rows):
            source, target = (row[f] if isinstance(row[f], str) else "" for f in fields)
            if source.strip() and target.strip():
                yield Pair(str(row.get("id", number)), source, target)
            else:
                dropped["pair without summary or text"] += 1

    return _write(read, out, name, dataset.url(), parallel, dropped, reporter)


@exclusive
def pairs_from_stories(
    stories: Path, url_lists: Path, out: Path, *, parallel: bool, reporter: Reporter
) -> DownloadReport:
    """Write CNN-DailyMail from `.story` files (named by the SHA-1 of their URL) and URL lists.

    Args:
        stories: folder with the stories or their archives, or one archive.
        url_lists: folder or archive with all_{train,val,test}.txt, or with the wayback_*_urls.txt
            of both newspapers.
        parallel: also write .source and .target files.

    Raises:
        UsageError: there is no story, an archive is damaged, or a URL list is missing.
    """
    files = Originals(stories, (".story",), out)
    if not len(files):
        raise UsageError(f"no .story file in {stories}", hint="Pass a folder or cnn_stories.tgz.")
    texts = Originals(url_lists if url_lists.is_dir() else url_lists.parent, (".txt",), out)
    lists: dict[str, list[bytes]] = {}
    for split, name in URL_LISTS.items():
        word = {"train": "training"}.get(split, split)
        names = [name] if texts.read(name) is not None else texts.named(f"wayback_{word}_urls.txt")
        if not names:
            raise UsageError(
                f"no URL list {name} in {url_lists}",
                hint=f"Pass --url-lists with the folder of {', '.join(URL_LISTS.values())}.",
            )
        lists[split] = [url for name in names for url in (texts.read(name) or b"").split()]
    dropped = {"missing story": 0, "story without summary or text": 0}

    def read(split: str) -> Iterator[Pair]:
        for url in lists[split]:
            name = hashlib.sha1(url).hexdigest()
            content = files.read(f"{name}.story")
            if content is None:
                dropped["missing story"] += 1
                continue
            article, summary = read_story(content.decode("utf-8", "replace"))
            if article and summary:
                yield Pair(name, article, summary)
            else:
                dropped["story without summary or text"] += 1

    return _write(read, out, "cnn-dm", str(stories), parallel, dropped, reporter)


def read_story(content: str) -> tuple[str, str]:
    """Parse a `.story` file into the article and the summary (one sentence per line).

    Lines after `@highlight` are the summary. Lines without final punctuation get ' .', as in the
    data on which the published models were fine-tuned.
    """
    article: list[str] = []
    highlights: list[str] = []
    target = False
    for line in (" ".join(raw.split()) for raw in content.splitlines()):
        if line.startswith("@highlight"):
            target = True
        elif line:
            whole = line if line.endswith(ENDS) else f"{line} ."
            (highlights if target else article).append(whole)
    return " ".join(article), "\n".join(highlights)


@exclusive
def pairs_from_xsum_files(
    files: Path, split_file: Path | None, out: Path, *, parallel: bool, reporter: Reporter
) -> DownloadReport:
    """Write XSum from its extracted files (`<id>.summary` or `<id>.data`) and the split file.

    Args:
        files: folder with the files or their archive, or the archive.
        split_file: JSON object of ids by split; default: XSUM_SPLIT_FILE in `files`.
        parallel: also write .source and .target files.

    Raises:
        UsageError: there are no XSum files, an archive is damaged, or the split file is not
            readable.
    """
    found = Originals(files, (".data", ".summary"), out)
    if not len(found):
        raise UsageError(f"no XSum .summary or .data file in {files}")
    folder = files if files.is_dir() else files.parent
    splits = _xsum_splits(split_file or folder / XSUM_SPLIT_FILE)
    dropped = {"missing article": 0, "article without summary or text": 0}

    def read(split: str) -> Iterator[Pair]:
        for name in splits.get(split, []):
            content = found.read(f"{name}.summary", f"{name}.data")
            if content is None:
                dropped["missing article"] += 1
                continue
            article, summary = read_xsum(content.decode("utf-8", "replace"))
            if article and summary:
                yield Pair(name, article, summary)
            else:
                dropped["article without summary or text"] += 1

    return _write(read, out, "xsum", str(files), parallel, dropped, reporter)


def _xsum_splits(path: Path) -> dict[str, list[str]]:
    """Read the ids of each split from XSum's split file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise UsageError(
            f"no readable split file {path}",
            hint="Pass the split file distributed with XSum as --split-file.",
        ) from None
    splits = content.values() if isinstance(content, dict) else [None]
    if not all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in splits):
        raise UsageError(f'{path}: expected {{"train": [ids], "validation": [ids], "test": [ids]}}')
    return content


def read_xsum(content: str) -> tuple[str, str]:
    """Parse an XSum file into the article and the summary (its first sentence)."""
    parts = XSUM_PARTS.split(content)
    fields = dict(zip(parts[1::2], parts[2::2], strict=True))
    lines = (" ".join(line.split()) for line in fields.get("RESTBODY", "").splitlines())
    summary = fields.get("FIRST-SENTENCE", fields.get("INTRODUCTION", ""))
    return "\n".join(line for line in lines if line and line not in XSUM_BUTTONS), " ".join(
        summary.split()
    )


def _write(
    read: Callable[[str], Iterator[Pair]],
    out: Path,
    name: str,
    url: str,
    parallel: bool,
    dropped: dict[str, int],
    reporter: Reporter,
) -> DownloadReport:
    manifest = Manifest(out, {"corpus": name, "url": url, "parallel": parallel})
    remove_leftovers(out)
    with reporter.task(name, total=len(SPLITS), unit="splits") as task:
        for split in SPLITS:
            if not manifest.has(f"{split}.jsonl"):
                pairs = list(read(split))
                if not pairs:
                    raise UsageError(f"{url} has no pair for the {split} split")
                *others, jsonl = reversed(write_pairs(out, split, pairs, parallel=parallel))
                for path in others:
                    manifest.add(path.name, url)
                manifest.add(jsonl.name, url, documents=len(pairs))  # last: completes the split
            task.advance(1, f"{manifest.documents:,} pairs")
    return DownloadReport(
        folder=str(out),
        documents=manifest.documents,
        bytes=manifest.bytes,
        files=len(manifest.files),
        dropped={reason: count for reason, count in dropped.items() if count},
    )
