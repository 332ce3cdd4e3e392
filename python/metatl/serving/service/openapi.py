"""The OpenAPI description of the service, from its messages."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from metatl.serving.service import messages

if TYPE_CHECKING:
    from pydantic import BaseModel

_REFERENCE = "#/components/schemas/{model}"

POSTS: dict[str, tuple[str, type[BaseModel], type[BaseModel]]] = {
    "/recommend": ("Recommend items to new users.", messages.RecommendRequest, messages.RecommendAnswer),
    "/similar": ("Find the most similar items.", messages.SimilarRequest, messages.SimilarAnswer),
    "/explain": ("Explain the score of an item.", messages.ExplainRequest, messages.ExplainAnswer),
}
"""What each path does, and its messages."""


def describe() -> dict[str, Any]:
    """Return the description as JSON: OpenAPI 3.1."""
    models = [model for _, *pair in POSTS.values() for model in pair]
    models += [messages.ItemsAnswer, messages.ColumnsAnswer, messages.ErrorAnswer]
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
    paths: dict[str, Any] = {}
    for path, (summary, request, answer) in POSTS.items():
        body = {"required": True, "content": _json(request)}
        paths[path] = {
            "post": {"summary": summary, "requestBody": body, "responses": _responses(_json(answer))}
        }
    query = [
        {"name": "query", "in": "query", "schema": {"type": "string"}, "description": "Words of an item."},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "default": 20}},
    ]
    paths["/items"] = {
        "get": {
            "summary": "Find items by their words.",
            "parameters": query,
            "responses": _responses(_json(messages.ItemsAnswer)),
        }
    }
    paths["/columns"] = {
        "get": {
            "summary": "The columns that filters can offer.",
            "responses": _responses(_json(messages.ColumnsAnswer)),
        }
    }
    for path, summary, media in (
        ("/health", "Whether the process lives.", "application/json"),
        ("/ready", "Whether it answers, and from which run.", "application/json"),
        ("/metrics", "Numbers for Prometheus.", "text/plain"),
    ):
        answer_content = {media: {"schema": {"type": "object" if media.endswith("json") else "string"}}}
        paths[path] = {"get": {"summary": summary, "responses": _responses(answer_content)}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "metatl", "version": metadata.version("metatl")},
        "paths": paths,
        "components": {"schemas": definitions["$defs"]},
    }


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}


def _responses(content: dict[str, Any]) -> dict[str, Any]:
    error = {"description": "What was wrong, in one line.", "content": _json(messages.ErrorAnswer)}
    return {"200": {"description": "The answer.", "content": content}, "default": error}
