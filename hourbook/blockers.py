"""What keeps a month from being closed: each by name, with the command that resolves it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, timedelta
from zoneinfo import ZoneInfo

from sqlmodel import Session

from base.period import month_of, month_period, next_month_start
from hourbook.accruing import open_months
from hourbook.completeness import gaps
from hourbook.deriving import DerivedMonth
from hourbook.reading import Reading
from hourbook.runaways import OpenAttempt, undecided
from hourbook.settings import Home
from metering import store as metering
from pricing.assignment import assign
from pricing.catalog import Catalog

TOLD_AT_MOST = 3  # gaps, or runaways, that a message names


@dataclass(frozen=True)
class Blocker:
    """One thing that must be decided first."""

    code: str
    message: str
    command: str  # that resolves it


def blockers_of(home: Home, session: Session, month: str, derived: DerivedMonth) -> Iterator[Blocker]:
    """Yield everything that blocks the close of a month: what is open in it, and what came late for months before."""
    yield from _not_over(home, month, derived.catalog)
    latest = _latest_utc_month(month, derived.catalog)
    for entry in metering.quarantine(session, status="open"):
        # An entry of no known month could be of this one.
        if entry.month <= latest:
            yield Blocker(entry.code, f"{entry.id}: {entry.message}", _deciding(entry.id))
    yield from _gaps(home, session, month)
    yield from _runaways(home, session, month, derived.catalog)
    for exception in derived.assignment.exceptions:
        if exception.month <= month:
            yield Blocker(
                exception.code, f"{exception.id}: {exception.message}", _resolving(exception.id, exception.code)
            )


def _deciding(name: str) -> str:
    return f"hourbook quarantine show {name}, then hourbook resolve {name} --write-off (or --dismiss) --reason TEXT"


def _resolving(name: str, code: str) -> str:
    if code == "unassigned":
        return f"hourbook resolve {name} --map CUSTOMER/PROJECT --reason TEXT"
    return f"hourbook apply … with what is missing, or hourbook resolve {name} --write-off --reason TEXT"


def _gaps(home: Home, session: Session, month: str) -> Iterator[Blocker]:
    """Yield the clusters whose senders left hours of the month unaccounted for."""
    for cluster, runs in gaps(home, session, month).items():
        told = "; ".join(str(run) for run in runs[:TOLD_AT_MOST])
        more = f"; and {len(runs) - TOLD_AT_MOST} more" if len(runs) > TOLD_AT_MOST else ""
        hours = sum(run.hours for run in runs)
        first, last = runs[0].first.hour, runs[-1].last.hour + timedelta(hours=1)
        span = f"--from {first:%Y-%m-%dT%H:00:00Z} --to {last:%Y-%m-%dT%H:00:00Z}"
        yield Blocker(
            "gap",
            f"{cluster}: {hours} hour(s) of {month} are not accounted for: {told}{more}",
            f"collect {cluster} again for these hours, or hourbook gaps waive {cluster} {span} --reason TEXT --by NAME",
        )


def _runaways(home: Home, session: Session, month: str, catalog: Catalog) -> Iterator[Blocker]:
    """Yield the clusters with attempts that count up to their time limit only because nobody ended them.

    What is charged of them rests on a limit and not on what happened, so a person looks before it is on a document.
    """
    end = max(month_period(month, zone).end for zone in _zones(catalog))
    by_cluster: dict[str, list[OpenAttempt]] = defaultdict(list)
    for one in undecided(home, session, end):
        by_cluster[one.cluster].append(one)
    for cluster, found in by_cluster.items():
        names = ", ".join(f"{one.id} of {one.source}" for one in found[:TOLD_AT_MOST])
        more = f" and {len(found) - TOLD_AT_MOST} more" if len(found) > TOLD_AT_MOST else ""
        yield Blocker(
            "runaway",
            f"{cluster}: {len(found)} attempt(s) never ended and count up to their time limit: {names}{more}",
            "mend the accounting (sacctmgr show runaway) and collect again; or hourbook event amend SOURCE ID --set "
            f"end=…; or hourbook runaways accept --cluster {cluster} --reason TEXT --by NAME",
        )


def _zones(catalog: Catalog) -> list[ZoneInfo]:
    return [ZoneInfo(name) for name in sorted({catalog.zone_name, *catalog.customer_zones.values()})]


def _not_over(home: Home, month: str, catalog: Catalog) -> Iterator[Blocker]:
    for zone in _zones(catalog):
        if home.now() < month_period(month, zone).end:
            yield Blocker(
                "not_over", f"{month} is not over in {zone.key} yet", "wait until it is, or hourbook close --dry-run"
            )


def _latest_utc_month(month: str, catalog: Catalog) -> str:
    """Return the last month, as UTC reckons it, that this one reaches into: quarantine knows no other."""
    ends = [month_period(month, zone).end - timedelta(seconds=1) for zone in _zones(catalog)]
    return max(month_of(end.astimezone(UTC).date()) for end in ends)


def earlier_months(home: Home, session: Session, month: str, reading: Reading) -> Iterator[Blocker]:
    """Yield what stands before a month: earlier months with usage or purchases to charge, or a later one closed."""
    settled = max(reading.closed, default="")
    if month < settled:
        following = month_of(next_month_start(month_period(settled, ZoneInfo("UTC")).start.date()))
        yield Blocker(
            "settled",
            f"{settled} is closed, so {month} is settled; what comes late for it is charged with {following}",
            f"hourbook close {following}",
        )
    earlier = [one for one in open_months(home, session, reading.closed) if one < month]
    if not earlier:
        return
    catalog = reading.catalog()
    assignment = assign(reading.usage(catalog, earlier[0], earlier[-1]), catalog)
    used = {f"{day:%Y-%m}" for day in assignment.usage["day"].unique()} | {e.month for e in assignment.exceptions}
    used |= {f"{charge.on:%Y-%m}" for charge in catalog.one_offs.values()}
    for one in earlier:
        leased = any(
            f"{lease.valid_from:%Y-%m}" <= one <= f"{lease.last_day:%Y-%m}" for lease in catalog.leases.values()
        )
        if one in used or leased:
            yield Blocker("earlier_month", f"{one} has charges and is not closed", f"hourbook close {one}")
