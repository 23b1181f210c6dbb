"""The form of answers: JSON, and one shape for all refusals."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from fastapi import Response
from pydantic import BaseModel, ConfigDict

from hourbook.errors import Meaning


class Body(BaseModel):
    """A body that holds what it declares, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorText(Body):
    """What went wrong: a code for programs, a sentence for people."""

    code: str
    message: str


class ErrorBody(Body):
    """Every refusal looks like this."""

    error: ErrorText


Responses = dict[int | str, dict[str, Any]]
REFUSALS: Responses = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        401: "No key, or one that is unknown or revoked",
        403: "The key's role may not do this",
        422: "The request can be read but not be done",
        503: "Busy or counting; try again in a few seconds",
    }.items()
}
MISSING: Responses = {404: {"model": ErrorBody, "description": "Nothing here for this key"}}


def json_response(content: object, status: int = HTTPStatus.OK) -> Response:
    """Answer with JSON."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def error_response(meaning: Meaning, message: str) -> Response:
    """Answer with a refusal."""
    body = {"error": {"code": meaning.code, "message": message}}
    response = json_response(body, meaning.status)
    response.headers.update(meaning.headers or {})
    return response
