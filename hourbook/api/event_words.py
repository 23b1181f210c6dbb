"""`GET /v1/events/{source}/{id}`: one event from end to end; and what the operator says about events."""

from __future__ import annotations

from datetime import date
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from base.money import decimal_text, minor_digits
from hourbook.amending import SHOWN, Spoken, backfill, say_word
from hourbook.api.access import EventReader, Tending
from hourbook.api.bodies import MISSING, REFUSALS, Body, ErrorBody, Responses, json_response
from hourbook.database import read_session
from hourbook.errors import InvalidRequestError, NotFoundError
from hourbook.event_bills import BilledShare
from hourbook.event_history import EventHistory, Revision, event_history
from hourbook.keys import Caller
from hourbook.serving import ServedHome, read_body
from hourbook.settings import Home
from hourbook.viewing import check_counted
from metering.amendments import MAX_REASON, Word
from metering.cloud_events import read_events

MAX_BYTES = 16 * 1024 * 1024
LONGEST_KEY = 1_000
PLACES = 6
FIRST_DATE, LAST_DATE = date(1970, 1, 1), date(2199, 12, 31)

router = APIRouter(prefix="/v1", tags=["events"], responses={**REFUSALS, **MISSING})


def event_key(
    request: Request,
    source: Annotated[str, Path(max_length=LONGEST_KEY, description="Percent-encoded, slashes too: slurm:hpc1")],
    event_id: Annotated[str, Path(max_length=LONGEST_KEY, description="Percent-encoded, slashes too")],
) -> tuple[str, str]:
    """Return the source and id of a path, in which a slash that belongs to one of them is written %2F."""
    del source, event_id  # decoded before they were told apart
    path = request.scope["raw_path"].decode("ascii", "replace")
    parts = path.partition("/v1/events/")[2].removesuffix("/amendments").split("/")
    try:
        named = [unquote(part, errors="strict") for part in parts]
    except UnicodeDecodeError:
        raise NotFoundError from None
    if len(named) != 2 or not all(named):  # noqa: PLR2004 - source and id
        raise NotFoundError
    return named[0], named[1]


EventKey = Annotated[tuple[str, str], Depends(event_key)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_REASON // 2)]


class RevisionBody(Body):
    """One row of an event; times are in UTC."""

    revision: str  # as its source counts, or "word 1" for what the operator said
    status: str
    start: str
    end: str
    recorded_as: int
    received_at: str | None
    origin: str
    usage: dict[str, Any]
    evidence: dict[str, Any]


class ShareBody(Body):
    """The event's part of one line, by quantity; quantity and amount are decimals as text."""

    charged_in: str
    document: str
    month: str
    customer: str
    project: str
    user: str
    sku: str
    quantity: str
    unit: str
    amount: str
    currency: str
    recorded_as: int  # the row that counted then
    blocked: str


class EventBody(Body):
    """An event: every row of it, and what it was billed as."""

    source: str
    id: str
    cluster: str
    revisions: list[RevisionBody]
    quarantined: list[dict[str, str]]
    billed: list[ShareBody]


class EventParameters(Body):
    """Where to look for it."""

    start_date: date | None = Field(
        default=None, alias="date", ge=FIRST_DATE, le=LAST_DATE, description="In UTC, on which it starts: much faster"
    )


class WordBody(Body):
    """What the operator says about an event."""

    word: Literal["amend", "retract", "revert"]
    reason: Text
    by: Text
    set: dict[str, str | int] = Field(default_factory=dict, max_length=20, description="amend: field -> value")
    dry_run: bool = False


class EffectBody(Body):
    """What changes in a month: hours added, below zero what is taken off."""

    month: str
    closed: bool
    core_hours: str
    card_hours: str
    node_hours: str
    wall_hours: str


class SpokenBody(Body):
    """What a word did, or would do."""

    word: str
    events: int
    batch: int  # 0 for a preview
    effects: list[EffectBody]
    adjusts: list[str]  # closed months: the change is charged with the next document


_SAID: Responses = {
    200: {"model": SpokenBody, "description": "A preview; nothing was recorded"},
    201: {"model": SpokenBody, "description": "Recorded"},
}
_BACKFILL: Responses = {
    **_SAID,
    413: {"model": ErrorBody, "description": f"More than {MAX_BYTES:,} bytes"},
}


@router.get("/events/{source:path}/{event_id:path}", response_model=EventBody)  # noqa: FAST003 - read by EventKey
def get_event(
    key: EventKey, asked: Annotated[EventParameters, Query()], caller: EventReader, home: ServedHome
) -> Response:
    """Follow one event: every row of it, which counts, and what it was billed as; a customer sees its own only.

    Without `date` the keys of the whole lake are looked through, which takes the longer the more it holds.
    """
    with read_session(home.engine) as session:
        if caller.role != "collector":
            check_counted(session)
        billed = caller.role != "collector"
        found = event_history(home, session, *key, billed=billed, start_date=asked.start_date).seen_by(caller)
    if found is None:
        raise NotFoundError
    return json_response(event_body(found))


def event_body(found: EventHistory) -> dict[str, Any]:
    """Return an event as it is told."""
    return {
        "source": found.source,
        "id": found.id,
        "cluster": found.cluster,
        "revisions": [_revision(one) for one in found.revisions],
        "quarantined": list(found.quarantined),
        "billed": [_share(one) for one in found.billed],
    }


def _revision(one: Revision) -> dict[str, Any]:
    return {
        "revision": one.name,
        "status": one.status,
        "start": one.start.isoformat(),
        "end": one.end.isoformat(),
        "recorded_as": one.recorded_seq,
        "received_at": one.received_at.isoformat() if one.received_at else None,
        "origin": one.origin,
        "usage": dict(one.usage),
        "evidence": dict(one.evidence),
    }


def _share(one: BilledShare) -> dict[str, Any]:
    return {
        "charged_in": one.charged_in,
        "document": one.document,
        "month": one.original_month,
        "customer": one.customer,
        "project": one.project,
        "user": one.user,
        "sku": one.sku,
        "quantity": decimal_text(one.quantity, PLACES),
        "unit": one.unit,
        "amount": decimal_text(one.amount / 10 ** minor_digits(one.currency), PLACES),
        "currency": one.currency,
        "recorded_as": one.recorded_seq,
        "blocked": one.blocked,
    }


@router.post(
    "/events/{source:path}/{event_id:path}/amendments",  # noqa: FAST003 - read by EventKey
    status_code=HTTPStatus.CREATED,
    responses=_SAID,
)
def post_amendment(key: EventKey, body: WordBody, caller: Tending, home: ServedHome) -> Response:
    """Amend, retract or revert an event; with dry_run only the effect is told."""
    if body.set and body.word != "amend":
        raise InvalidRequestError(f"a {body.word} sets nothing; leave `set` out")
    word = Word(body.word, body.reason, author(body.by, caller), body.set or None)
    return _answer(say_word(home, *key, word, dry_run=body.dry_run), dry_run=body.dry_run)


def author(by: str, caller: Caller) -> str:
    """Return who speaks: the name given, and the key by which it came."""
    return f"{by} (key {caller.key_id})"


def _answer(said: Spoken, *, dry_run: bool) -> Response:
    effects = [
        {"month": one.month, "closed": one.closed, **{name: one.difference[name] for name in SHOWN}}
        for one in said.effects
    ]
    body = {"word": said.kind, "events": said.events, "batch": said.batch, "effects": effects, "adjusts": said.adjusts}
    return json_response(body, HTTPStatus.OK if dry_run else HTTPStatus.CREATED)


class BackfillParameters(Body):
    """Why, and by whom."""

    reason: Text
    by: Text
    dry_run: bool = False


@router.post(
    "/backfills",
    status_code=HTTPStatus.CREATED,
    responses=_BACKFILL,
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": {}}}}},
)
async def post_backfill(
    request: Request, asked: Annotated[BackfillParameters, Depends()], caller: Tending, home: ServedHome
) -> Response:
    """Bring in usage that no log holds, as CloudEvents; refused whole if anything of it cannot be used."""
    payload = await read_body(request, MAX_BYTES)
    return await run_in_threadpool(_backfill, home, payload, asked, caller)


def _backfill(home: Home, payload: bytes, asked: BackfillParameters, caller: Caller) -> Response:
    collected = read_events(payload, format="json", now=home.now())
    word = Word("backfill", asked.reason, author(asked.by, caller))
    return _answer(backfill(home, collected, word, dry_run=asked.dry_run), dry_run=asked.dry_run)
