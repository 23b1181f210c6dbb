"""I12, for usage: seconds counted from the lake by plain sums, against the rollup and against what was done with it.

None of metering's code for winners, cuts or spans is used: the latest row of each event is found by sorting, of equal
ones the one with the greater canonical text, and an attempt's seconds in a month are simply its overlap with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from zoneinfo import ZoneInfo

import polars as pl
from sqlmodel import Session

from base.period import month_period
from hourbook.audit import Finding
from hourbook.closes import closes_by_month
from hourbook.database import read_session
from hourbook.reading import Pins, Reading
from hourbook.settings import Home
from metering.identity import AMENDED, REVERTED, STRUCK, canonical_facts
from metering.lake import EventLake
from metering.runaways import stated_end
from pricing.assignment import assign


def check_usage(home: Home) -> Iterator[Finding]:
    """I12: what was used in each closed month was charged, included, written off or named, to the second."""
    with read_session(home.engine) as session:
        for month, pins in closes_by_month(session).items():
            yield from _month(home, session, month, pins)


def _month(home: Home, session: Session, month: str, pins: Pins) -> Iterator[Finding]:
    reading = Reading(home, session, pins, {})
    catalog = reading.catalog()
    period = month_period(month, ZoneInfo(catalog.zone_name))
    rollup = reading.usage_between(period.start, period.end)
    counted: dict[str, int] = dict(rollup.group_by("resource").agg(pl.col("quantity").sum()).iter_rows())
    plain, exact_cpu = _plain_seconds(home, pins, int(period.start.timestamp()), int(period.end.timestamp()))
    for resource in sorted({*plain, *(name for name in counted if name.split(":")[0] in {"node", "wall", "card"})}):
        if resource == "cpu" and not exact_cpu:
            continue
        if plain.get(resource, 0) != counted.get(resource, 0):
            both = {"lake": plain.get(resource, 0), "rollup": counted.get(resource, 0)}
            yield Finding("I12", "the rollup and the lake differ", {"month": month, "resource": resource, **both})
    for resource, sums in assign(rollup, catalog).sums.items():
        placed = sums.assigned + sums.included + sums.excepted + sums.written_off
        if placed != counted.get(resource, 0):
            both = {"rollup": counted.get(resource, 0), "placed": placed}
            yield Finding("I12", "usage went nowhere, or twice", {"month": month, "resource": resource, **both})


def _plain_seconds(home: Home, pins: Pins, begin: int, end: int) -> tuple[dict[str, int], bool]:
    """Sum seconds of the latest row of every event within a window; say whether suspended seconds fell inside it."""
    lake = EventLake(home.lake)
    # Whole dates: the row that counts may end before the window though an earlier one reached into it.
    dates = lake.partitions().filter(pl.col("last_second") > begin)["start_date"].to_list()
    rows = lake.scan(dates, as_of=pins.recorded_seq).collect()
    # At one revision the event's own word stands as first recorded; of a log the later end, then the greater text. Rows
    # that stated the same count as the first of them was capped.
    latest = (
        _without_taken_back(rows)
        .with_columns(
            late=pl.when("revision_derived").then(stated_end()).otherwise(-pl.col("recorded_seq")),
            text=pl.when("revision_derived").then(canonical_facts()).otherwise(pl.lit("")),
        )
        .sort("revision", "late", "text", -pl.col("recorded_seq"))
        # By date, too: a strike is the last word in its partition, and says nothing of the event's own.
        .group_by("source", "id", "start_date")
        .last()
    )
    # An event that holds nothing takes back what was said before.
    held = (pl.max_horizontal("cpus", "nodes", "memory_bytes") > 0) | (pl.col("cards") != "")
    inside = (
        latest.filter(held | (pl.col("counters") != ""))
        .with_columns(
            seconds=(pl.min_horizontal("end_second", pl.lit(end)) - pl.max_horizontal("start_second", pl.lit(begin)))
        )
        .filter(pl.col("seconds") > 0)
    )
    whole = (pl.col("start_second") >= begin) & (pl.col("end_second") <= end)
    exact_cpu = inside.filter((pl.col("suspended_seconds") > 0) & ~whole).is_empty()
    sums = inside.select(
        cpu=(pl.col("cpus") * (pl.col("seconds") - pl.col("suspended_seconds"))).sum(),
        node=(pl.col("nodes") * pl.col("seconds")).sum(),
        wall=pl.col("seconds").sum(),
    ).row(0, named=True)
    cards = (
        inside.filter(pl.col("cards") != "")
        .select("seconds", pl.col("cards").str.split(";"))
        .explode("cards")
        .select(
            model=pl.lit("card:") + pl.col("cards").str.split(":").list.first(),
            quantity=pl.col("cards").str.split(":").list.last().cast(pl.Int64) * pl.col("seconds"),
        )
        .group_by("model")
        .agg(pl.col("quantity").sum())
    )
    return {**sums, **dict(cards.iter_rows())}, exact_cpu


def _without_taken_back(rows: pl.DataFrame) -> pl.DataFrame:
    """Leave out an operator's words up to the last one that takes them back."""
    reverts = rows.filter((pl.col("state") == REVERTED) & pl.col("revision").is_between(AMENDED, STRUCK, closed="left"))
    event = ["source", "id", "start_date"]
    upto = reverts.group_by(event).agg(upto=pl.col("revision").max())
    kept = pl.col("upto").is_null() | (pl.col("revision") < AMENDED) | (pl.col("revision") > pl.col("upto"))
    return rows.join(upto, on=event, how="left").filter(kept).drop("upto")
