"""What was expected of each cluster and hour against what arrived: gaps, their calendar, and what a person waives."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
from sqlmodel import Session

from base.period import Period, month_period
from hourbook import facts
from hourbook.database import read_session, run_write
from hourbook.settings import Home
from metering import store as metering
from metering.clusters import Cluster
from metering.completeness import (
    GAPS,
    HOUR_SECONDS,
    Arrived,
    HourCheck,
    HourKey,
    Statement,
    arrived,
    check_hour,
)
from metering.identity import AMENDED
from metering.lake import EventLake
from pricing.catalog import Catalog

GAP = "gap"
MOST_HOURS_WAIVED = 24 * 366


class NoGapError(ValueError):
    """There is nothing to waive there."""


@dataclass(frozen=True)
class Run:
    """Consecutive hours of a cluster in one state."""

    first: HourCheck
    last: HourCheck

    @property
    def hours(self) -> int:
        """How many."""
        return (self.last.hour_second - self.first.hour_second) // HOUR_SECONDS + 1

    def __str__(self) -> str:
        end = self.last.hour + timedelta(hours=1)
        numbers = "" if self.first.stated is None else f" ({self.first.arrived} of {self.first.stated} arrived)"
        return f"{self.first.hour:%Y-%m-%dT%H:00Z} to {end:%Y-%m-%dT%H:00Z}: {TOLD[self.first.state]}" + (
            numbers if self.hours == 1 else ""
        )


TOLD = {
    "complete": "complete",
    "quiet": "quiet",
    "missing": "nobody stated what was seen",
    "too_few": "fewer arrived than were stated",
    "differs": "others arrived than were stated",
    "waived": "waived",
    "not_expected": "not expected",
    "not_yet": "not over yet",
}


def state_hours(home: Home, statements: Sequence[Statement], stated_by: str) -> int:
    """Record what a sender saw, durable when this returns; return how many statements were new."""
    return run_write(home.engine, lambda session: metering.add_statements(session, statements, stated_by, home.now()))


def month_hours(session: Session, month: str) -> Period:
    """Return the full hours in UTC that a month touches, in whichever zone it is charged."""
    catalog = Catalog.from_facts(facts.as_of(session))
    zones = {catalog.zone_name, *catalog.customer_zones.values()}
    periods = [month_period(month, ZoneInfo(name)) for name in zones]
    begin = min(int(one.start.timestamp()) for one in periods) // HOUR_SECONDS
    end = -(-max(int(one.end.timestamp()) for one in periods) // HOUR_SECONDS)
    return Period(_instant(begin * HOUR_SECONDS), _instant(end * HOUR_SECONDS))


def check_hours(home: Home, session: Session, period: Period, cluster: str | None = None) -> list[HourCheck]:
    """Return what became of every hour of every described cluster in a period, in order of cluster and hour."""
    described = {name: Cluster.model_validate(body) for name, body in facts.as_of(session).get("cluster", {}).items()}
    wanted = {name: one for name, one in described.items() if cluster is None or name == cluster}
    begin, end = (int(instant.timestamp()) for instant in (period.start, period.end))
    said: dict[tuple[str, int], dict[str, tuple[int, str]]] = defaultdict(dict)
    latest: dict[tuple[str, int], int] = defaultdict(int)
    for row in metering.latest_statements(session, begin, end, wanted):
        said[row.cluster, row.hour_second][row.source] = (row.events, row.checksum)
        latest[row.cluster, row.hour_second] = max(latest[row.cluster, row.hour_second], row.number)
    found = arrivals(EventLake(home.lake), begin, end, {name for name, _ in said})
    waived = _waived(session, wanted)
    checks = []
    for name, hour in itertools.product(sorted(wanted), range(begin, end, HOUR_SECONDS)):
        check = _check(home, wanted[name], hour, said.get((name, hour), {}), found)
        if check.state in GAPS and waived.get((name, hour), -1) >= latest[name, hour]:
            check = replace(check, state="waived")
        checks.append(check)
    return checks


def expects_statements(checks: Iterable[HourCheck]) -> bool:
    """Tell whether anything could be missed at all: whether a statement is due, or was made, of any hour."""
    return any(check.state != "not_expected" for check in checks)


def undescribed(session: Session, clusters: Iterable[str]) -> list[str]:
    """Return those of these clusters that are not described: what is stated of them is kept and never compared."""
    return sorted(set(clusters) - facts.as_of(session).get("cluster", {}).keys())


def not_compared(session: Session, period: Period) -> list[str]:
    """Return the clusters of which something was stated in a period and nothing can be compared."""
    begin, end = (int(instant.timestamp()) for instant in (period.start, period.end))
    return undescribed(session, metering.stated_clusters(session, begin, end))


def _check(
    home: Home, cluster: Cluster, hour: int, stated: Mapping[str, tuple[int, str]], found: Mapping[HourKey, Arrived]
) -> HourCheck:
    expected = cluster.expected_on(_instant(hour).date())
    check = check_hour(cluster.name, hour, stated, found, expected=expected)
    # Who has not spoken yet of an hour that is not over is not silent.
    if check.state == "missing" and _instant(hour + HOUR_SECONDS) > home.now():
        return replace(check, state="not_yet")
    return check


def _waived(session: Session, clusters: Iterable[str]) -> dict[tuple[str, int], int]:
    """Return, by cluster and hour, the latest statement that whoever waived it had seen."""
    return {(row.subject, int(row.detail)): row.basis for row in metering.waivers(session, GAP, clusters)}


def arrivals(lake: EventLake, begin: int, end: int, clusters: Iterable[str]) -> dict[HourKey, Arrived]:
    """Sum up what the lake holds of clusters, by hour of end, date by date: an event never changes its date."""
    names = sorted(clusters)
    if not names:
        return {}
    last_date = _instant(end).date().isoformat()
    touched = lake.partitions().filter((pl.col("start_date") <= last_date) & (pl.col("last_second") >= begin))
    total: dict[HourKey, Arrived] = defaultdict(Arrived)
    for date in touched["start_date"]:
        own = lake.scan([date]).filter(
            pl.col("cluster").is_in(names) & pl.col("ended") & (pl.col("revision") < AMENDED)
        )
        rows = own.select("source", "id", "cluster", "revision", "ended", "end_second").collect()
        for key, found in arrived(rows).items():
            if begin <= key[2] < end:
                total[key] = total[key] + found
    return total


def _instant(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def runs_of(checks: Iterable[HourCheck]) -> Iterator[Run]:
    """Put consecutive hours of a cluster that are in one state together."""
    for _, group in itertools.groupby(enumerate(checks), key=lambda one: (one[1].cluster, one[1].state)):
        run = [check for _, check in group]
        yield Run(run[0], run[-1])


def gaps(home: Home, session: Session, month: str) -> dict[str, list[Run]]:
    """Return the gaps of a month by cluster: hours that are over and not accounted for."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs_of(check_hours(home, session, month_hours(session, month))):
        if run.first.state in GAPS:
            found[run.first.cluster].append(run)
    return found


def waive(home: Home, cluster: str, period: Period, *, reason: str, by: str) -> list[Run]:
    """Accept the gaps of a cluster in a period as they are now; what is stated of them later opens them again."""
    if (period.end - period.start) / timedelta(hours=1) > MOST_HOURS_WAIVED:
        raise NoGapError(f"that is more than {MOST_HOURS_WAIVED} hours; waive a month at a time")
    with read_session(home.engine) as session:
        checks = [one for one in check_hours(home, session, period, cluster) if one.state in GAPS]
        begin, end = int(period.start.timestamp()), int(period.end.timestamp())
        seen: dict[int, int] = defaultdict(int)
        for row in metering.latest_statements(session, begin, end, [cluster]):
            seen[row.hour_second] = max(seen[row.hour_second], row.number)
    if not checks:
        raise NoGapError(f"there is no gap of {cluster!r} there; `hourbook gaps --month MONTH` shows them")
    waivers = [metering.Waiver(GAP, cluster, str(one.hour_second), seen[one.hour_second]) for one in checks]
    run_write(
        home.engine,
        lambda session: metering.add_waivers(session, waivers, reason=reason, waived_by=by, now=home.now()),
    )
    return list(runs_of(checks))


def run_body(run: Run) -> dict[str, Any]:
    """Return consecutive hours as they are told."""
    first, one = run.first, run.hours == 1
    return {
        "cluster": first.cluster,
        "first_hour": f"{first.hour:%Y-%m-%dT%H:00:00Z}",
        "hours": run.hours,
        "state": first.state,
        "stated": first.stated if one else None,
        "arrived": first.arrived if one else None,
        "silent": list(first.silent),
    }
