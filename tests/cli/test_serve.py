"""`bart serve` as seen by its clients: one server in a separate process for all tests."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from bart_cli.config.commands import ServeConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.errors import BartError
from bart_cli.model.bart import Bart
from bart_cli.summarize.summarizer import Summarizer
from bart_cli.tokenizer import Tokenizer
from tests.command import bart
from tests.conftest import SENTENCES, save_model, tiny_model_config

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
from bart_cli.serve.listen import listen

BART = [sys.executable, "-m", "bart_cli", "serve"]
KEY = "k3y"
LIMITS = ["--max-bytes", "200000", "--max-texts", "20", "--max-queue", "40", "--timeout", "300"]
LIMITS += ["--max-beams", "63"]


@dataclass
class Service:
    """Start a server, and load the same model in this process."""

    process: subprocess.Popen[str]
    port: int
    judge: Summarizer

    def ask(
        self, path: str, body: object = None, method: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Return status and JSON (or text) of a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        sent = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method or ("GET" if body is None else "POST"), path, data, sent)
        answer = connection.getresponse()
        content = answer.read().decode()
        connection.close()
        is_json = answer.headers["Content-Type"] == "application/json"
        return answer.status, json.loads(content) if is_json else content

    def summaries(self, **body: object) -> list[str]:
        status, answer = self.ask("/v1/summarize", body)
        assert status == 200, answer
        return [result["summary"] for result in answer["results"]]

    def until_ready(self) -> None:
        end = time.monotonic() + 120
        while self.ask("/readyz")[0] != 200:
            assert self.process.poll() is None, "the server has ended"
            assert time.monotonic() < end, "the model was not loaded"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer
) -> Iterator[Service]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("serve") / "tiny-model"
    bart_model = Bart(tiny_model_config(vocab_size=tiny_tokenizer.vocab_size, init_std=0.3))
    generation = GenerationConfig(beams=2, max_length=12, min_length=8, no_repeat_ngram=0)
    save_model(folder, bart_model, tiny_tokenizer, generation)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*BART, "--model", str(folder), "--port", str(port), *LIMITS],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"BART_API_KEY": KEY},
    )
    service = Service(process, port, Summarizer.from_pretrained(folder))
    end = time.monotonic() + 120
    while True:
        try:
            service.ask("/healthz")
            break
        except OSError:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.1)
    service.until_ready()
    with ThreadPoolExecutor() as pool:  # SIGTERM lets a request in progress finish
        yield service
        late = pool.submit(service.summaries, text=[" ".join(SENTENCES * 9)] * 9, long="chunk")
        while not process.poll() and "bart_running_texts 0.0" in service.ask("/metrics")[1]:
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        assert len(late.result()) == 9
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said


def test_summaries_equal_the_summarizer_whatever_the_batch(service: Service) -> None:
    texts = [*SENTENCES, " ".join(SENTENCES * 5), "東京で雨が降った。", "x"]
    options: list[dict[str, Any]] = [
        {},
        {"beams": 4, "max_length": 5},  # the model's min_length is lowered, as on the command line
        {"sample": True, "beams": 1, "seed": 3, "temperature": 2.0},
        {"long": "chunk"},
    ]
    own = [{}, {"min_length": 5}, {}, {}]
    expected = [
        [summary.text for summary in service.judge.summarize(texts, **(given | more))]
        for given, more in zip(options, own, strict=True)
    ]
    with ThreadPoolExecutor(16) as clients:
        asked = [
            (expected[o][t], clients.submit(service.summaries, text=texts[t], **options[o]))
            for o in range(len(options))
            for t in range(len(texts))
        ]
        assert [found.result() for _, found in asked] == [[text] for text, _ in asked]
    assert service.summaries(text=texts) == expected[0]


def test_a_stream_has_one_event_for_each_text(service: Service) -> None:
    status, content = service.ask("/v1/summarize/stream", {"text": list(SENTENCES)})
    events = re.findall(r"event: (\w+)\ndata: (.*)\n\n", content)
    assert status == 200
    assert [name for name, _ in events] == ["summary"] * len(SENTENCES) + ["done"]
    found = {row["index"]: row["summary"] for row in (json.loads(data) for _, data in events[:-1])}
    expected = service.judge.summarize(SENTENCES)
    assert [found[i] for i in range(len(SENTENCES))] == [summary.text for summary in expected]


def test_openais_api(service: Service) -> None:
    text = SENTENCES[0]
    body = {
        "model": "any",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": text}]},
        ],
        "temperature": 0,
        "max_tokens": 9,
        "n": 2,
    }
    _, answer = service.ask("/v1/chat/completions", body)
    expected = service.judge.summarize(text, max_length=9, return_sequences=2)
    said = [choice["message"]["content"] for choice in answer["choices"]]
    assert said == [expected.text, *expected.others]
    assert answer["usage"]["prompt_tokens"] == expected.used_tokens
    _, content = service.ask("/v1/chat/completions", body | {"stream": True})
    chunk, end = re.findall(r"data: (.*)\n\n", content)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    _, content = service.ask("/v1/chat/completions", body | options)
    _, last, _ = re.findall(r"data: (.*)\n\n", content)
    assert (json.loads(last)["choices"], json.loads(last)["usage"]) == ([], answer["usage"])
    assert json.loads(chunk)["choices"][0]["delta"]["content"] == expected.text
    assert end == "[DONE]"


def test_a_text_shorter_than_the_minimum_length_is_reported(service: Service) -> None:
    body = {"text": ["Rain.", " ".join(SENTENCES)], "min_length": 20, "max_length": 30}
    _, answer = service.ask("/v1/summarize", body)
    (warning,), none = (result["warnings"] for result in answer["results"])
    assert "fewer than min_length=20: the summary will contain invented text" in warning
    assert none == []


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        (b"{", 400, "not valid JSON"),
        (b"[" * 100_000, 400, "not valid JSON"),
        (b"\xff", 400, "not UTF-8"),
        (b'{"text": "x", "temperature": NaN}', 400, "NaN is not a JSON number"),
        (b'{"text": "\\ud800"}', 400, "text contains a lone surrogate"),
        ([], 400, "expected a JSON object"),
        ({}, 400, "text is missing"),
        ({"text": ["a", 1]}, 400, "text[1] is not a string"),
        ({"text": " \n"}, 400, "text is empty"),
        ({"text": "a", "beam": 2}, 400, "unknown field 'beam' (Did you mean 'beams'?)"),
        ({"text": "a", "beams": 0}, 400, "beams=0: input should be greater than or equal to 1"),
        ({"text": "a", "beams": 64}, 400, "beams=64 exceeds this server's limit of 63"),
        ({"text": "a", "long": "cut"}, 400, "expected truncate, chunk, reduce"),
        ({"text": "a", "max_length": 65}, 400, "exceeds the model's 64 positions"),
        ({"text": "a", "bad_words": [[5, 9999]]}, 400, "bad_words contains 9999"),
        ({"text": "a", "exponential_decay_length_penalty": [0, 1e308]}, 500, "not finite"),
        ({"text": ["a"] * 21}, 413, "text has 21 items; at most 20"),
        ({"text": "a" * 200_000}, 413, "at most 200000"),
    ],
)
def test_invalid_requests_get_one_line(
    service: Service, body: object, status: int, line: str
) -> None:
    got, answer = service.ask("/v1/summarize", body)
    assert got == status
    assert line in answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]


def test_access_rules(service: Service) -> None:
    body = {"text": "a"}
    assert service.ask("/v1/summarize", body, Authorization="Bearer k3z")[0] == 401
    assert service.ask("/metrics", Authorization="")[0] == 401
    assert service.ask("/v1/summarize", body, Origin="http://evil.example")[0] == 403
    assert service.ask("/v1/summarize", body, Content_Type="text/plain")[0] == 415
    assert service.ask("/docs", Authorization="")[0] == 200
    assert service.ask("/nowhere")[0] == 404


def test_the_model_is_described_without_paths(service: Service) -> None:
    _, model = service.ask("/v1/model")
    assert (model["name"], model["positions"], model["decoding"]["beams"]) == ("tiny-model", 64, 2)
    folder = str(service.judge.folder.parent)
    for path in ("/v1/model", "/v1/models", "/openapi.json", "/metrics", "/docs"):
        status, content = service.ask(path)
        assert status == 200
        assert folder not in json.dumps(content)
    _, document = service.ask("/openapi.json")
    schema = document["paths"]["/v1/summarize"]["post"]["requestBody"]["content"]
    fields = set(schema["application/json"]["schema"]["properties"])
    assert set(GenerationConfig.model_fields) < fields


def pdf(text: str) -> bytes:
    """Build a minimal PDF with one line of text."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R"
        b"/Resources<</Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
    ]
    body, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(b"%010d 00000 n \n" % len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"xref\n0 5\n0000000000 65535 f \n" + b"".join(places)
    end = b"trailer\n<</Root 1 0 R/Size 5>>\nstartxref\n%d\n%%%%EOF" % len(body)
    return body + table + end


def docx(*lines: str) -> bytes:
    import docx

    document = docx.Document()
    for line in lines:
        document.add_paragraph(line)
    document.add_table(1, 2).cell(0, 1).text = "in a table"
    document.save(stream := io.BytesIO())
    return stream.getvalue()


def test_files_become_texts(service: Service) -> None:
    def read(name: str, content: bytes) -> tuple[int, Any]:
        return service.ask(f"/v1/text?name={name}", content)

    assert read("a.txt", "Café".encode()) == (200, {"text": "Café"})
    assert read("a.pdf", pdf(SENTENCES[0])) == (200, {"text": SENTENCES[0]})
    assert read("a.DOCX", docx("One.", "Two.")) == (200, {"text": "One.\nTwo.\n\tin a table"})
    page = f"<html><body><article><p>{' '.join(SENTENCES)}</p></article></body></html>"
    assert SENTENCES[0] in read("a.html", page.encode())[1]["text"]
    # The content counts, not the suffix.
    assert read("a.txt", pdf(SENTENCES[0])) == (200, {"text": SENTENCES[0]})
    assert read("a.pdf", docx("One.")) == (200, {"text": "One.\n\tin a table"})
    assert SENTENCES[0] in read("a.txt", page.encode())[1]["text"]
    status, answer = read("a.pdf", b"%PDF-1.4 broken")
    assert (status, "cannot be read" in answer["error"]["message"]) == (422, True)
    assert read("a%00%0d%0a.exe", b"MZ")[0] == 422
    assert service.ask("/v1/text", b"x")[0] == 400


def chromium(*more: str) -> Any:
    """Start a headless browser, or skip the test."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (apt install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", *more):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


@pytest.mark.browser
def test_the_page_in_a_browser(service: Service, tmp_path: Path) -> None:
    browser = chromium()
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def one(selector: str) -> Any:
        return browser.find_element("css selector", selector)

    def until(test: Callable[[], object]) -> None:
        WebDriverWait(browser, 30, ignored_exceptions=[Exception]).until(lambda _: test())

    (tmp_path / "bridge.pdf").write_bytes(pdf(SENTENCES[0]))
    text = " ".join(SENTENCES)
    try:
        browser.get(f"http://127.0.0.1:{service.port}/")
        until(lambda: one("#key").is_displayed())
        one("#key").send_keys(KEY, Keys.TAB)
        until(lambda: one("#beams").get_attribute("value") == "2")
        assert "tiny-model" in one("#model").text
        one("#file").send_keys(str(tmp_path / "bridge.pdf"))
        until(lambda: "bridge.pdf" in one("#files").text)
        one("#text").send_keys(text)
        one("#text").send_keys(Keys.CONTROL, Keys.ENTER)  # without a mouse
        until(lambda: one("#status").text == "Done.")
        found = {
            article.find_element("css selector", "h2").text: article
            for article in browser.find_elements("css selector", "article")
        }
        for name, source in (("Summary", text), ("bridge.pdf", SENTENCES[0])):
            shown = found[name].find_element("css selector", "[data-summary]")
            assert shown.get_attribute("data-summary") == service.judge.summarize(source).text
            view = found[name].find_element("css selector", ".source")
            assert view.get_attribute("textContent") == source
        assert "Warning" not in found["Summary"].text
        first = found["Summary"].find_element("css selector", ".sentence")
        first.send_keys(Keys.ENTER)
        assert first.get_attribute("aria-pressed") == "true"
        problems = [row["message"] for row in browser.get_log("browser")]
        # The console may only show the first request for the model, which has no key yet.
        assert [line for line in problems if "401" not in line] == []
    finally:
        browser.quit()


def test_texts_of_a_disconnected_client_are_not_decoded(service: Service) -> None:
    body = json.dumps(
        {"text": " ".join(SENTENCES[:2] * 1500), "long": "chunk", "beams": 63, "max_length": 64}
    ).encode()
    head = f"POST /v1/summarize HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    began = time.monotonic()
    for _ in range(10):  # would decode for minutes if not canceled
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(head.encode() + body)
            time.sleep(0.05)
    assert service.summaries(text=SENTENCES[0]) == [service.judge.summarize(SENTENCES[0]).text]
    _, metrics = service.ask("/metrics")
    assert 'status="499"' in metrics
    assert time.monotonic() - began < 60


def test_a_short_text_joins_a_long_one_and_texts_of_a_killed_worker_are_retried(
    service: Service,
) -> None:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    workers = [
        int(pid)
        for pid in children.read_text().split()
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    with ThreadPoolExecutor() as clients:
        text, options = " ".join(SENTENCES * 60), {"beams": 8, "max_length": 64, "min_length": 60}
        found = clients.submit(service.summaries, text=text, long="chunk", **options)
        while "bart_running_texts 1.0" not in service.ask("/metrics")[1]:
            assert not found.done()
        short = service.summaries(text=SENTENCES[1], **options)
        assert not found.done(), "the short text waited for the long one"
        os.kill(workers[0], signal.SIGKILL)
        expected = service.judge.summarize([SENTENCES[1], text], long="chunk", **options)
        assert [*short, *found.result()] == [summary.text for summary in expected]
    assert "bart_worker_restarts 1.0" in service.ask("/metrics")[1]


def test_addresses_that_are_refused(service: Service) -> None:
    def refusal(key: str | None = None, **address: object) -> BartError:
        with (
            pytest.raises(BartError) as caught,
            listen(ServeConfig.model_validate(address), key=key, open_to_all=False),
        ):
            pass
        return caught.value

    assert "Address already in use" in refusal(port=service.port).message
    exposed = refusal(host="0.0.0.0", port=0)
    assert (exposed.exit_code, "there is no API key" in exposed.message) == (2, True)
    assert "nowhere.invalid" in refusal("k", host="nowhere.invalid").message
    with listen(ServeConfig(host="0.0.0.0", port=0), key="k", open_to_all=False) as (_, access):
        assert not access.loopback


def test_a_missing_model_stops_the_server_with_one_line(tmp_path: Path) -> None:
    missing = bart("serve", "--model", tmp_path / "nothing", "--port", 0)
    assert missing.returncode == 2
    assert "nothing" in missing.stderr
    assert "Traceback" not in missing.stderr
