"""Rolled-up usage: counted once per date of events and kept beside the lake; read by window, plan and moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
from sqlalchemy import Engine
from sqlmodel import Session

from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.kept_counts import keep_change, keep_whole, read_counted
from metering import store
from metering.engine import count_change, count_date
from metering.lake import EventLake
from metering.plan import RollupPlan
from metering.rollup import ROLLUP_SCHEMA, as_rollup, coarser, combine

Progress = Callable[[int, int], None]  # dates done, dates to do

# Two dates at once keep two cores busy, and of a large date each takes some hundred MiB.
DATES_AT_ONCE = min(4, os.cpu_count() or 1)
# A date of fewer events is counted again as fast as it is changed; so is one of which more than a quarter is new.
SMALL_DATE = 20_000
LARGE_CHANGE = 4


class UncutWindowError(ValueError):
    """A plan has no cut at the border of the window asked for, so usage there belongs to neither side."""


@dataclass(frozen=True)
class Window:
    """From which instant until which, exclusive, and as of which recorded event (the latest without)."""

    first: datetime
    end: datetime
    as_of: int | None = None


@dataclass(frozen=True)
class DirtyDate:
    """A date whose events are not all counted."""

    date: str
    recorded_seq: int
    kept: store.RollupPartitionRow | None


@dataclass(frozen=True)
class Counted:
    """What was counted of a date: all of it, or the difference to what is kept."""

    rows: pl.DataFrame  # COUNTED_SCHEMA
    is_change: bool = False


def count_here(lake: EventLake, plan: RollupPlan, dirty: Sequence[DirtyDate]) -> Iterator[tuple[DirtyDate, Counted]]:
    """Count dates on this machine, some at once."""
    with ThreadPoolExecutor(DATES_AT_ONCE) as pool:
        counts = [pool.submit(count_dirty, lake, plan, date) for date in dirty]
        for date, counted in zip(dirty, counts, strict=True):
            yield date, counted.result()


CountDates = Callable[[EventLake, RollupPlan, Sequence[DirtyDate]], Iterator[tuple[DirtyDate, Counted]]]


def roll_up_dirty(
    engine: Engine,
    lake: EventLake,
    plan: RollupPlan,
    now: datetime,
    progress: Progress = lambda _done, _all: None,
    count: CountDates = count_here,
) -> int:
    """Roll up the dates that received events since they were last rolled up under this plan; return how many.

    What is counted depends only on where a plan cuts: a plan with other measures finds all dates counted. Each date is
    kept as soon as it is counted, by whomever, so what is interrupted goes on from there.
    """
    number = _number(engine, plan, now)
    dirty = dirty_dates(engine, lake, number)
    progress(0, len(dirty))
    for done, (date, counted) in enumerate(count(lake, plan, dirty) if dirty else (), start=1):
        keep(engine, lake, number, date, counted)
        progress(done, len(dirty))
    return len(dirty)


def dirty_dates(engine: Engine, lake: EventLake, number: int) -> list[DirtyDate]:
    """Return the dates whose events are not all counted under a plan's cuts."""
    with read_session(engine) as session:
        kept = store.rolled_up(session, number)
        session.expunge_all()
    held = lake.partitions().select("start_date", "recorded_seq").iter_rows()
    return [
        DirtyDate(date, seq, kept.get(date)) for date, seq in held if date not in kept or kept[date].recorded_seq < seq
    ]


def count_dirty(lake: EventLake, plan: RollupPlan, dirty: DirtyDate) -> Counted:
    """Count a date: only what is new where there is little of it and the rest is kept, else all."""
    if dirty.kept is not None:
        part = lake.part(dirty.date, dirty.recorded_seq)
        _, new = part.split(dirty.kept.recorded_seq)
        if (
            part.rows >= SMALL_DATE
            and new.rows <= part.rows // LARGE_CHANGE
            and read_counted(lake, dirty.kept) is not None
        ):
            change = count_change(lake, dirty.date, plan, dirty.kept.recorded_seq, dirty.recorded_seq)
            return Counted(change, is_change=True)
    return Counted(count_date(lake, dirty.date, plan, dirty.recorded_seq))


def keep(engine: Engine, lake: EventLake, number: int, dirty: DirtyDate, counted: Counted) -> None:
    """Keep what was counted of a date for whoever reads it next."""
    if counted.is_change and dirty.kept is not None:
        keep_change(engine, lake, dirty.kept, counted=counted.rows, recorded_seq=dirty.recorded_seq)
    else:
        keep_whole(engine, lake, number, dirty.date, counted=counted.rows, recorded_seq=dirty.recorded_seq)


def _number(engine: Engine, plan: RollupPlan, now: datetime) -> int:
    """Return the number under which what this plan counts is kept; a plan that is new gets one."""
    with read_session(engine) as session:
        known = store.plan_number(session, plan)
        if known is not None:
            return store.number_of_cuts(session, plan) or known

    def register(session: Session) -> int:
        number = store.register_plan(session, plan, now)
        crash_point("plan:before_commit")
        return store.number_of_cuts(session, plan) or number

    number = run_write(engine, register)
    crash_point("plan:after_commit")
    return number


def read_rollup(session: Session, lake: EventLake, plan: RollupPlan, window: Window) -> pl.DataFrame:
    """Return the rolled-up usage of every span in a window.

    What is not rolled up, or was rolled up with later events than `as_of`, is counted from the lake by the same
    function; so is any plan that was never registered.
    """
    names = None
    parts = []
    for date, counted in read_counts(session, lake, plan, window):
        names = names or lake.names()
        parts.append(as_rollup(date, counted, names, plan))
    return combine(parts)


def read_rollup_without(
    session: Session, lake: EventLake, plan: RollupPlan, window: Window, *columns: str
) -> pl.DataFrame:
    """Return the rolled-up usage of a window added up over its dates of start and some of who used it.

    Those columns are empty in it. Whoever needs no users reads far less.
    """
    names = lake.names()
    with ThreadPoolExecutor(DATES_AT_ONCE) as pool:
        counts = read_counts(session, lake, plan, window)
        fewer = list(pool.map(lambda count: coarser(count[1], names, *columns), counts))
    if not fewer:
        return ROLLUP_SCHEMA.to_frame()
    return as_rollup("", pl.concat([counted for counted, _ in fewer]), fewer[0][1], plan)


def read_counts(session: Session, lake: EventLake, plan: RollupPlan, window: Window) -> list[tuple[str, pl.DataFrame]]:
    """Return what was counted of each date, of the spans in a window, in numbers of the lake's dictionaries."""
    latest_date = window.end.astimezone(UTC).date().isoformat()
    # An attempt that ends exactly where the window begins is one of the window's jobs.
    touched = (pl.col("start_date") <= latest_date) & (pl.col("last_second") >= int(window.first.timestamp()))
    kept = store.rolled_up(session, store.number_of_cuts(session, plan))
    heads = list(lake.partitions().filter(touched).select("start_date", "recorded_seq").iter_rows())

    def counted(head: tuple[str, int]) -> tuple[str, pl.DataFrame]:
        date, head_seq = head
        rows = _kept(lake, kept.get(date), head_seq, window.as_of)
        if rows is None:
            rows = count_date(lake, date, plan, window.as_of)
        return date, _within(rows, window)

    with ThreadPoolExecutor(DATES_AT_ONCE) as pool:
        return list(pool.map(counted, heads))


def _kept(
    lake: EventLake, row: store.RollupPartitionRow | None, head_seq: int, as_of: int | None
) -> pl.DataFrame | None:
    """Return what is kept of a date if it is what was asked for."""
    if row is None or row.recorded_seq != head_seq or (as_of is not None and as_of < head_seq):
        return None
    return read_counted(lake, row)


def _within(rows: pl.DataFrame, window: Window) -> pl.DataFrame:
    first, end = (int(instant.timestamp()) for instant in (window.first, window.end))
    touching = rows.filter((pl.col("span_start") < end) & (pl.col("span_end") > first))
    inside = touching.filter((pl.col("span_start") >= first) & (pl.col("span_end") <= end))
    if inside.height != touching.height:
        raise UncutWindowError(
            f"the rollup plan does not cut at {window.first} and {window.end}; name a plan with the zone of these days"
        )
    return inside
