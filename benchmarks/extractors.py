"""Quality and speed of the article extractors on pages whose true text is known.

    python benchmarks/extractors.py FOLDER

FOLDER holds `ground-truth.json` (id -> {"url", "articleBody"}) and `<id>.html.gz`: the layout of
scrapinghub's article-extraction-benchmark. Precision, recall and F1 are over 4-grams of words,
averaged over the pages as in that benchmark; speed is pages per second of CPU time on one core.
"""

from __future__ import annotations

import gzip
import json
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from bart_cli.data.download.extractors import Page, load_extractor

REPEATS = 3
EXTRACTORS = ("trafilatura", "resiliparse", "news-please")


def ngrams(text: str, n: int = 4) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1)))


def main() -> None:
    folder = Path(sys.argv[1])
    truth = json.loads((folder / "ground-truth.json").read_text(encoding="utf-8"))
    pages = {
        name: Page(row["url"], gzip.decompress((folder / f"{name}.html.gz").read_bytes()))
        for name, row in truth.items()
    }
    first = next(iter(pages.values()))
    print("| extractor | precision | recall | F1 | pages/s (median, min - max) | failures |")
    print("|---|---:|---:|---:|---:|---:|")
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
                except Exception:  # what the downloader does as well: count it, go on
                    texts[name] = ""
                    failures += 1
            speeds.append(len(pages) / (time.process_time() - begin))
        precision = recall = 0.0
        for name, row in truth.items():
            found, true = ngrams(texts[name]), ngrams(row["articleBody"])
            common = sum((found & true).values())
            precision += common / sum(found.values()) / len(truth) if texts[name] else 0.0
            recall += common / sum(true.values()) / len(truth)
        f1 = 2 * precision * recall / (precision + recall)
        print(
            f"| {extractor} | {precision:.3f} | {recall:.3f} | {f1:.3f} | "
            f"{statistics.median(speeds):.0f} ({min(speeds):.0f} - {max(speeds):.0f}) | "
            f"{failures} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
