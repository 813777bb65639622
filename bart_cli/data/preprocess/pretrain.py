"""Convert corpora to balanced shards with Dask `distributed`, on a laptop or a cluster.

The text is divided into blocks. Each task converts a block to samples and writes them to a file.
The samples of all blocks are then distributed to shards whose sizes differ by at most one. All
files are written atomically; an interrupted run resumes after the completed tasks.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from bart_cli.data import documents
from bart_cli.data.preprocess.blocks import (
    SPLITS,
    BlockReport,
    BlockTask,
    MergeTask,
    hash_block,
    mark_duplicates,
    merge_shard,
    process_block,
)
from bart_cli.data.preprocess.blocks import PreprocessSettings as PreprocessSettings
from bart_cli.data.preprocess.cluster import cluster, run_tasks
from bart_cli.data.shards import write_counts
from bart_cli.errors import START_ANEW, UsageError
from bart_cli.figures import draw_lengths
from bart_cli.files import Record, bind, read_object, remove_leftovers, write_text
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import exclusive
from bart_cli.tokenizer import Tokenizer

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class CorpusReport:
    """The contribution of an input to an epoch, counting copies."""

    name: str
    weight: float
    documents: int
    tokens: int
    share: float  # of all tokens, from 0 to 1


@dataclass(frozen=True)
class PreprocessReport:
    """Statistics of an epoch. The keys of the dictionaries are '<length>/<split>'."""

    documents: int
    duplicates: int
    sentences: int
    characters: int
    tokens: int
    tokens_lost: int
    samples: dict[str, int]
    fill: dict[str, float]  # mean of the samples, from 0 to 1
    shard_sizes: dict[str, tuple[int, int]]  # samples in the smallest and the largest shard
    corpora: tuple[CorpusReport, ...] = ()


@exclusive
def preprocess_pretrain(
    settings: PreprocessSettings,
    out: Path,
    tokenizer: Tokenizer,
    *,
    workers: int = 2,
    scheduler: str | None = None,
    reporter: Reporter,
) -> PreprocessReport:
    """Write OUT/<length>/<split>/shard-*.parquet, OUT/tokenizer, OUT/lengths.png, OUT/report.json.

    Whatever the size of the corpus, a worker holds one block of text (4 MiB) and its tokens, or one
    row group of a shard, at a time.

    Args:
        workers: number of processes on this machine; ignored if `scheduler` is given.
        scheduler: address of a running Dask scheduler, whose workers must see the same paths.

    Raises:
        UsageError: there is no text, a file is not UTF-8, or `out` contains the result of other
            settings.
        BartError: the scheduler does not respond.
    """
    planned = [
        documents.plan_blocks(path, _resolve_form(path, form, reporter))
        for _, path, form in settings.inputs
    ]
    work = out / ".work"
    if _claim(out, settings, list(chain.from_iterable(planned)), tokenizer, reporter):
        return _read_report(out)
    # Workers may run in another working directory.
    groups = [
        (corpus, group)
        for corpus, blocks in enumerate(planned)
        for group in documents.group_blocks(replace(b, path=b.path.absolute()) for b in blocks)
    ]
    weights, words = settings.weights or (1.0,) * len(planned), (out / "tokenizer").absolute()
    tasks = [
        BlockTask(number, group, work.absolute(), words, settings, weights[corpus])
        for number, (corpus, group) in enumerate(groups)
    ]
    with cluster(workers, scheduler) as client:
        if settings.deduplicate:
            run_tasks(client, hash_block, tasks, "duplicates", "blocks", reporter)
            mark_duplicates(tasks)
        reports: list[BlockReport] = run_tasks(
            client, process_block, tasks, "text", "blocks", reporter
        )
        if not any(report.documents for report in reports):
            shutil.rmtree(work)
            raise UsageError(
                "no documents in " + ", ".join(str(path) for _, path, _ in settings.inputs),
                hint="Pass lines with an id and text to --input, and text without ids to --text.",
            )
        sizes = {}
        for length in settings.target_lengths:
            for split in SPLITS:
                key = f"{length}/{split}"
                counts = [report.samples[key] for report in reports]
                if sum(counts):
                    files = [task.file(f"{length}-{split}", "parquet") for task in tasks]
                    sizes[key] = _balance(client, out / key, files, counts, settings, reporter)
    by_input = [
        [r for r, (corpus, _) in zip(reports, groups, strict=True) if corpus == number]
        for number in range(len(planned))
    ]
    report = _summarize(settings, weights, reports, by_input, sizes)
    lengths = np.sum([r.document_lengths for r in reports], axis=0).tolist()
    fills = {key: np.sum([r.sample_fill[key] for r in reports], axis=0).tolist() for key in sizes}
    draw_lengths(out / "lengths.png", lengths, fills)
    write_text(out / "report.json", json.dumps(asdict(report), indent=2) + "\n")
    shutil.rmtree(work)
    return report


def _resolve_form(path: Path, form: documents.Form, reporter: Reporter) -> documents.Form:
    """Check or detect how documents are separated, and warn about skipped files."""
    files, others = documents.scan_corpus(path)
    if others:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(others.items())[:8])
        reporter.warn(f"{path}: {len(files):,} text files; skipped: {kinds}")
    if form == "lines":
        documents.require_ids(path)
    elif form == "auto":
        form = documents.find_form(path)
        how = f"{documents.FORMS[form]} (--documents line or blank-line overrides this)"
        reporter.info(f"{path}: {how}")
    return form


def _claim(
    out: Path,
    settings: PreprocessSettings,
    blocks: Sequence[documents.Block],
    tokenizer: Tokenizer,
    reporter: Reporter,
) -> bool:
    """Bind `out` to these settings and inputs; return True if the result is already complete."""
    files = {block.path: block.path.stat() for block in blocks}
    plan = {
        "settings": json.loads(json.dumps(asdict(settings), default=str)),
        "files": {str(path): [stat.st_size, stat.st_mtime_ns] for path, stat in files.items()},
        "vocabulary": tokenizer.fingerprint(),
    }
    path = out / "plan.json"
    # Existing blocks and shards are reused, which is safe only if a plan records their origin.
    shards = (p for p in out.glob("*/*/*.parquet") if p.parent.parent.name.isdecimal())
    found = next(chain(out.glob("report.json"), (out / ".work").rglob("*.*"), shards), None)
    if found is not None:
        if not path.is_file():
            raise UsageError(
                f"{out} contains {found.relative_to(out)}, but no plan.json that records its text "
                "and settings",
                hint=START_ANEW,
            )
        bind(out, "shards", _record(read_object(path), path), _record(plan, path))
        if (out / "report.json").is_file():
            reporter.info(f"{out} is already complete: nothing to do")
            shutil.rmtree(out / ".work", ignore_errors=True)  # left by a run killed at its end
            return True
        reporter.info(f"resuming from the files in {out}")
        remove_leftovers(out)
    tokenizer.save(out / "tokenizer")
    write_text(path, json.dumps(plan, indent=2) + "\n")
    return False


def _record(plan: dict[str, Any], path: Path) -> Record:
    """Convert the content of plan.json."""
    try:
        return Record(plan["settings"], plan["files"] | {"tokenizer": plan["vocabulary"]})
    except (KeyError, TypeError):
        raise UsageError(f"{path} is damaged", hint=START_ANEW) from None


def _balance(
    client: Client,
    folder: Path,
    files: list[Path],
    counts: list[int],
    settings: PreprocessSettings,
    reporter: Reporter,
) -> list[int]:
    """Distribute the samples of all blocks, in order, to shards; return the shard sizes."""
    total = sum(counts)
    shards = min(settings.shards, total)
    borders = [total * i // shards for i in range(shards + 1)]
    starts = [end - count for end, count in zip(accumulate(counts), counts, strict=True)]
    plans = []
    for number, (begin, end) in enumerate(pairwise(borders)):
        sources = tuple(
            (file, max(begin - start, 0), min(end - start, count))
            for file, start, count in zip(files, starts, counts, strict=True)
            if start < end and start + count > begin
        )
        plans.append(
            MergeTask(
                sources=sources,
                path=(folder / f"shard-{number}.parquet").absolute(),
                tokenizer=(folder.parents[1] / "tokenizer").absolute(),
                split_one=number == 0 and total % shards == 0,
            )
        )
    label = f"shards {folder.parent.name}/{folder.name}"
    sizes: list[int] = run_tasks(client, merge_shard, plans, label, "shards", reporter)
    write_counts(folder, {p.path.name: size for p, size in zip(plans, sizes, strict=True)})
    return sizes


def _summarize(
    settings: PreprocessSettings,
    weights: Sequence[float],
    reports: list[BlockReport],
    by_input: list[list[BlockReport]],
    sizes: dict[str, list[int]],
) -> PreprocessReport:
    def add(name: str, some: list[BlockReport] = reports) -> int:
        return sum(getattr(report, name) for report in some)

    samples = {key: sum(counts) for key, counts in sizes.items()}
    packed = {key: sum(report.packed_tokens[key] for report in reports) for key in sizes}
    fill = {key: packed[key] / (samples[key] * (int(key.split("/")[0]) - 2)) for key in sizes}
    tokens = add("tokens")
    corpora = []
    for (name, _, _), weight, own in zip(settings.inputs, weights, by_input, strict=True):
        held = add("tokens", own)
        corpora.append(
            CorpusReport(name, weight, add("documents", own), held, held / max(tokens, 1))
        )
    return PreprocessReport(
        documents=add("documents"),
        duplicates=add("duplicates"),
        sentences=add("sentences"),
        characters=add("characters"),
        tokens=tokens,
        tokens_lost=tokens * len({*settings.target_lengths}) - sum(packed.values()),
        samples=samples,
        fill=fill,
        shard_sizes={key: (min(counts), max(counts)) for key, counts in sizes.items()},
        corpora=tuple(corpora),
    )


def _read_report(out: Path) -> PreprocessReport:
    path = out / "report.json"
    try:
        return TypeAdapter(PreprocessReport).validate_python(read_object(path))
    except ValidationError:
        raise UsageError(f"{path} is damaged", hint=START_ANEW) from None
