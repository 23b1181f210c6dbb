"""`GET /v1/usage`: hours and jobs of any days, by any fields."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache
from typing import Annotated
from zoneinfo import available_timezones

from fastapi import APIRouter, Query, Response
from pydantic import Field

from hourbook.api.access import UsageReader
from hourbook.api.bodies import MISSING, REFUSALS, Body, json_response
from hourbook.database import read_session
from hourbook.errors import InvalidRequestError, NotAllowedError
from hourbook.keys import Caller
from hourbook.serving import MAX_ID, ServedHome
from hourbook.usage_report import COLUMNS, FIELDS, METERED_FIELDS, UnknownFieldError, UsageQuery, usage_report
from hourbook.viewing import whose

LONGEST = timedelta(days=366)
LONGEST_HOURLY = timedelta(days=31)
FIRST, LAST = date(2000, 1, 1), date(2199, 12, 31)

router = APIRouter(prefix="/v1", tags=["usage"], responses={**REFUSALS, **MISSING})


class UsageParameters(Body):
    """Which days, both included, by which fields, in whose zone."""

    first: date = Field(alias="from", ge=FIRST, le=LAST)
    last: date = Field(alias="to", ge=FIRST, le=LAST)
    by: str = Field(default="cluster", max_length=200, description=f"Comma-separated: {' '.join(FIELDS)}")
    timezone: str | None = Field(default=None, max_length=MAX_ID, description="Whose days; default the billing zone")
    customer: str | None = Field(default=None, max_length=MAX_ID, description="Only this one's; a customer: its own")


class UsageBody(Body):
    """Hours are decimals as text, rounded from the exact sum to six places."""

    rows: list[dict[str, str | int]]


@router.get("/usage", response_model=UsageBody)
def get_usage(asked: Annotated[UsageParameters, Query()], caller: UsageReader, home: ServedHome) -> Response:
    """Return usage: finance sees all of it, a customer its own, an operator all of it as it was metered."""
    fields = _fields(asked.by)
    _check_metered(caller, fields, asked.customer)
    query = UsageQuery(asked.first, asked.last, fields, asked.timezone, whose(caller, asked.customer))
    _check(query)
    with read_session(home.engine) as session:
        frame = usage_report(home, session, query)
    rows = frame.select(*query.fields, *COLUMNS).to_dicts()
    return json_response({"rows": [{name: _text(value) for name, value in row.items()} for row in rows]})


def _fields(by: str) -> tuple[str, ...]:
    fields = tuple(name.strip() for name in by.split(",") if name.strip())
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise UnknownFieldError(unknown)
    if len(set(fields)) < len(fields):
        raise InvalidRequestError(f"by={by} names a field twice")
    return fields


def _check_metered(caller: Caller, fields: tuple[str, ...], customer: str | None) -> None:
    """Refuse an operator what is known only together with customers and SKUs: that is finance's."""
    if caller.role != "operator":
        return
    sold = [name for name in fields if name not in METERED_FIELDS] + (["customer"] if customer is not None else [])
    if sold:
        raise NotAllowedError(
            f"a key of role operator sees usage by {', '.join(METERED_FIELDS)}; "
            f"{', '.join(dict.fromkeys(sold))} needs the role finance"
        )


def _check(query: UsageQuery) -> None:
    if query.last < query.first:
        raise InvalidRequestError(f"to={query.last} lies before from={query.first}")
    longest = LONGEST_HOURLY if "hour" in query.fields else LONGEST
    if query.last - query.first >= longest:
        raise InvalidRequestError(f"ask for at most {longest.days} days at once")
    if query.timezone is not None and query.timezone not in _zones():
        raise InvalidRequestError(f"{query.timezone!r} is no time zone; write it as Asia/Shanghai")


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _text(value: object) -> str | int:
    return value if isinstance(value, int) else str(value)
