"""The API's description in the form of OpenAPI 3.1, and as a page."""

from __future__ import annotations

import html
from typing import Any

from bart_cli import __version__
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.summarize import SummarizeConfig

TEXT = {
    "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "description": "a text, or a list of texts",
}
NO_BODY: dict[str, Any] = {"properties": {}, "required": []}


def _schema() -> dict[str, Any]:
    """The body of /v1/summarize: texts, and each decoding setting by its name."""
    settings = GenerationConfig.model_json_schema()["properties"]
    for setting in settings.values():
        setting.pop("default", None)  # of an omitted field the model's own value is taken
    long = SummarizeConfig.model_json_schema()["properties"]["long"]
    overlap = {
        "type": "boolean",
        "default": False,
        "description": "add the sentences of the text that share words with the summary's",
    }
    properties = {"text": TEXT, "long": long, "overlap": overlap} | settings
    return {"properties": properties, "required": ["text"]}


def openapi() -> dict[str, Any]:
    """The document behind /openapi.json."""
    chat = {
        "properties": {
            "messages": {
                "type": "array",
                "items": {"type": "object"},
                "description": "the last message of the role user is the text",
            },
            "stream": {"type": "boolean", "description": "answer as server-sent events, in one"},
            "max_tokens": {"type": "integer", "description": "max_length"},
            "n": {"type": "integer", "description": "return_sequences"},
        },
        "required": ["messages"],
    }
    upload = {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}
    name = {"name": "name", "in": "query", "required": True, "schema": {"type": "string"}}
    routes: list[tuple[str, str, str, dict[str, Any] | None]] = [
        ("post", "/v1/summarize", "Summarize a text or a list of texts.", _schema()),
        (
            "post",
            "/v1/summarize/stream",
            "The same as server-sent events: `summary` for each text as it is finished, in any "
            "order, then `done`; or `error`.",
            _schema(),
        ),
        ("post", "/v1/chat/completions", "Summarize, in the form of OpenAI's API.", chat),
        ("post", "/v1/text", "The text of a .txt, .html, .docx or .pdf file: the body.", None),
        ("get", "/v1/model", "The model, its saved decoding settings, and the limits.", NO_BODY),
        ("get", "/v1/models", "The model, in the form of OpenAI's API.", NO_BODY),
        ("get", "/healthz", "200 while the server runs.", NO_BODY),
        ("get", "/readyz", "200 when the model is loaded, else 503.", NO_BODY),
        ("get", "/metrics", "Metrics in the form of Prometheus.", NO_BODY),
    ]
    paths: dict[str, Any] = {}
    for verb, path, summary, body in routes:
        entry: dict[str, Any] = {
            "summary": summary,
            "responses": {
                "200": {"description": "OK"},
                "default": {"description": "error.message"},
            },
        }
        if verb == "post":
            content = {"application/json": {"schema": {"type": "object"} | (body or {})}}
            entry["requestBody"] = upload if body is None else {"content": content}
            entry |= {"parameters": [name]} if body is None else {}
        paths[path] = {verb: entry}
    return {
        "openapi": "3.1.0",
        "info": {"title": "bart serve", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}, {}],
    }


def docs_page() -> str:
    """The same for people: one page without a script."""
    parts = []
    for path, verbs in openapi()["paths"].items():
        ((verb, entry),) = verbs.items()
        parts.append(f"<h2><code>{verb.upper()} {path}</code></h2><p>{_escaped(entry['summary'])}")
        content = entry.get("requestBody", {}).get("content", {}).get("application/json", {})
        rows = [
            f"<tr><td><code>{name}</code><td>{_escaped(field.get('description', ''))}"
            for name, field in content.get("schema", {}).get("properties", {}).items()
        ]
        parts += ["<table><tr><th>field<th>meaning", *rows, "</table>"] if rows else []
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>bart serve: API</title>"
        "<meta name=color-scheme content='light dark'><h1>bart serve: API</h1>"
        "<p>The same for programs: <a href=/openapi.json>openapi.json</a>." + "\n".join(parts)
    )


def _escaped(text: str) -> str:
    return html.escape(text[:1].upper() + text[1:])
