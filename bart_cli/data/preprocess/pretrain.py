"""Corpora to balanced shards, on Dask `distributed`: the same code on a laptop and on a cluster.

Plan blocks of the text, turn each into samples (one task a block, its result a file), then deal
the samples of all blocks to shards whose sizes differ by at most one. Everything is written under a
temporary name and renamed; an interrupted run resumes with the completed blocks.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bart_cli.config.data import require_language
from bart_cli.data.documents import (
    Block,
    Form,
    find_form,
    group_blocks,
    plan_blocks,
    require_ids,
    scan_corpus,
)
from bart_cli.data.preprocess.blocks import (
    SPLITS,
    BlockReport,
    BlockTask,
    MergeTask,
    merge_shard,
    process_block,
)
from bart_cli.data.preprocess.duplicates import hash_block, mark_duplicates
from bart_cli.data.sentences import AUTO
from bart_cli.data.shards import write_counts
from bart_cli.errors import START_ANEW, BartError, UsageError
from bart_cli.figures import draw_lengths
from bart_cli.files import remove_leftovers, write_text
from bart_cli.progress import Reporter
from bart_cli.runtime.interrupts import withheld
from bart_cli.runtime.locks import exclusive
from bart_cli.tokenizer import Tokenizer

if TYPE_CHECKING:
    from distributed import Client

SCHEDULER_SECONDS = 20  # for a Dask scheduler to answer


LARGEST_WEIGHT = 100


@dataclass(frozen=True)
class PreprocessSettings:
    """What the shards depend on: with equal settings and inputs they are equal byte for byte."""

    inputs: tuple[tuple[str, Path, Form], ...]  # name, path, form
    target_lengths: tuple[int, ...] = (128,)
    shards: int = 16
    validation_share: float = 0.01
    cross_documents: bool = False
    deduplicate: bool = False
    language: str = AUTO  # of sentence splitting
    weights: tuple[float, ...] = ()  # of the inputs, in their order; none: 1 each

    def __post_init__(self) -> None:
        if not self.inputs:
            raise UsageError("no input: pass --input NAME=PATH or --text PATH")
        for length in self.target_lengths:
            if not 8 <= length <= 2**15:
                raise UsageError(f"--target-length {length}: expected 8 to {2**15}")
        if self.shards < 1:
            raise UsageError(f"--shards {self.shards}: expected at least 1")
        if not 0 <= self.validation_share < 1:
            raise UsageError(
                f"--validation-share {self.validation_share}: expected at least 0 and below 1"
            )
        require_language(self.language)
        for weight in self.weights:
            if not 0 < weight <= LARGEST_WEIGHT:
                raise UsageError(f"weight {weight} of an input: above 0, up to {LARGEST_WEIGHT}")


@dataclass(frozen=True)
class CorpusReport:
    """What an input adds to an epoch, copies counted. share: of the tokens, from 0 to 1."""

    name: str
    weight: float
    documents: int
    tokens: int
    share: float


@dataclass(frozen=True)
class PreprocessReport:
    """The summary of an epoch.

    By '<length>/<split>': samples, mean fill (of 1), smallest and largest shard.
    """

    documents: int
    duplicates: int
    sentences: int
    characters: int
    tokens: int
    tokens_lost: int
    samples: dict[str, int]
    fill: dict[str, float]
    shard_sizes: dict[str, tuple[int, int]]
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

    A worker holds one block of text (4 MiB), its tokens, or one row group of a shard at a time,
    whatever the size of the corpus.

    Args:
        workers: processes on this machine, when there is no `scheduler`.
        scheduler: address of a running Dask scheduler; its workers must see the same paths.

    Raises:
        UsageError: no text, a file that is not UTF-8, settings that do not fit, or an `out` that
            holds the result of other settings.
        BartError: the scheduler does not answer.
    """
    planned = [
        plan_blocks(path, _understand(path, asked, reporter)) for _, path, asked in settings.inputs
    ]
    work = out / ".work"
    if _claim(out, settings, list(chain.from_iterable(planned)), tokenizer, reporter):
        return _read_report(out)
    # Workers may stand elsewhere.
    groups = [
        (corpus, group)
        for corpus, blocks in enumerate(planned)
        for group in group_blocks(replace(b, path=b.path.absolute()) for b in blocks)
    ]
    weights = settings.weights or (1.0,) * len(planned)
    tasks = [
        BlockTask(
            number=number,
            block=group[0],
            more=group[1:],
            work=work.absolute(),
            tokenizer=(out / "tokenizer").absolute(),
            target_lengths=settings.target_lengths,
            validation_share=settings.validation_share,
            cross_documents=settings.cross_documents,
            deduplicate=settings.deduplicate,
            language=settings.language,
            weight=weights[corpus],
        )
        for number, (corpus, group) in enumerate(groups)
    ]
    with _dask(workers, scheduler) as client:
        if settings.deduplicate:
            hashing = [(task.blocks, task.hashes) for task in tasks]
            _run(client, hash_block, hashing, "duplicates", "blocks", reporter)
            mark_duplicates([t.hashes for t in tasks], [t.duplicates for t in tasks])
        reports: list[BlockReport] = _run(client, process_block, tasks, "text", "blocks", reporter)
        if not any(report.documents for report in reports):
            shutil.rmtree(work)
            raise UsageError(
                "no documents in " + ", ".join(str(path) for _, path, _ in settings.inputs),
                hint="Pass lines of an id and text with --input, and text without ids with --text.",
            )
        sizes = {}
        for length in settings.target_lengths:
            for split in SPLITS:
                key = f"{length}/{split}"
                counts = [report.samples[key] for report in reports]
                if sum(counts):
                    files = [task.output(length, split) for task in tasks]
                    sizes[key] = _balance(client, out / key, files, counts, settings, reporter)
    corpora = []
    tokens = sum(report.tokens for report in reports)
    for number, (name, _, _) in enumerate(settings.inputs):
        own = [r for r, (corpus, _) in zip(reports, groups, strict=True) if corpus == number]
        held = sum(report.tokens for report in own)
        count = sum(report.documents for report in own)
        corpora.append(CorpusReport(name, weights[number], count, held, held / max(tokens, 1)))
    report = replace(_summarize(settings, reports, sizes), corpora=tuple(corpora))
    draw_lengths(
        out / "lengths.png",
        [sum(counts) for counts in zip(*(r.document_lengths for r in reports), strict=True)],
        {
            key: [sum(c) for c in zip(*(r.sample_fill[key] for r in reports), strict=True)]
            for key in sizes
        },
    )
    write_text(out / "report.json", json.dumps(asdict(report), indent=2) + "\n")
    shutil.rmtree(work)
    return report


def _understand(path: Path, form: Form, reporter: Reporter) -> Form:
    """How documents are separated, checked or found out; says what is not read."""
    files, others = scan_corpus(path)
    if others:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(others.items())[:8])
        reporter.warn(f"{path}: {len(files):,} text files; not read: {kinds}")
    if form == "lines":
        require_ids(path)
    elif form == "auto":
        form = find_form(path)
        how = "a document a line" if form == "line" else "documents are separated by blank lines"
        reporter.info(f"{path}: {how} (--documents line or blank-line overrides this)")
    return form


def _claim(
    out: Path,
    settings: PreprocessSettings,
    blocks: Sequence[Block],
    tokenizer: Tokenizer,
    reporter: Reporter,
) -> bool:
    """Bind `out` to these settings and inputs; True when their result is complete already."""
    files = {block.path: block.path.stat() for block in blocks}
    plan = {
        "settings": json.loads(json.dumps(asdict(settings), default=str)),
        "files": {str(path): [stat.st_size, stat.st_mtime_ns] for path, stat in files.items()},
        "vocabulary": tokenizer.fingerprint(),
    }
    path = out / "plan.json"
    # Blocks and shards that are there are taken over, so that a plan has to say what they are.
    shards = (p for p in out.glob("*/*/*.parquet") if p.parent.parent.name.isdecimal())
    found = next(chain(out.glob("report.json"), (out / ".work").rglob("*.*"), shards), None)
    if found is not None:
        if not path.is_file():
            raise UsageError(
                f"{out} holds {found.relative_to(out)}, but no plan.json that records its text "
                "and settings",
                hint=START_ANEW,
            )
        if _read_json(path) != plan:
            raise UsageError(
                f"{out} contains the result of other settings or other text", hint=START_ANEW
            )
        if (out / "report.json").is_file():
            reporter.info(f"{out} is already complete: nothing to do")
            shutil.rmtree(out / ".work", ignore_errors=True)  # of a run killed at its very end
            return True
        reporter.info(f"resuming from the files in {out}")
        remove_leftovers(out)
    tokenizer.save(out / "tokenizer")
    write_text(path, json.dumps(plan, indent=2) + "\n")
    return False


def _balance(
    client: Client,
    folder: Path,
    files: list[Path],
    counts: list[int],
    settings: PreprocessSettings,
    reporter: Reporter,
) -> list[int]:
    """Deal the samples of all blocks, in order, to shards; their sizes."""
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
    sizes: list[int] = _run(client, merge_shard, plans, label, "shards", reporter)
    write_counts(folder, {p.path.name: size for p, size in zip(plans, sizes, strict=True)})
    return sizes


def _summarize(
    settings: PreprocessSettings, reports: list[BlockReport], sizes: dict[str, list[int]]
) -> PreprocessReport:
    def add(name: str) -> int:
        return sum(getattr(report, name) for report in reports)

    samples = {key: sum(counts) for key, counts in sizes.items()}
    packed = {key: sum(report.packed_tokens[key] for report in reports) for key in sizes}
    fill = {key: packed[key] / (samples[key] * (int(key.split("/")[0]) - 2)) for key in sizes}
    tokens = add("tokens")
    lost = {
        length: tokens - sum(packed.get(f"{length}/{split}", 0) for split in SPLITS)
        for length in settings.target_lengths
    }
    return PreprocessReport(
        documents=add("documents"),
        duplicates=add("duplicates"),
        sentences=add("sentences"),
        characters=add("characters"),
        tokens=tokens,
        tokens_lost=sum(lost.values()),
        samples=samples,
        fill=fill,
        shard_sizes={key: (min(counts), max(counts)) for key, counts in sizes.items()},
    )


def _read_report(out: Path) -> PreprocessReport:
    path = out / "report.json"
    content = _read_json(path)
    try:
        sizes = {key: tuple(sizes) for key, sizes in content["shard_sizes"].items()}
        corpora = tuple(CorpusReport(**corpus) for corpus in content.get("corpora", []))
        return PreprocessReport(**content | {"shard_sizes": sizes, "corpora": corpora})
    except (AttributeError, KeyError, TypeError):
        raise UsageError(f"{path} is damaged", hint=START_ANEW) from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UsageError(f"{path} is damaged", hint=START_ANEW) from None


def _run(
    client: Client,
    function: Callable[[Any], Any],
    arguments: Sequence[Any],
    name: str,
    unit: str,
    reporter: Reporter,
) -> list[Any]:
    """Map on the cluster, results in order; the first error of a task ends the run."""
    from concurrent.futures import CancelledError

    from distributed import as_completed
    from distributed.comm.core import CommClosedError

    try:
        futures = client.map(partial(_outcome, function), arguments, pure=False, retries=0)
        with reporter.task(name, total=len(futures), unit=unit) as task:
            for future in as_completed(futures, loop=client.loop):
                error = future.result() if future.status == "finished" else future.exception()
                if isinstance(error, BaseException):
                    client.cancel(futures)
                    raise _in_words(error)
                task.advance()
        results: list[Any] = client.gather(futures)
    except (CancelledError, CommClosedError) as error:
        raise _in_words(error) from None
    return results


def _in_words(error: BaseException) -> BaseException:
    """What happened to the cluster, as an error that a user can act on; others as they are."""
    from concurrent.futures import CancelledError

    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return BartError(
            "worker processes were killed repeatedly (out of memory?)",
            hint="Rerun the command to resume; fewer --workers use less memory.",
        )
    if isinstance(error, CancelledError | CommClosedError):
        return BartError("the Dask scheduler was lost", hint="Rerun the command to resume.")
    return error


def _outcome(function: Callable[[Any], Any], argument: Any) -> Any:
    """The result, or the error that a user should read: raised, Dask would log its traceback."""
    try:
        return function(argument)
    except BartError as error:
        return error


@contextmanager
def _dask(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A client of a running cluster, or of worker processes of our own while the block runs."""
    import dask
    from distributed import Client, LocalCluster
    from distributed.comm.addressing import parse_address
    from distributed.comm.registry import get_backend

    # Dask tells of every worker that leaves; errors reach the user through the futures.
    for name in ("distributed", "distributed.client"):  # which has a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if scheduler is not None:
        try:
            # First, for a client of an unknown kind of address takes most of a minute to go away.
            get_backend(parse_address(scheduler)[0])
            client = Client(scheduler, timeout=SCHEDULER_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise BartError(
                f"the Dask scheduler at {scheduler} does not answer: {error}",
                hint="Start one with `dask scheduler`, and workers with `dask worker ADDRESS`.",
            ) from None
        with client:
            yield client
        return
    # `env` of the cluster would come after the worker has configured its log.
    spawned = "distributed.nanny.pre-spawn-environ"
    settings = {
        "logging.distributed": "critical",
        f"{spawned}.DASK_LOGGING__DISTRIBUTED": "critical",
        f"{spawned}.TOKENIZERS_PARALLELISM": "false",
    }
    with dask.config.set(settings), _same_environment() as restore:
        with withheld():  # the threads that start here also start workers, now and later
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                host="127.0.0.1",
            )
        with cluster, Client(cluster, set_as_default=False) as client:
            restore()
            yield client


@contextmanager
def _same_environment() -> Iterator[Callable[[], None]]:
    """Yield a function that restores the environment variables; the end of the block calls it too.

    Before each worker starts, Dask's nanny writes variables meant for it (OMP_NUM_THREADS=1,
    PYTHONHASHSEED) into the environment of *this* process. A torch that is loaded afterwards, here
    or in a child, would compute on one core.
    """
    before = dict(os.environ)

    def restore() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)

    try:
        yield restore
    finally:
        restore()
