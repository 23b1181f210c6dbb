"""Rolled-up usage: counted once per date of events and kept beside the lake; read by window, plan and moment."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from sqlalchemy import Engine
from sqlmodel import Session

from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from metering import store
from metering.lake import EventLake
from metering.plan import RollupPlan
from metering.rollup import ROLLUP_SCHEMA, combine, roll_up

Progress = Callable[[int, int], None]  # dates done, dates to do


class UncutWindowError(ValueError):
    """A plan has no cut at the border of the window asked for, so usage there belongs to neither side."""


@dataclass(frozen=True)
class Window:
    """From which instant until which, exclusive, and as of which recorded event (the latest without)."""

    first: datetime
    end: datetime
    as_of: int | None = None


def roll_up_dirty(
    engine: Engine, lake: EventLake, plan: RollupPlan, now: datetime, progress: Progress = lambda _done, _all: None
) -> int:
    """Roll up the dates that received events since they were last rolled up under this plan; return how many."""
    number = _number(engine, plan, now)
    with read_session(engine) as session:
        counted = {date: row.recorded_seq for date, row in store.rolled_up(session, number).items()}
    held = lake.partitions()
    dates = zip(held["start_date"].to_list(), held["recorded_seq"].to_list(), strict=True)
    dirty = [date for date, recorded_seq in dates if counted.get(date, 0) < recorded_seq]
    progress(0, len(dirty))
    for done, date in enumerate(dirty, start=1):
        _roll_up_date(engine, lake, plan, number, date)
        progress(done, len(dirty))
    return len(dirty)


def _number(engine: Engine, plan: RollupPlan, now: datetime) -> int:
    """Return the plan's number; a plan that is new gets one."""
    with read_session(engine) as session:
        known = store.plan_number(session, plan)
    if known is not None:
        return known

    def register(session: Session) -> int:
        number = store.register_plan(session, plan, now)
        crash_point("plan:before_commit")
        return number

    number = run_write(engine, register)
    crash_point("plan:after_commit")
    return number


def read_rollup(session: Session, lake: EventLake, plan: RollupPlan, window: Window) -> pl.DataFrame:
    """Return the rolled-up usage of every span in a window.

    What is not rolled up, or was rolled up with later events than `as_of`, is counted from the lake by the same
    function; so is any plan that was never registered.
    """
    latest_date = window.end.astimezone(UTC).date().isoformat()
    # An attempt that ends exactly where the window begins is one of the window's jobs.
    touched = (pl.col("start_date") <= latest_date) & (pl.col("last_second") >= int(window.first.timestamp()))
    rolled_up = store.rolled_up(session, store.plan_number(session, plan))
    parts = []
    for date, head_seq in lake.partitions().filter(touched).select("start_date", "recorded_seq").iter_rows():
        rows = _kept(lake, rolled_up.get(date), head_seq, window.as_of)
        if rows is None:
            rows = roll_up(lake.scan([date], as_of=window.as_of).collect(), plan)
        parts.append(_within(rows, window))
    return combine(parts)


def _roll_up_date(engine: Engine, lake: EventLake, plan: RollupPlan, number: int, date: str) -> None:
    events = lake.scan([date]).collect()
    recorded_seq = events["recorded_seq"].max()
    assert isinstance(recorded_seq, int)  # noqa: S101 - the date holds events
    file = f"{number}/{date}-{recorded_seq}.parquet"
    _write(roll_up(events, plan), _folder(lake) / file)

    def register(session: Session) -> str:
        unneeded = store.register_partition(session, date, number, recorded_seq=recorded_seq, file=file)
        session.flush()
        crash_point("rollup:before_commit")
        return unneeded

    unneeded = run_write(engine, register)
    crash_point("rollup:after_commit")
    if unneeded:
        (_folder(lake) / unneeded).unlink(missing_ok=True)


def _kept(
    lake: EventLake, row: store.RollupPartitionRow | None, head_seq: int, as_of: int | None
) -> pl.DataFrame | None:
    """Return a date's kept rollup if it is what was asked for."""
    if row is None or row.recorded_seq != head_seq or (as_of is not None and as_of < head_seq):
        return None
    try:
        return pl.read_parquet(_folder(lake) / row.file, schema=ROLLUP_SCHEMA)
    except FileNotFoundError:  # it can always be counted again
        return None


def _within(rows: pl.DataFrame, window: Window) -> pl.DataFrame:
    touching = rows.filter((pl.col("span_start") < window.end) & (pl.col("span_end") > window.first))
    inside = touching.filter((pl.col("span_start") >= window.first) & (pl.col("span_end") <= window.end))
    if inside.height != touching.height:
        raise UncutWindowError(
            f"the rollup plan does not cut at {window.first} and {window.end}; name a plan with the zone of these days"
        )
    return inside


def _write(rollup: pl.DataFrame, path: Path) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with unfinished.open("wb") as file:
        rollup.write_parquet(file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _folder(lake: EventLake) -> Path:
    return lake.root / "rollup"
