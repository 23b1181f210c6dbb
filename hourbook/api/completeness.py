"""Statements of what senders saw, the gaps they show, runaways, and what a person accepts of both."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, Field
from starlette.concurrency import run_in_threadpool

from base.period import Period
from hourbook.api.access import Collector, GapReader, Tending
from hourbook.api.bodies import REFUSALS, Body, ErrorBody, Responses, json_response
from hourbook.api.event_words import Text, author
from hourbook.completeness import (
    check_hours,
    expects_statements,
    month_hours,
    not_compared,
    run_body,
    runs_of,
    state_hours,
    undescribed,
    waive,
)
from hourbook.database import read_session
from hourbook.errors import InvalidRequestError, NotAllowedError
from hourbook.keys import Caller
from hourbook.runaways import accept_runaways, open_attempts
from hourbook.serving import ServedHome, read_body
from hourbook.settings import Home
from hourbook.statements import MAX_STATEMENTS, read_statements

MAX_BYTES = 4 * 1024 * 1024

router = APIRouter(prefix="/v1", tags=["completeness"], responses=REFUSALS)


class Stated(Body):
    """Statements that are on disk; `new` differ from what was stated before."""

    statements: int
    new: int
    not_compared: list[str]  # clusters that are not described: what is stated of them is kept, and used once they are


_STATEMENT = {
    "type": "object",
    "required": ["cluster", "source", "hour", "events"],
    "properties": {
        "cluster": {"type": "string"},
        "source": {"type": "string"},
        "hour": {"type": "string", "format": "date-time"},
        "events": {"type": "integer", "minimum": 0},
        "checksum": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    },
}
_SCHEMA = {"schema": {"type": "array", "items": _STATEMENT, "maxItems": MAX_STATEMENTS}}
_RESPONSES: Responses = {
    202: {"model": Stated, "description": "Durable"},
    413: {"model": ErrorBody, "description": f"More than {MAX_BYTES:,} bytes"},
}


@router.post(
    "/statements",
    status_code=HTTPStatus.ACCEPTED,
    responses=_RESPONSES,
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": _SCHEMA}}},
)
async def post_statements(request: Request, caller: Collector, home: ServedHome) -> Response:
    """Take what a sender saw end in hours of its cluster: how many attempts, and their checksum; 0 is a heartbeat."""
    payload = await read_body(request, MAX_BYTES)
    return await run_in_threadpool(_state, home, payload, caller)


def _state(home: Home, payload: bytes, caller: Caller) -> Response:
    found = read_statements(payload)
    others = sorted({one.cluster for one in found if not caller.may_report(one.cluster)})
    if others:
        raise NotAllowedError(f"this key does not report of {', '.join(others)}")
    new = state_hours(home, found, caller.key_id)
    with read_session(home.engine) as session:
        unknown = undescribed(session, {one.cluster for one in found})
    body = {"statements": len(found), "new": new, "not_compared": unknown}
    return json_response(body, HTTPStatus.ACCEPTED)


class GapParameters(Body):
    """Which month, and which cluster."""

    month: str = Field(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")
    cluster: str | None = Field(default=None, max_length=64)


class HoursBody(Body):
    """Consecutive hours of a cluster in one state; numbers where it is one hour."""

    cluster: str
    first_hour: str
    hours: int
    state: str
    stated: int | None
    arrived: int | None
    silent: list[str]  # sources that should have spoken


class GapsBody(Body):
    """Every hour of a month, in runs."""

    month: str
    statements_expected: bool  # false: no cluster has `reports` set for this month, so that no gap can be seen
    not_compared: list[str]  # clusters of which something was stated, and which are not described
    runs: list[HoursBody]


@router.get("/gaps", response_model=GapsBody)
def get_gaps(asked: Annotated[GapParameters, Query()], caller: GapReader, home: ServedHome) -> Response:
    """Return what was stated of each hour (UTC) against what arrived; a collector sees its own clusters."""
    if asked.month < "2000-01" or asked.month > "2199-12":
        raise InvalidRequestError("ask for a month from 2000-01 to 2199-12")
    with read_session(home.engine) as session:
        period = month_hours(session, asked.month)
        checks = check_hours(home, session, period, asked.cluster)
        unknown = not_compared(session, period)
    seen = [one for one in checks if _shown(caller, one.cluster)]
    body = {
        "month": asked.month,
        "statements_expected": expects_statements(seen),
        "not_compared": [name for name in unknown if _shown(caller, name) and asked.cluster in {None, name}],
        "runs": [run_body(run) for run in runs_of(seen)],
    }
    return json_response(body)


def _shown(caller: Caller, cluster: str) -> bool:
    return caller.role != "collector" or caller.may_report(cluster)


class WaiverBody(Body):
    """Which hours a person accepts as they are, and why."""

    cluster: str = Field(min_length=1, max_length=64)
    first: AwareDatetime = Field(alias="from")
    end: AwareDatetime = Field(alias="to")
    reason: Text
    by: Text


class WaivedBody(Body):
    """What was accepted."""

    runs: list[HoursBody]


@router.post("/gaps/waivers", status_code=HTTPStatus.CREATED, responses={201: {"model": WaivedBody}})
def post_waiver(body: WaiverBody, caller: Tending, home: ServedHome) -> Response:
    """Accept the gaps of a cluster as they are; a statement that comes later opens them again."""
    if body.end <= body.first or not _within_reason(body.first, body.end):
        raise InvalidRequestError("`to` lies after `from`, both from 2000 to 2199")
    period = Period(body.first, body.end)
    runs = waive(home, body.cluster, period, reason=body.reason, by=author(body.by, caller))
    return json_response({"runs": [run_body(run) for run in runs]}, HTTPStatus.CREATED)


def _within_reason(*instants: datetime) -> bool:
    return all(2000 <= one.year < 2200 for one in instants)  # noqa: PLR2004 - the calendar's ends are nobody's gap


class AttemptBody(Body):
    """A running attempt that was capped, or of which nothing was heard for a day; instants are in UTC."""

    kind: Literal["runaway", "stale"]
    source: str
    id: str
    cluster: str
    account: str
    user: str
    cpus: int
    cards: str
    start: str
    counted_until: str
    stated_until: str
    last_heard: str
    waived: str


class RunawaysBody(Body):
    """Attempts that nobody ended."""

    attempts: list[AttemptBody]


@router.get("/runaways", response_model=RunawaysBody)
def get_runaways(caller: Tending, home: ServedHome) -> Response:
    """List attempts that count up to their time limit because nobody ended them, and those that fell silent."""
    del caller  # it may
    with read_session(home.engine) as session:
        found = open_attempts(home, session)
    shown = [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in vars(one).items()}
        for one in found
    ]
    return json_response({"attempts": shown})


class AcceptanceBody(Body):
    """Which runaway a person accepts as counted, or all of a cluster, and why."""

    source: str = Field(default="", max_length=256)
    id: str = Field(default="", max_length=256)
    cluster: str = Field(default="", max_length=64)
    reason: Text
    by: Text


class AcceptedBody(Body):
    """How many were accepted."""

    accepted: int


@router.post("/runaways/acceptances", status_code=HTTPStatus.CREATED, responses={201: {"model": AcceptedBody}})
def post_acceptance(body: AcceptanceBody, caller: Tending, home: ServedHome) -> Response:
    """Accept what is counted of runaways; an end that comes later still replaces it."""
    if bool(body.source and body.id) == bool(body.cluster):
        raise InvalidRequestError("name one runaway by source and id, or a cluster")
    chosen = None if body.cluster else (body.source, body.id)
    found = accept_runaways(home, chosen, cluster=body.cluster, reason=body.reason, by=author(body.by, caller))
    return json_response({"accepted": len(found)}, HTTPStatus.CREATED)
