"""Read and validate requests: JSON to texts and settings, or an HTTPException of one line."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn, get_args

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from bart_cli.config.commands import LongText, ServeConfig
from bart_cli.config.generation import GenerationConfig, check_ids, resolve_generation
from bart_cli.config.presets import check_section
from bart_cli.errors import UsageError, did_you_mean
from bart_cli.serve.worker import Served, Settings

BODY_SECONDS = 30.0  # time limit to receive a body
MAX_ARRIVING = 128 * 2**20  # total bytes of the bodies being received
UNSET: tuple[object, ...] = (None, False, [], {}, {"type": "text"})  # values without effect
_arriving = 0
SURROGATE = re.compile("[\ud800-\udfff]")
OWN_FIELDS = ("text", "long", "overlap")  # fields of a request besides GenerationConfig's
# OpenAI's names for our settings, and OpenAI fields that are ignored.
RENAMED = {
    "max_tokens": "max_length",
    "max_completion_tokens": "max_length",
    "n": "return_sequences",
}
IGNORED = frozenset(
    "model messages stream stream_options user store metadata presence_penalty frequency_penalty "
    "service_tier".split()
)


def refuse(status: int, message: str, **headers: str) -> NoReturn:
    """End the request with this status and message."""
    line = SURROGATE.sub("\N{REPLACEMENT CHARACTER}", message)  # messages quote requests
    raise HTTPException(status, line, {key.replace("_", "-"): v for key, v in headers.items()})


async def read_body(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        line = f"the body has {declared} bytes; at most {limit} are allowed"
        refuse(413, line, Connection="close")
    global _arriving
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                if _arriving > MAX_ARRIVING:
                    refuse(503, "too many large bodies are arriving", Retry_After="5")
                body += part
                _arriving += len(part)
                if len(body) > limit:
                    refuse(413, f"the body has more than {limit} bytes", Connection="close")
    except TimeoutError:
        refuse(408, f"the body did not arrive within {BODY_SECONDS:.0f} s", Connection="close")
    except ClientDisconnect:
        refuse(499, "the client has left")
    finally:
        _arriving -= len(body)
    return bytes(body)


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """Read the JSON object of a request.

    Only `application/json` is accepted, which pages of other origins cannot send without CORS.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        refuse(415, "expected the header Content-Type: application/json")
    body = await read_body(request, limit)
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        refuse(400, "not valid JSON: nested too deeply")
    except json.JSONDecodeError as error:
        refuse(400, f"not valid JSON: {error.msg} at character {error.pos + 1}")
    except UnicodeDecodeError:
        refuse(400, "not valid JSON: the body is not UTF-8")
    except ValueError as error:  # NaN, or an integer with too many digits
        refuse(400, f"not valid JSON: {str(error).partition(':')[0]}")
    if not isinstance(document, dict):
        refuse(400, "expected a JSON object")
    return document


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def read_texts(document: Mapping[str, Any], config: ServeConfig) -> list[str]:
    given = document.get("text")
    texts = given if isinstance(given, list) else [given]
    if "text" not in document or not texts:
        refuse(400, "text is missing: expected a string or a list of strings")
    if len(texts) > config.max_texts:
        refuse(413, f"text has {len(texts)} items; at most {config.max_texts} are allowed")
    return [
        read_text(text, f"text[{i}]" if isinstance(given, list) else "text")
        for i, text in enumerate(texts)
    ]


def read_text(text: object, where: str) -> str:
    """Check that a value is a non-empty text, and return it; `where` is its name in errors."""
    if not isinstance(text, str):
        refuse(400, f"{where} is not a string")
    if SURROGATE.search(text):
        refuse(400, f"{where} contains a lone surrogate, which is not a character")
    if not text.strip():
        refuse(400, f"{where} is empty: there is no text to summarize")
    return text


def read_flag(document: Mapping[str, Any], name: str) -> bool:
    """Read a boolean field; a missing one is false."""
    value = document.get(name, False)
    if not isinstance(value, bool):
        refuse(400, f"{name}: expected true or false")
    return value


def read_settings(document: Mapping[str, Any], served: Served, max_beams: int) -> Settings:
    """Read the decoding settings: those of the model, overridden by the fields of a request.

    As in `bart summarize`, the model's minimum length is lowered to a requested maximum length.
    """
    long = document.get("long", "truncate")
    if long not in get_args(LongText):
        refuse(400, f"long={str(long)[:30]}: expected {', '.join(get_args(LongText))}")
    changes = {k: v for k, v in document.items() if k not in OWN_FIELDS and v is not None}
    for name in changes:
        if name not in GenerationConfig.model_fields:
            near = did_you_mean(name, [*OWN_FIELDS, *GenerationConfig.model_fields])
            refuse(400, f"unknown field '{name[:60]}'" + (f" ({near})" if near else ""))
    try:
        layers = [("model", served.generation.model_dump()), ("request", changes)]
        values, *_ = resolve_generation(layers)
        generation = check_section(GenerationConfig, values)
    except UsageError as error:
        line = " ".join(error.message.removeprefix("options: ").split())
        refuse(400, line[:500])
    for name in ("beams", "return_sequences"):
        value, own = getattr(generation, name), getattr(served.generation, name)
        if value > max(max_beams, own):
            refuse(400, f"{name}={value} exceeds this server's limit of {max_beams}")
    if problem := check_ids(generation, served.vocab_size, served.positions):
        refuse(400, problem)
    return Settings(generation, long)


def chat_document(document: Mapping[str, Any], served: Served) -> dict[str, Any]:
    """Convert a request of OpenAI's API to ours: the text is the last user message."""
    messages = document.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        refuse(400, "messages is missing: expected a list of objects with role and content")
    contents = [message.get("content") for message in messages if message.get("role") == "user"]
    if not contents:
        refuse(400, "messages has no message with role 'user'")
    text = contents[-1]
    if isinstance(text, list):
        if not all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in text):
            refuse(400, "content has a part that is not text; the model reads only text")
        text = "\n".join(part["text"] for part in text)
    own: dict[str, Any] = {"text": read_text(text, "the last user message")}
    for name, value in document.items():
        key = RENAMED.get(name, name)
        if key in GenerationConfig.model_fields or key == "long":
            own[key] = value
        elif name not in IGNORED and value not in UNSET:
            refuse(400, f"the field '{name[:60]}' is not supported; omit it")
    if own.get("temperature") == 0:  # OpenAI's way to turn sampling off
        del own["temperature"]
    if isinstance(limit := own.get("max_length"), int):  # clients often pass a generous bound
        own["max_length"] = min(limit, served.positions)
    return own
