"""The calendar of gaps with runaways, for who tends usage; and one event from end to end, for whoever may see it."""

from __future__ import annotations

import itertools
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Query, Request, Response

from base.period import each_month, month_of
from hourbook.completeness import check_hours, expects_statements, month_hours, not_compared, runs_of
from hourbook.database import read_session
from hourbook.event_history import EventHistory, event_history
from hourbook.importing import catalog_of
from hourbook.keys import Caller
from hourbook.runaways import open_attempts
from hourbook.serving import home_of
from hourbook.settings import Home
from hourbook.viewing import check_counted
from hourbook.web.rendering import render_page
from hourbook.web.signing import SignedIn, SomeVisitor, Tending, keep_awake
from metering.amendments import UnknownEventError
from metering.completeness import GAPS, HourCheck, State

router = APIRouter(include_in_schema=False)

MONTHS_SHOWN = 6
LONGEST_KEY = 256
# A sign per hour beside its colour, so that nobody depends on colours.
SIGNS: dict[State, str] = {
    "complete": "•",
    "quiet": "o",
    "waived": "w",
    "missing": "×",
    "too_few": "<",
    "differs": "≠",
    "not_expected": "–",
    "not_yet": " ",
}

Month = Annotated[str | None, Query(pattern=r"^2[01][0-9]{2}-(0[1-9]|1[0-2])$")]
Key = Annotated[str, Query(max_length=LONGEST_KEY)]


@router.get("/gaps")
def gaps_page(
    request: Request, caller: Tending, visitor: SomeVisitor, later: BackgroundTasks, month: Month = None
) -> Response:
    """Show what was stated of each hour against what arrived, and the attempts that nobody ended."""
    del caller  # it may
    home = home_of(request)
    later.add_task(keep_awake, home, visitor)
    this = month_of(home.today(catalog_of(home).zone()))
    shown = month or this
    with read_session(home.engine) as session:
        period = month_hours(session, shown)
        checks = check_hours(home, session, period)
        unknown = not_compared(session, period)
        attempts = open_attempts(home, session)
    values = {
        "month": shown,
        "months": _months_until(this),
        "clusters": _by_cluster_and_day(checks),
        "expected": expects_statements(checks),
        "not_compared": unknown,
        "signs": SIGNS,
        "used": [state for state in SIGNS if any(check.state == state for check in checks)],
        "gaps": [run for run in runs_of(checks) if run.first.state in GAPS],
        "attempts": attempts,
    }
    return render_page(request, "gaps.html", visitor, None, here="gaps", **values)


def _months_until(last: str) -> list[str]:
    year, number = int(last[:4]), int(last[5:])
    first = year * 12 + number - MONTHS_SHOWN
    return list(reversed(list(each_month(f"{first // 12:04}-{first % 12 + 1:02}", last))))


def _by_cluster_and_day(checks: list[HourCheck]) -> dict[str, dict[str, list[HourCheck | None]]]:
    """Return the hours of each cluster and day of UTC, each at its place; those outside the month are None."""
    clusters: dict[str, dict[str, list[HourCheck | None]]] = {}
    for (cluster, day), hours in itertools.groupby(checks, key=lambda one: (one.cluster, one.hour.date().isoformat())):
        row: list[HourCheck | None] = [None] * 24
        for check in hours:
            row[check.hour.hour] = check
        clusters.setdefault(cluster, {})[day] = row
    return clusters


@router.get("/events")
def event_page(
    request: Request,
    caller: SignedIn,
    visitor: SomeVisitor,
    later: BackgroundTasks,
    source: Key = "",
    event_id: Annotated[str, Query(alias="id", max_length=LONGEST_KEY)] = "",
) -> Response:
    """Show one event as far as the caller may see it: its rows, which counts, and what it was billed as."""
    home = home_of(request)
    later.add_task(keep_awake, home, visitor)
    asked = bool(source and event_id)
    event = _event(home, caller, source, event_id) if asked else None
    unknown = asked and event is None
    values: dict[str, Any] = {"source": source, "event_id": event_id, "event": event, "unknown": unknown}
    customer = catalog_of(home).customers.get(caller.customer)
    language = customer.language if customer else None
    page = render_page(request, "event.html", visitor, language, here="events", **values)
    page.status_code = HTTPStatus.NOT_FOUND if unknown else HTTPStatus.OK
    return page


def _event(home: Home, caller: Caller, source: str, event_id: str) -> EventHistory | None:
    """Return what a caller may see of an event; another's does not exist."""
    with read_session(home.engine) as session:
        check_counted(session)
        try:
            return event_history(home, session, source, event_id).seen_by(caller)
        except UnknownEventError:
            return None
