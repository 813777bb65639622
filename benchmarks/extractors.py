"""Measure the quality and speed of the article extractors on pages with known text.

    python benchmarks/extractors.py FOLDER

FOLDER has `ground-truth.json` (id -> {"url", "articleBody"}) and `<id>.html.gz`, the layout of
scrapinghub's article-extraction-benchmark. Precision, recall and F1 compare 4-grams of words,
averaged over the pages as in that benchmark; speed is pages per second of CPU time on one core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import statistics
import time
from collections import Counter
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from measure import run, spread

from bart_cli.data.download.extractors import Page, load_extractor

REPEATS = 3
EXTRACTORS = tuple(
    name
    for name in ("trafilatura", "resiliparse", "news-please")
    if name != "news-please" or find_spec("newsplease")
)


def ngrams(text: str, n: int = 4) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    truth = json.loads((folder / "ground-truth.json").read_text(encoding="utf-8"))
    pages = {
        name: Page(row["url"], gzip.decompress((folder / f"{name}.html.gz").read_bytes()))
        for name, row in truth.items()
    }
    first = next(iter(pages.values()))
    print("| extractor | half | precision | recall | F1 | lost | pages/s (min - max) | failures |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for extractor in EXTRACTORS:
        extract = load_extractor(extractor)
        extract(first)  # imports are not counted
        speeds, texts, failures = [], {}, 0
        for _ in range(REPEATS):
            failures = 0
            begin = time.process_time()
            for name, page in pages.items():
                try:
                    texts[name] = extract(page)
                except Exception:  # like the downloader: count it and continue
                    texts[name] = ""
                    failures += 1
            speeds.append(len(pages) / (time.process_time() - begin))
        for half in (0, 1):  # by the hash of the id: 0 was used for tuning, 1 was not
            chosen = [n for n in truth if sha256(n.encode()).digest()[-1] % 2 == half]
            precisions, recalls = [], []
            for name in chosen:
                found, true = ngrams(texts[name]), ngrams(truth[name]["articleBody"])
                common = sum((found & true).values())
                if texts[name]:
                    precisions.append(common / sum(found.values()))
                recalls.append(common / sum(true.values()))
            precision, recall = statistics.mean(precisions), statistics.mean(recalls)
            f1 = 2 * precision * recall / (precision + recall)
            lost = sum(value < 0.1 for value in recalls)
            print(
                f"| {extractor} | {half} | {precision:.3f} | {recall:.3f} | {f1:.3f} | {lost} | "
                f"{spread(speeds, '.0f')} | {failures} |",
                flush=True,
            )


if __name__ == "__main__":
    run(main)
