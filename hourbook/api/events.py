"""`POST /v1/events`: usage as CloudEvents, durable before it is acknowledged; `GET /v1/schemas/usage`: their form."""

from __future__ import annotations

from asyncio import wrap_future
from http import HTTPStatus
from typing import Literal

import orjson
from fastapi import APIRouter, Request, Response

from hourbook.api.access import BEARER, admit
from hourbook.api.bodies import REFUSALS, Body, ErrorBody, Responses
from hourbook.errors import WrongTypeError
from hourbook.intake import MAX_BYTES, MAX_EVENTS, Intake, Outcome, Submission
from hourbook.serving import read_body
from metering.cloud_event_bodies import Format
from metering.usage_schema import EVENT_TYPE, json_schema

ONE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
LINES = "application/x-ndjson"
ANY = "application/json"
# With what a body of this type begins; nothing where it may be anything.
OPENINGS = {ONE: b"{", BATCH: b"[", ANY: b"{[", LINES: b""}
GZIP = "gzip"

router = APIRouter(prefix="/v1", tags=["events"], responses=REFUSALS)
public = APIRouter(prefix="/v1", tags=["events"])


class Item(Body):
    """What became of one event."""

    status: Literal["accepted", "rejected"]
    code: str | None = None  # why it was rejected; it is kept in quarantine
    message: str | None = None


class Receipt(Body):
    """What became of a batch. Everything in it is on disk when this is sent."""

    batch: int
    accepted: int
    rejected: int
    items: list[Item]  # one per event, in the order in which they were sent


_OBJECT = {"schema": {"type": "object"}, "example": {"specversion": "1.0", "type": EVENT_TYPE}}
_LIST = {"schema": {"type": "array", "items": {"type": "object"}, "maxItems": MAX_EVENTS}}
_CONTENT = {ONE: _OBJECT, BATCH: _LIST, LINES: {"schema": {"type": "string"}}, ANY: {"schema": {}}}
_RESPONSES: Responses = {
    202: {"model": Receipt, "description": "Durable; events that cannot be used stand in quarantine"},
    400: {"model": ErrorBody, "description": "The body cannot be read"},
    413: {"model": ErrorBody, "description": f"More than {MAX_EVENTS:,} events or {MAX_BYTES:,} bytes, unpacked"},
    415: {"model": ErrorBody, "description": "The body is of another type or encoding"},
    429: {"model": ErrorBody, "description": "More than can be taken in now; nothing was kept, send it again later"},
}


@router.post(
    "/events",
    status_code=HTTPStatus.ACCEPTED,
    responses=_RESPONSES,
    openapi_extra={
        "requestBody": {"required": True, "content": _CONTENT},
        "security": [{BEARER.scheme_name: []}],
    },
)
async def post_events(request: Request) -> Response:
    """Take usage in: one CloudEvent, an array of them, or one per line, plain or gzip; answered once it is on disk.

    The same event sent again changes nothing, so whoever got no answer sends the batch again.
    """
    caller = await admit(request, "collector")
    kind, gzipped = _media_type(request), _is_gzipped(request)
    form: Format = "jsonl" if kind == LINES else "json"
    intake: Intake = request.app.state.intake
    with intake.room.reserved() as take:
        payload = await read_body(request, MAX_BYTES, take)
        submission = Submission(payload, form, gzipped, caller.key_id, OPENINGS[kind], caller.clusters)
        outcome = await wrap_future(intake.submit(submission))
    return Response(_receipt(outcome), HTTPStatus.ACCEPTED, media_type="application/json")


@public.get("/schemas/usage", response_class=Response)
async def get_schema() -> Response:
    """Return the JSON Schema of a usage event; it is no secret."""
    return Response(_SCHEMA, media_type="application/schema+json")


_SCHEMA = orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2)


def _media_type(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in OPENINGS:
        raise WrongTypeError(
            f"events are sent as one of {', '.join(OPENINGS)}, not as {kind[:80] or 'an unnamed type'}"
        )
    return kind


def _is_gzipped(request: Request) -> bool:
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity", GZIP}:
        raise WrongTypeError(f"events are sent as they are or as {GZIP}, not as {encoding[:80]}")
    return encoding == GZIP


_ACCEPTED = b'{"status":"accepted"}'


def _receipt(outcome: Outcome) -> bytes:
    """Write the answer: what became of each event, in the order sent."""
    items = [_ACCEPTED] * outcome.rows
    for place, event in outcome.refused:
        items[place] = orjson.dumps({"status": "rejected", "code": event.code, "message": event.message})
    rejected = len(outcome.refused)
    head = b'{"batch":%d,"accepted":%d,"rejected":%d,"items":[' % (outcome.batch, outcome.rows - rejected, rejected)
    return head + b",".join(items) + b"]}"
