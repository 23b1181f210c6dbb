"""`POST /v1/events`: usage as CloudEvents, durable before it is acknowledged."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from hourbook.api.access import Collector
from hourbook.api.bodies import REFUSALS, Body, ErrorBody, Responses, json_response
from hourbook.errors import InvalidRequestError, MalformedError, TooLargeError, WrongTypeError
from hourbook.importing import accept_payload
from hourbook.serving import ServedHome, read_body
from hourbook.settings import Home
from metering.cloud_events import EVENT_TYPE, read_events
from metering.events import Collected, RejectedEvent
from metering.store import BatchReceipt

MAX_BYTES = 16 * 1024 * 1024
MAX_EVENTS = 10_000

ONE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
LINES = "application/x-ndjson"
ANY = "application/json"
# With what a body of this type begins; "" where it may be anything.
OPENINGS = {ONE: b"{", BATCH: b"[", ANY: b"{[", LINES: b""}

router = APIRouter(prefix="/v1", tags=["events"], responses=REFUSALS)


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
    413: {"model": ErrorBody, "description": f"More than {MAX_EVENTS:,} events or {MAX_BYTES:,} bytes"},
    415: {"model": ErrorBody, "description": "The body is of another type"},
}


@router.post(
    "/events",
    status_code=HTTPStatus.ACCEPTED,
    responses=_RESPONSES,
    openapi_extra={"requestBody": {"required": True, "content": _CONTENT}},
)
async def post_events(request: Request, caller: Collector, home: ServedHome) -> Response:
    """Take usage in: one CloudEvent, an array of them, or one per line; answered once it is on disk.

    The same event sent again changes nothing, so whoever got no answer sends the batch again.
    """
    kind = _media_type(request)
    payload = await read_body(request, MAX_BYTES)
    return await run_in_threadpool(_accept, home, kind, payload, f"{caller.key_id}:{secrets.token_hex(8)}")


def _media_type(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in OPENINGS:
        raise WrongTypeError(f"events are sent as one of {', '.join(OPENINGS)}, not as {kind or 'an unnamed type'}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongTypeError("events are sent as they are, without a content encoding")
    return kind


def _accept(home: Home, kind: str, payload: bytes, origin: str) -> Response:
    _check_opening(kind, payload)
    collected = read_events(payload, format="jsonl" if kind == LINES else "json", now=home.now())
    _check_whole(kind, collected)
    receipt = accept_payload(home, payload, collected, kind="cloud_events", origin=origin)
    items = _items(collected, _positions(kind, payload, collected.rejected))
    return json_response(_body(receipt, items), HTTPStatus.ACCEPTED)


def _check_opening(kind: str, payload: bytes) -> None:
    first = payload.lstrip()[:1]
    if not first:
        raise MalformedError("the body is empty; send CloudEvents")
    opening = OPENINGS[kind]
    if opening and first in b"{[" and first not in opening:
        raise InvalidRequestError(f"{kind} begins with {opening.decode()}, not with {first.decode()}")
    if opening and first not in b"{[":
        raise MalformedError("the body is no JSON object and no array; send CloudEvents")


def _check_whole(kind: str, collected: Collected) -> None:
    """Refuse what is no batch at all; single events that cannot be used are kept and told one by one."""
    if kind != LINES and any(row.code == "not_json" for row in collected.rejected):
        raise MalformedError(collected.rejected[0].message)
    if collected.rows > MAX_EVENTS:
        raise TooLargeError(f"{collected.rows:,} events are more than {MAX_EVENTS:,}; send them in parts")
    if collected.rows == 0:
        raise InvalidRequestError("there is no event in the body")


def _positions(kind: str, payload: bytes, rejected: tuple[RejectedEvent, ...]) -> list[int]:
    """Return which of the events, from 0, the rejected ones are."""
    numbers = [row.line for row in rejected]
    if kind != LINES or not rejected:
        return [number - 1 for number in numbers]
    filled = [number for number, line in enumerate(payload.split(b"\n"), start=1) if line.strip()]
    return [bisect_left(filled, number) for number in numbers]


def _items(collected: Collected, positions: list[int]) -> list[dict[str, str]]:
    items = [{"status": "accepted"}] * collected.rows
    for position, row in zip(positions, collected.rejected, strict=True):
        items[position] = {"status": "rejected", "code": row.code, "message": row.message}
    return items


def _body(receipt: BatchReceipt, items: list[dict[str, str]]) -> dict[str, object]:
    return {
        "batch": receipt.batch_seq,
        "accepted": receipt.events,
        "rejected": receipt.rows - receipt.events,
        "items": items,
    }
