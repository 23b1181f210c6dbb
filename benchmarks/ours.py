"""The made-up month in Hourbook itself: events into the lake, dates into rollups, rollups into charges."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from base.period import month_period
from benchmarks.sample_catalog import MONTH, ZONE, catalog
from benchmarks.sample_month import batches
from hourbook.database import create_home, open_home, read_session
from hourbook.rollups import Window, read_rollup, read_rollup_without, roll_up_dirty
from hourbook.settings import Home, Settings
from metering.lake import EventLake
from metering.sealing import recorded
from pricing.assignment import assign
from pricing.rating import rate_all

NOW = datetime(2026, 12, 2, tzinfo=UTC)
CHARGES = {"customer": pl.String, "sku": pl.String, "quantity": pl.Int64, "amount_minor": pl.Int64}


def fill(folder: Path, events: int) -> None:
    """Write so many events into a new lake, a batch after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    lake = EventLake(folder / "lake")
    first_seq = 1
    for batch_seq, batch in enumerate(batches(events), start=1):
        lake.append(recorded(batch, first_seq=first_seq, batch_seq=batch_seq), batch_seq)
        first_seq += batch.height


@contextmanager
def opened(folder: Path, *, afresh: bool = False) -> Iterator[Home]:
    """Open the home of the made-up month, beside its lake; afresh: one in which nothing is rolled up."""
    path = folder / "home"
    settings = Settings(database_url="", lake=str(folder / "lake"))
    if afresh:
        for old in (path, folder / "lake" / "rollup"):
            shutil.rmtree(old, ignore_errors=True)
        create_home(path, settings=settings).close()
    home = open_home(path, settings=settings)
    try:
        yield home
    finally:
        home.close()


def roll_up(home: Home) -> int:
    """Roll up what is not rolled up; return how many dates that were."""
    return roll_up_dirty(home.engine, EventLake(home.lake), catalog().rollup_plan(), NOW)


def charges(home: Home) -> pl.DataFrame:
    """Charge the month, from rollups; what each user's share of a line is, documents ask for by themselves."""
    terms = catalog()
    with read_session(home.engine) as session:
        rollup = read_rollup_without(session, EventLake(home.lake), terms.rollup_plan(), _month(), "user")
    assigned = assign(rollup, terms)
    if assigned.exceptions:
        raise RuntimeError(f"usage cannot be charged: {assigned.exceptions[:3]}")
    lines = rate_all(assigned.usage, terms, month=MONTH, packs={})
    rows = [(c, line.key.sku, line.quantity, line.amount_minor) for c, own in lines.items() for line in own]
    return pl.DataFrame(rows, schema=CHARGES, orient="row").sort("customer", "sku")


def usage(home: Home) -> pl.DataFrame:
    """Return the month's rollup, added up over the dates of start, one row for all resources."""
    with read_session(home.engine) as session:
        rollup = read_rollup(session, EventLake(home.lake), catalog().rollup_plan(), _month())
    who = ("cluster", "partition", "qos", "account", "user")
    resource = pl.col("resource")
    return (
        rollup.with_columns(d=pl.col("span_start").dt.convert_time_zone(ZONE).dt.date().cast(pl.Int32).cast(pl.Int64))
        .group_by("d", *who)
        .agg(
            cpu=pl.col("quantity").filter(resource == "cpu").sum(),
            node=pl.col("quantity").filter(resource == "node").sum(),
            wall=pl.col("quantity").filter(resource == "wall").sum(),
            card=pl.col("quantity").filter(resource.str.starts_with("card:")).sum(),
            jobs=pl.col("jobs").sum(),
        )
        .sort("d", *who)
    )


def _month() -> Window:
    period = month_period(MONTH, catalog().zone())
    return Window(period.start, period.end)
