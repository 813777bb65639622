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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from bart_cli.data.download.source import Opened, Part, Source, clean, damage
from bart_cli.data.fields import SOURCE_FIELDS, TARGET_FIELDS
from bart_cli.data.hub_pairs import HubDataset
from bart_cli.data.manifest import Manifest
from bart_cli.data.pairs import Pair
from bart_cli.errors import UsageError
from bart_cli.files import atomic_file, refuse_device
from bart_cli.progress import Reporter

SPLITS = ("train", "validation", "test")
URL_LISTS = {"train": "all_train.txt", "validation": "all_val.txt", "test": "all_test.txt"}
ARCHIVES = (".tgz", ".txz", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz")
ENDS = (".", "!", "?", "'", "`", '"', "\u2019", "\u201d", ")")
PACKED_HINT = "Pass a folder or {}; unpack a .zip first."
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

Read = Callable[[str], Iterator[Pair]]  # the pairs of a split


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
                    f"{archive} is damaged: {damage(error)}", hint="Download it again."
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


@dataclass
class Pairs(Source):
    """A data set of pairs, in {train,validation,test}.jsonl."""

    corpus: str
    origin: str  # of the pairs, as recorded in the manifest
    # Opens the origin (in OUT, which may hold temporary files) and returns a function that reads a
    # split, and counts the pairs that it skips by reason.
    reader: Callable[[Path, Counter[str]], Read]
    parallel: bool = False  # also write .source and .target files
    unit = "splits"
    items = "pairs"

    def settings(self) -> dict[str, Any]:
        return {"url": self.origin, "parallel": self.parallel}

    @contextmanager
    def open(self, manifest: Manifest, reporter: Reporter) -> Opened:
        self.skipped: Counter[str] = Counter()
        read = self.reader(manifest.folder, self.skipped)

        def write(split: str, path: Path) -> dict[str, Any]:
            pairs = list(read(split))
            if not pairs:
                reasons = "".join(f", {n:,} {reason}" for reason, n in self.skipped.items())
                raise UsageError(f"{self.origin} has no pair for the {split} split{reasons}")
            write_pairs(path, pairs, parallel=self.parallel)
            return {"documents": len(pairs)}

        def part(split: str) -> Part:
            also = (f"{split}.target", f"{split}.source") if self.parallel else ()
            return Part(f"{split}.jsonl", self.origin, partial(write, split), also=also)

        yield len(SPLITS), map(part, SPLITS)

    def dropped(self, manifest: Manifest, failed: int) -> dict[str, int]:
        return self.skipped


class HubPairs(Pairs):
    """The three splits of a data set on the hub.

    Raises UsageError if there is no such data set or a column is missing; BartError if the hub
    cannot be reached.
    """

    extras = ("data",)

    def __init__(
        self, corpus: str, dataset: HubDataset, parallel: bool = False, jobs: int = 1
    ) -> None:
        self._dataset, self._jobs = dataset, jobs
        super().__init__(corpus, dataset.url(), lambda *_: self._read, parallel)

    def size(self) -> tuple[str, int]:
        return self.origin, self._dataset.size()

    def _read(self, split: str) -> Iterator[Pair]:
        rows = self._dataset.load(split, self._jobs)
        fields = [
            next((field for field in names if field in rows.column_names), None)
            for names in (SOURCE_FIELDS, TARGET_FIELDS)
        ]
        if None in fields:
            raise UsageError(
                f"{self.origin}: no article and summary columns among {rows.column_names}"
            )
        for number, row in enumerate(rows):
            source, target = (row[f] if isinstance(row[f], str) else "" for f in fields)
            if source.strip() and target.strip():
                yield Pair(str(row.get("id", number)), source, target)
            else:
                self.skipped["pair without summary or text"] += 1


def read_stories(stories: Path, url_lists: Path, out: Path, skipped: Counter[str]) -> Read:
    """Open CNN-DailyMail: `.story` files (named by the SHA-1 of their URL) and URL lists.

    Args:
        stories: folder with the stories or their archives, or one archive.
        url_lists: folder or archive with all_{train,val,test}.txt, or with the wayback_*_urls.txt
            of both newspapers.

    Raises:
        UsageError: there is no story, an archive is damaged, or a URL list is missing.
    """
    files = Originals(stories, (".story",), out)
    if not len(files):
        raise UsageError(f"no .story file in {stories}", hint=PACKED_HINT.format("cnn_stories.tgz"))
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

    def read(split: str) -> Iterator[Pair]:
        names = (hashlib.sha1(url).hexdigest() for url in lists[split])
        contents = ((name, files.read(f"{name}.story")) for name in names)
        return _parsed(contents, read_story, "story", skipped)

    return read


def _parsed(
    contents: Iterable[tuple[str, bytes | None]],
    parse: Callable[[str], tuple[str, str]],
    word: str,
    skipped: Counter[str],
) -> Iterator[Pair]:
    """Parse original files, given by id; count those that are missing or have an empty side."""
    for name, content in contents:
        article, summary = parse((content or b"").decode("utf-8", "replace"))
        if article and summary:
            yield Pair(name, article, summary)
        else:
            missing = content is None
            skipped[f"missing {word}" if missing else f"{word} without summary or text"] += 1


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


def read_xsum_files(files: Path, split_file: Path | None, out: Path, skipped: Counter[str]) -> Read:
    """Open XSum: its extracted files (`<id>.summary` or `<id>.data`) and the split file.

    Args:
        files: folder with the files or their archive, or the archive.
        split_file: JSON object of ids by split; default: XSUM_SPLIT_FILE among or beside the files.

    Raises:
        UsageError: there are no XSum files, an archive is damaged, or the split file is not
            readable.
    """
    found = Originals(files, (".data", ".summary", XSUM_SPLIT_FILE), out)
    if not (found.named(".summary") or found.named(".data")):
        raise UsageError(
            f"no XSum .summary or .data file in {files}",
            hint=PACKED_HINT.format("XSUM-EMNLP18-Summary-Data-Original.tar.gz"),
        )
    folder = files if files.is_dir() else files.parent
    inside = None if split_file else found.read(XSUM_SPLIT_FILE)
    splits = _xsum_splits(split_file or folder / XSUM_SPLIT_FILE, inside)

    def read(split: str) -> Iterator[Pair]:
        names = splits.get(split, [])
        contents = ((name, found.read(f"{name}.summary", f"{name}.data")) for name in names)
        return _parsed(contents, read_xsum, "article", skipped)

    return read


def _xsum_splits(path: Path, inside: bytes | None) -> dict[str, list[str]]:
    """Read the ids of each split from XSum's split file, given its content if it is known."""
    refuse_device(path)
    try:
        content = json.loads(path.read_bytes() if inside is None else inside)
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
    article = "\n".join(line for line in lines if line and line not in XSUM_BUTTONS)
    summary = fields.get("FIRST-SENTENCE", fields.get("INTRODUCTION", ""))
    return article, " ".join(summary.split())


def write_pairs(path: Path, pairs: Sequence[Pair], *, parallel: bool) -> None:
    """Write a split as .jsonl and, if `parallel`, also as .source + .target beside it."""
    rows = (
        {"id": clean(pair.id), "article": clean(pair.source), "summary": clean(pair.target)}
        for pair in pairs
    )
    _write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))
    if parallel:
        for side in ("source", "target"):
            texts = (" ".join(clean(getattr(pair, side)).split()) for pair in pairs)
            _write_lines(path.with_suffix(f".{side}"), texts)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in lines)
