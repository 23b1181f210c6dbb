"""Pages for who tends usage: the calendar of gaps with runaways, and one event from end to end."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Query, Request, Response

from base.period import each_month, month_of
from hourbook.completeness import check_hours, month_hours, runs_of
from hourbook.database import read_session
from hourbook.errors import NotFoundError
from hourbook.event_history import event_history
from hourbook.importing import catalog_of
from hourbook.runaways import open_attempts
from hourbook.serving import home_of
from hourbook.viewing import check_counted
from hourbook.web.rendering import render_page
from hourbook.web.signing import SomeVisitor, Tending, keep_awake
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
        checks = check_hours(home, session, month_hours(session, shown))
        attempts = open_attempts(home, session)
    values = {
        "month": shown,
        "months": _months_until(this),
        "clusters": _by_cluster_and_day(checks),
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
    caller: Tending,
    visitor: SomeVisitor,
    later: BackgroundTasks,
    source: Key = "",
    event_id: Annotated[str, Query(alias="id", max_length=LONGEST_KEY)] = "",
) -> Response:
    """Show one event: every row recorded of it, which counts, and what it was billed as."""
    del caller  # it may
    home = home_of(request)
    later.add_task(keep_awake, home, visitor)
    values: dict[str, Any] = {"source": source, "event_id": event_id, "event": None}
    if source and event_id:
        with read_session(home.engine) as session:
            check_counted(session)
            try:
                values["event"] = event_history(home, session, source, event_id)
            except UnknownEventError as error:
                raise NotFoundError from error
    return render_page(request, "event.html", visitor, None, here="events", **values)
