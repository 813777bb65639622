"""Load-test `bart serve`: its speed compared with transformers, and hostile clients.

    pip install fastapi
    python benchmarks/serving.py MODEL [--texts FILE.jsonl] [--clients 1 4 16] [--requests N]
    python benchmarks/serving.py MODEL --hostile 10000 [--workers N] [--kill]

MODEL is a folder in Hugging Face's format, or `random-base`: BART-base with random weights, which
decodes 32 tokens for every text. FILE has articles in the field `article`; without it, texts are
random words. Both servers use the settings in the model's generation_config.json.

Speed: the other server is the simplest FastAPI handler around `model.generate`. Both are loaded and
take turns; each client sends the next text when it has received the previous summary. Prints
requests per second, p50, p95 and p99 of their times, and the ratio of the throughputs (median over
rounds).

Hostile: 16 clients send valid texts (some of 1 MB, some slowly), invalid JSON and oversized bodies,
or disconnect before the response. Every valid text must get the summary of `bart summarize`. Prints
the peak memory of the server's processes. Texts are short and decoding is greedy, so that the
server and not the model takes most of the time. --kill kills a worker every 30 seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from measure import ratios, run, save_random

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.presets import preset_config
from bart_cli.errors import BartError
from bart_cli.model.bart import Bart

BART = [sys.executable, "-m", "bart_cli", "--quiet"]
HEADERS = {"Content-Type": "application/json"}
MEGABYTE = 2**20
BODY_LIMIT = 2 * MEGABYTE
SHORT = ["--beams", 1, "--max-length", 12, "--min-length", 0]  # for the hostile run
WORDS = 60  # of a typical text in it
KINDS = [72, 2, 4, 10, 10, 2]  # percent of valid, 1 MB, slow, leaving, wrong, oversized requests


def simplest_handler(folder: str, port: int) -> None:
    """Serve a model with transformers in the simplest way."""
    import uvicorn
    from fastapi import Body, FastAPI
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    positions = model.config.max_position_embeddings
    app = FastAPI()

    @app.post("/v1/summarize")
    def summarize(text: str = Body(embed=True)) -> dict[str, list[dict[str, str]]]:
        inputs = tokenizer(text, truncation=True, max_length=positions, return_tensors="pt")
        ids = model.generate(inputs.input_ids, attention_mask=inputs.attention_mask)
        return {"results": [{"summary": tokenizer.decode(ids[0], skip_special_tokens=True)}]}

    uvicorn.run(app, port=port, log_level="critical")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[object], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, and wait for its first response."""
    process = subprocess.Popen([*map(str, command)])
    try:
        while True:
            if process.poll() is not None:
                raise BartError("a server has ended")
            with contextlib.suppress(OSError):
                if ask(port, {"text": "Ready?"})[0] == 200:
                    break
            time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait()


def ask(port: int, body: object) -> tuple[int, dict[str, object], dict[str, str]]:
    """Return status, JSON and headers of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", "/v1/summarize", data, HEADERS)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return answer.status, content, dict(answer.headers)


def summary_of(port: int, text: str) -> str:
    """Return the summary; retry while the server is too busy."""
    while True:
        status, content, headers = ask(port, {"text": text})
        if status == 200:
            return content["results"][0]["summary"]  # type: ignore[index]
        assert status in (429, 503), content
        time.sleep(float(headers.get("retry-after", 1)))


# ---- speed --------------------------------------------------------------------------------------


def measure(port: int, texts: Sequence[str], clients: int) -> tuple[float, list[float], list[str]]:
    """Measure requests per second and their times; return them with the summaries in order."""

    def timed(text: str) -> tuple[float, str]:
        began = time.perf_counter()
        summary = summary_of(port, text)
        return time.perf_counter() - began, summary

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(timed, texts))
    rate = len(texts) / (time.perf_counter() - began)
    return rate, [seconds for seconds, _ in found], [summary for _, summary in found]


def compare(model: str, texts: Sequence[str], levels: Sequence[int], rounds: int) -> None:
    ports = free_port(), free_port()
    ours = [*BART, "serve", "--model", model, "--port", ports[0]]
    theirs = [sys.executable, __file__, model, "--handler", ports[1]]
    with running(ours, ports[0]), running(theirs, ports[1]):
        print(f"{'clients':>7}  {'server':<22}{'req/s':>8}{'p50':>8}{'p95':>8}{'p99':>8}  ratio")
        for clients in levels:
            rates: tuple[list[float], list[float]] = [], []
            times: tuple[list[float], list[float]] = [], []
            equal = 0
            for _ in range(rounds):
                summaries = []
                for side in (0, 1):
                    rate, seconds, found = measure(ports[side], texts, clients)
                    rates[side].append(rate)
                    times[side].extend(seconds)
                    summaries.append(found)
                equal += sum(a.strip() == b.strip() for a, b in zip(*summaries, strict=True))
            ratio = statistics.median(ratios(*rates))
            for side, name in enumerate(("bart serve", "transformers, FastAPI")):
                cuts = np.percentile(times[side], (50, 95, 99))
                line = "".join(f"{cut:8.3f}" for cut in cuts)
                rate = statistics.median(rates[side])
                more = "" if side else f"  {ratio:.2f} x"
                print(f"{clients:>7}  {name:<22}{rate:8.2f}{line}{more}", flush=True)
            print(f"{'':>7}  equal summaries: {equal} of {rounds * len(texts)}")


# ---- hostile clients ----------------------------------------------------------------------------


def family(pid: int) -> list[int]:
    """Return a process and all of its descendants."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def memory(pid: int) -> float:
    """Return the resident megabytes of a process and all of its descendants."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


def raw(port: int, body: bytes) -> socket.socket:
    """Open a connection that has sent its headers and half of the body."""
    client = socket.create_connection(("127.0.0.1", port), timeout=600)
    head = f"POST /v1/summarize HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    client.sendall(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode())
    client.sendall(body[: len(body) // 2])
    return client


def attack(model: str, texts: list[str], requests: int, workers: int, kill: bool) -> None:
    chance = random.Random(0)
    texts = [" ".join(text.split()[:WORDS]) for text in texts]
    texts += [" ".join(chance.choices(texts, k=MEGABYTE // len(texts[0]))) for _ in range(3)]
    texts = [text[:MEGABYTE] for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "texts.jsonl"), Path(folder, "summaries.jsonl")
        given.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        words = [*BART, "summarize", given, "--model", model, "--out", made, *SHORT]
        if subprocess.run([*map(str, words)], stdout=subprocess.DEVNULL, check=False).returncode:
            raise BartError("`bart summarize` failed")
        expected = [json.loads(line)["summary"] for line in made.read_text().splitlines()]
    port = free_port()

    def check(kind: str, index: int, summary: str) -> str:
        return kind if summary == expected[index] else f"{kind}: WRONG SUMMARY"

    def valid(random_: random.Random) -> str:
        index = random_.randrange(len(texts) - 3)
        return check("valid", index, summary_of(port, texts[index]))

    def large(random_: random.Random) -> str:
        index = len(texts) - 1 - random_.randrange(3)
        return check("valid, 1 MB", index, summary_of(port, texts[index]))

    def slow(random_: random.Random) -> str:
        index = random_.randrange(len(texts) - 3)
        body = json.dumps({"text": texts[index]}).encode()
        with raw(port, body) as client:
            time.sleep(random_.uniform(0.2, 2))
            client.sendall(body[len(body) // 2 :])
            answer = http.client.HTTPResponse(client)
            answer.begin()
            content = json.loads(answer.read())
            if answer.status in (429, 503):
                return f"slow body: {answer.status}"
            return check("valid, slow body", index, content["results"][0]["summary"])

    def leaves(random_: random.Random) -> str:
        body = json.dumps({"text": random_.choice(texts)}).encode()
        with raw(port, body) as client:
            if random_.random() < 0.5:
                client.sendall(body[len(body) // 2 :])
                time.sleep(random_.uniform(0, 0.2))
        return "left"

    def wrong(random_: random.Random) -> str:
        bodies = [b"{", b"[" * 10_000, b'{"text": 1}', b"\xff\xfe", b'{"text": "a", "beams": 1e9}']
        status, content, _ = ask(port, random_.choice(bodies))
        return "wrong: 400" if status == 400 and "error" in content else f"wrong: {status}"

    def oversized(_: random.Random) -> str:
        try:
            return f"oversized: {ask(port, b' ' * (BODY_LIMIT + 1))[0]}"
        except OSError:  # the server closed while we were still sending
            return "oversized: closed"

    kinds: list[Callable[[random.Random], str]] = [valid, large, slow, leaves, wrong, oversized]

    def one(number: int) -> str:
        random_ = random.Random(number)
        try:
            return random_.choices(kinds, KINDS)[0](random_)
        except Exception as error:
            return f"FAILED: {type(error).__name__}: {error}"

    words = [*BART, "serve", "--model", model, "--port", port, *SHORT]
    words += ["--max-bytes", BODY_LIMIT, "--workers", workers, "--max-queue", 64]
    with running(words, port) as server, ThreadPoolExecutor(16) as pool:
        peak = before = memory(server.pid)
        began = time.monotonic()
        work = [pool.submit(one, number) for number in range(requests)]
        kills = 0
        while not all(each.done() for each in work):
            time.sleep(0.2)
            peak = max(peak, memory(server.pid))
            if kill and time.monotonic() - began > 30 * (kills + 1):
                kills += 1
                for pid in family(server.pid)[1:]:
                    with contextlib.suppress(OSError):
                        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                            os.kill(pid, signal.SIGKILL)
                            break
        seconds = time.monotonic() - began
        print(f"{requests} requests in {seconds:.0f} s, {kills} workers killed; memory in MB:")
        print(f"  {before:.0f} before, {peak:.0f} at most, {memory(server.pid):.0f} after")
    counts = Counter(each.result() for each in work)
    for outcome, count in sorted(counts.items()):
        print(f"{count:7}  {outcome}")
    sys.exit(any("WRONG" in outcome or "FAILED" in outcome for outcome in counts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hostile", type=int, metavar="REQUESTS")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--handler", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.handler:
        simplest_handler(given.model, given.handler)
        return
    if given.texts:
        lines = given.texts.read_text(encoding="utf-8").splitlines()[: given.requests]
        texts = [json.loads(line)["article"] for line in lines]
    else:
        chance = random.Random(0)
        words = "the mayor opened a new bridge in town after years of rain and work".split()
        texts = [" ".join(chance.choices(words, k=chance.randint(100, 400))) for _ in range(48)]
    with tempfile.TemporaryDirectory() as folder:
        model = given.model
        if model == "random-base":
            model = str(Path(folder, model))
            torch.manual_seed(0)
            generation = GenerationConfig(beams=4, min_length=32, max_length=32)
            save_random(Path(model), Bart(preset_config("bart-base").model), texts, generation)
        if given.hostile:
            attack(model, texts, given.hostile, given.workers, given.kill)
        else:
            texts = (texts * given.requests)[: given.requests]
            compare(model, texts, given.clients, given.rounds)


if __name__ == "__main__":
    run(main)
