"""Describe the API in OpenAPI 3.1 and as a web page."""

import html
from collections.abc import Iterable
from typing import Any

from starlette.routing import Route

from bart_cli import __version__
from bart_cli.config.commands import SummarizeConfig
from bart_cli.config.generation import GenerationConfig

TEXT = {
    "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "description": "a text, or a list of texts",
}
CHAT = {
    "properties": {
        "messages": {
            "type": "array",
            "items": {"type": "object"},
            "description": "the last message with role user is the text to summarize",
        },
        "stream": {"type": "boolean", "description": "respond with a server-sent event"},
        "max_tokens": {
            "type": "integer",
            "description": "max_length; lowered to the model's maximum",
        },
        "n": {"type": "integer", "description": "return_sequences"},
    },
    "required": ["messages"],
}


def _schema() -> dict[str, Any]:
    """Build the schema of the body of /v1/summarize: texts and decoding settings."""
    settings = GenerationConfig.model_json_schema()["properties"]
    for setting in settings.values():
        setting.pop("default", None)  # the default is the model's saved setting
    long = SummarizeConfig.model_json_schema()["properties"]["long"]
    overlap = {
        "type": "boolean",
        "default": False,
        "description": "add the sentences of the text that share words with each summary sentence",
    }
    properties = {"text": TEXT, "long": long, "overlap": overlap} | settings
    return {"properties": properties, "required": ["text"]}


def openapi(routes: Iterable[Route]) -> dict[str, Any]:
    """Build the OpenAPI document; each route is described by the docstring of its handler."""
    body = _schema()
    bodies = {"/v1/summarize": body, "/v1/summarize/stream": body, "/v1/chat/completions": CHAT}
    name = {"name": "name", "in": "query", "required": True, "schema": {"type": "string"}}
    paths: dict[str, Any] = {}
    for route in routes:
        path = route.path.replace(":path", "")
        entry: dict[str, Any] = {
            "summary": " ".join((route.endpoint.__doc__ or "").split()),
            "responses": {
                "200": {"description": "OK"},
                "default": {"description": "an object whose error.message describes the problem"},
            },
        }
        if path in bodies:
            schema = {"type": "object"} | bodies[path]
            entry["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        elif path == "/v1/text":
            file = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
            entry |= {"requestBody": {"content": file}, "parameters": [name]}
        elif "{name}" in path:
            entry["parameters"] = [name | {"in": "path"}]
        paths[path] = {"post" if "POST" in (route.methods or ()) else "get": entry}
    return {
        "openapi": "3.1.0",
        "info": {"title": "bart serve", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}, {}],
    }


def docs_page(routes: Iterable[Route]) -> str:
    """Build the documentation of the API as a page without scripts."""
    parts = []
    for path, verbs in openapi(routes)["paths"].items():
        ((verb, entry),) = verbs.items()
        parts.append(f"<h2><code>{verb.upper()} {path}</code></h2><p>{entry['summary']}")
        content = entry.get("requestBody", {}).get("content", {}).get("application/json", {})
        rows = [
            f"<tr><td><code>{name}</code><td>{html.escape(field.get('description', ''))}"
            for name, field in content.get("schema", {}).get("properties", {}).items()
        ]
        parts += ["<table><tr><th>field<th>meaning", *rows, "</table>"] if rows else []
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>bart serve: API</title>"
        "<meta name=color-scheme content='light dark'><h1>bart serve: API</h1>"
        "<p>Machine-readable: <a href=/openapi.json>openapi.json</a>." + "\n".join(parts)
    )
