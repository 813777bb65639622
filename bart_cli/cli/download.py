"""`bart download`: download corpora and data sets, with one sub-command per source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bart_cli.cli.console import ConsoleReporter, print_json, say
from bart_cli.cli.options import JsonOption, OutOption, option, option_groups
from bart_cli.config.data import LANGUAGES
from bart_cli.errors import BartError, UsageError
from bart_cli.extras import require

if TYPE_CHECKING:
    from bart_cli.data.download.source import DownloadReport, Source
    from bart_cli.data.hub_pairs import HubDataset
    from bart_cli.progress import Reporter

app = typer.Typer(no_args_is_help=True, help="Download corpora.")

JobsOption = Annotated[
    int,
    option(
        "Number of parallel downloads, and of processes that extract text.",
        "--jobs",
        "--processes",
        min=1,
        max=256,
    ),
]


def day(text: str) -> Any:
    return option(text, formats=["%Y-%m-%d"])


RevisionOption = Annotated[str | None, option("Branch, tag or commit of the data set.")]
ParallelOption = Annotated[bool, option("Also write .source and .target files.", "--parallel-text")]


@dataclass(frozen=True)
class ResultOptions:
    """What to print, and whether to download."""

    dry_run: Annotated[bool, option("Print the download size and stop.", "--dry-run")] = False
    as_json: JsonOption = False


@dataclass(frozen=True)
class HubOptions:
    """The data set on the hub."""

    dataset: Annotated[str | None, option("Hub data set to use instead: owner/name.")] = None
    revision: RevisionOption = None

    def source(self, dataset: str, config: str | None) -> HubDataset:
        """Return the data set given by the options; default: `dataset`."""
        from bart_cli.data.hub_pairs import HubDataset

        return HubDataset(self.dataset or dataset, config, self.revision)


@app.command("common-crawl")
@option_groups
def common_crawl(
    start: Annotated[datetime, day("First publication day of the articles.")],
    end: Annotated[
        datetime | None,
        day("Last publication day. Default: today, or the day of the first run with this --out."),
    ] = None,
    out_folder: OutOption = Path("data/common-crawl"),
    warc_start: Annotated[datetime | None, day("First day of the crawl. Default: --start.")] = None,
    warc_end: Annotated[datetime | None, day("Last day of the crawl. Default: --end.")] = None,
    strict_date: Annotated[
        bool, option("Skip articles whose date is unknown or uncertain.")
    ] = True,
    languages: Annotated[
        list[str] | None,
        option(
            "Language to keep (ISO 639-1 code), or 'all'; repeatable. Default: en.", "--language"
        ),
    ] = None,
    hosts: Annotated[
        list[str] | None, option("Keep only this host and its subdomains; repeatable.", "--host")
    ] = None,
    extractor: Annotated[
        Literal["trafilatura", "resiliparse", "news-please"],
        option("trafilatura (most accurate) or resiliparse (fastest)."),
    ] = "trafilatura",
    jobs: JobsOption = 2,
    keep_warc: Annotated[
        bool, option("Keep the WARC files (about 1 GB each).", "--keep-warc")
    ] = False,
    with_metadata: Annotated[
        bool, option("Write title, author, date and URL to OUT/metadata/*.jsonl.", "--metadata")
    ] = False,
    patience: Annotated[
        float, option("Maximum minutes to wait per file while the server is busy.", min=0)
    ] = 60,
    base_url: Annotated[
        str, option("URL of the server or a mirror.")
    ] = "https://data.commoncrawl.org",
    result: ResultOptions = ResultOptions(),
) -> None:
    """Download CC-NEWS: news articles from Common Crawl.

    [bold]bart download common-crawl --start 2016-09-01 --end 2016-10-31[/bold]
    """
    require("bart download common-crawl", "data", *(["news"] if extractor == "news-please" else []))
    from bart_cli.data.download.common_crawl import (
        MISSING_WARC,
        CommonCrawl,
        NewsFilter,
        end_of_first_run,
        list_warcs,
    )
    from bart_cli.data.download.http import Fetcher

    last = end.date() if end else end_of_first_run(out_folder) or datetime.now(UTC).date()
    chosen = tuple(languages or ["en"])
    for code in set(chosen) - {"all", *LANGUAGES}:
        raise UsageError(f"--language {code}: expected an ISO 639-1 code such as de, or all")
    news = NewsFilter(
        start=start.date(),
        end=last,
        strict_date=strict_date,
        languages=() if chosen == ("all",) else chosen,
        hosts=tuple(hosts or ()),
    )
    reporter, server = ConsoleReporter(), base_url.rstrip("/")
    fetcher = Fetcher(patience=patience * 60, on_wait=reporter.info)
    crawl = (warc_start or start).date(), warc_end.date() if warc_end else last
    source = CommonCrawl(
        list_warcs(fetcher, server, *crawl, reporter),
        news,
        fetcher,
        base_url=server,
        extractor=extractor,
        jobs=jobs,
        keep_warc=keep_warc,
        with_metadata=with_metadata,
    )
    report = _download(source, out_folder, result, reporter)
    if report and (gaps := report.dropped.get(MISSING_WARC)):
        raise BartError(f"{gaps:,} WARCs are missing", hint="Rerun the command to download them.")


@app.command()
@option_groups
def wikipedia(
    out_folder: OutOption = Path("data/wikipedia"),
    snapshot: Annotated[
        str, option("Date and language of the cleaned dump on the hub.")
    ] = "20231101.en",
    language: Annotated[
        str | None, option("Language of the cleaned dump; overrides the one in --snapshot.")
    ] = None,
    dump: Annotated[
        str | None, option("XML dump to clean instead: path or URL of pages-articles.xml(.bz2).")
    ] = None,
    skip_lists: Annotated[
        bool, option("With --dump: skip disambiguation and list pages.", "--skip-lists")
    ] = False,
    jobs: JobsOption = 2,
    hub: HubOptions = HubOptions(),
    result: ResultOptions = ResultOptions(),
) -> None:
    """Download Wikipedia: the cleaned dump on the hub, or an XML dump to clean here.

    [bold]bart download wikipedia --language de[/bold]

    [bold]bart download wikipedia --dump enwiki-latest-pages-articles.xml.bz2[/bold]
    """
    if dump is None:
        from bart_cli.data.download.hub_corpus import HubCorpus

        if language is not None:
            snapshot = f"{snapshot.partition('.')[0]}.{language}"
        dataset = hub.source("wikimedia/wikipedia", snapshot)
        _download(HubCorpus(dataset, "wikipedia", jobs), out_folder, result)
        return

    require("bart download wikipedia", "data")
    from bart_cli.data.download.http import Fetcher
    from bart_cli.data.download.wikipedia_dump import WikipediaDump

    _download(WikipediaDump(dump, Fetcher(), jobs, skip_lists), out_folder, result)


@app.command()
@option_groups
def openwebtext(
    out_folder: OutOption = Path("data/openwebtext"),
    archives: Annotated[
        Path | None,
        option(
            "Original archives to extract instead: openwebtext.tar.xz, or a folder with it or "
            "its .xz files.",
            exists=True,
        ),
    ] = None,
    jobs: JobsOption = 2,
    hub: HubOptions = HubOptions(),
    result: ResultOptions = ResultOptions(),
) -> None:
    """Download OpenWebText, or extract its original archive.

    [bold]bart download openwebtext[/bold]

    [bold]bart download openwebtext --archives openwebtext/[/bold]
    """
    from bart_cli.data.download.hub_corpus import HubCorpus
    from bart_cli.data.download.openwebtext import OpenWebText

    if archives is not None:
        source: Source = OpenWebText(archives, jobs)
    else:
        source = HubCorpus(hub.source("Skylion007/openwebtext", None), "openwebtext", jobs)
    _download(source, out_folder, result)


@app.command("cnn-dm")
@option_groups
def cnn_dm(
    out_folder: OutOption = Path("data/cnn-dm"),
    stories: Annotated[
        Path | None,
        option(
            "Original .story files to read instead: a folder with them or cnn_stories.tgz.",
            exists=True,
        ),
    ] = None,
    url_lists: Annotated[
        Path | None,
        option("Folder with all_{train,val,test}.txt. Default: the folder of --stories."),
    ] = None,
    parallel_text: ParallelOption = False,
    jobs: JobsOption = 1,
    hub: HubOptions = HubOptions(),
    result: ResultOptions = ResultOptions(),
) -> None:
    """Download CNN-DailyMail: articles with their highlights as summaries.

    [bold]bart download cnn-dm --out data/cnn-dm[/bold]
    """
    from bart_cli.data.download.summaries import HubPairs, Pairs, read_stories

    if stories is not None:
        read = partial(read_stories, stories, url_lists or stories)
        source: Source = Pairs("cnn-dm", str(stories), read, parallel_text)
    else:
        dataset = hub.source("abisee/cnn_dailymail", "3.0.0")
        source = HubPairs("cnn-dm", dataset, parallel_text, jobs)
    _download(source, out_folder, result)


@app.command()
@option_groups
def xsum(
    out_folder: OutOption = Path("data/xsum"),
    files: Annotated[
        Path | None,
        option(
            "Original .summary or .data files to read instead: a folder or .tar.gz with them.",
            exists=True,
        ),
    ] = None,
    split_file: Annotated[
        Path | None, option("JSON file with the splits. Default: the one in --files.", exists=True)
    ] = None,
    parallel_text: ParallelOption = False,
    jobs: JobsOption = 1,
    hub: HubOptions = HubOptions(),
    result: ResultOptions = ResultOptions(),
) -> None:
    """Download XSum: BBC articles with one-sentence summaries.

    [bold]bart download xsum --out data/xsum[/bold]
    """
    from bart_cli.data.download.summaries import HubPairs, Pairs, read_xsum_files

    if files is not None:
        read = partial(read_xsum_files, files, split_file)
        source: Source = Pairs("xsum", str(files), read, parallel_text)
    else:
        dataset = hub.source("EdinburghNLP/xsum", None)
        source = HubPairs("xsum", dataset, parallel_text, jobs)
    _download(source, out_folder, result)


@app.command()
def sample(
    out_folder: OutOption = Path("data/sample"),
    seed: Annotated[int, option("Seed for the text.", min=0)] = 0,
    megabytes: Annotated[
        float, option("Size of the pre-training corpus in MB.", min=0.001, max=100_000)
    ] = 20.0,
    train: Annotated[int, option("Number of training pairs.", min=1)] = 5000,
    validation: Annotated[int, option("Number of validation pairs.", min=1)] = 500,
    test: Annotated[int, option("Number of test pairs.", min=1)] = 500,
    as_json: JsonOption = False,
) -> None:
    """Generate the built-in sample, offline; the same seed gives the same text.

    Writes news from an invented world: a pre-training corpus to OUT/pretrain and article-summary
    pairs to OUT/summarization.

    [bold]bart download sample --out data/sample[/bold]
    """
    from bart_cli.data.download.sample import write_sample

    report = write_sample(
        out_folder,
        seed=seed,
        megabytes=megabytes,
        train=train,
        validation=validation,
        test=test,
        reporter=ConsoleReporter(),
    )
    if as_json:
        print_json(asdict(report))
        return
    pairs = ", ".join(f"{count:,} {split}" for split, count in report.pairs.items())
    say(
        f"{report.documents:,} documents ({report.bytes / 1e6:.1f} MB) in {out_folder}/pretrain; "
        f"pairs in {out_folder}/summarization: {pairs}"
    )


@app.command("hub")
@option_groups
def hub_corpus(
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="Data set on the hub.")],
    out_folder: OutOption,
    text_column: Annotated[str, option("Column with the text of documents.")] = "text",
    subset: Annotated[
        str | None, option("Configuration of the data set, such as sample-10BT.")
    ] = None,
    split: Annotated[str, option("Split to read.")] = "train",
    limit: Annotated[int | None, option("Maximum rows to read.", min=1)] = None,
    revision: RevisionOption = None,
    result: ResultOptions = ResultOptions(),
) -> None:
    """Stream any text corpus on the hub, such as C4 or FineWeb.

    Files are processed as they arrive and are not cached. Rerun an interrupted command to resume at
    the first incomplete file.

    [bold]bart download hub HuggingFaceFW/fineweb --subset sample-10BT --out data/fineweb[/bold]
    """
    from bart_cli.data.download.hub_corpus import HubStream
    from bart_cli.data.hub_pairs import HubDataset

    source = HubStream(HubDataset(repository, subset, revision), split, text_column, limit)
    _download(source, out_folder, result, command="hub")


def _download(
    source: Source,
    folder: Path,
    options: ResultOptions,
    reporter: Reporter | None = None,
    command: str = "",  # default: the name of the corpus
) -> DownloadReport | None:
    """Download a source and print the report, or print its size (None)."""
    if options.dry_run:
        what, size = source.size()
        if options.as_json:
            print_json({"what": what, "bytes": size})
        else:
            amount = f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
            say(f"{what}: {amount if size else 'nothing'} to download")
        return None
    from bart_cli.data.download.source import download

    require(f"bart download {command or source.corpus}", *source.extras)
    report = download(source, folder, reporter=reporter or ConsoleReporter())
    if options.as_json:
        print_json(asdict(report))
    else:
        say(
            f"{report.documents:,} {source.items} ({report.bytes / 1e6:,.1f} MB) in "
            f"{report.files:,} files in {report.folder}"
        )
        if report.dropped:
            dropped = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items())
            say(f"skipped: {dropped}")
    return report
