"""Starts that are not an event's own: which rows have one, and the rows that strike them from their partition.

An event lies in the partition of its start, and what counts of it is judged there. Under a second start it would count
twice, so its rows under every start but the first recorded are struck. The strike is a row like any other: it has a
recorded number, and as of a number before it nothing changes.
"""

from __future__ import annotations

import polars as pl

from metering.events import EVENT_SCHEMA, LAKE_SCHEMA
from metering.identity import KEY, STRUCK, STRUCK_STATE
from metering.sealing import HELD_SCHEMA, START_CHANGED, start_changed_message

# What is read of an event to find its starts.
START_COLUMNS = (*KEY, "revision", "start_second", "recorded_seq", "start_date", "key_hash")
WRONG_SCHEMA = pl.Schema([*((name, LAKE_SCHEMA[name]) for name in START_COLUMNS), ("known", pl.Int64())])


def wrong_starts(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of events at another date than the first recorded row of the event; strikes are not among them.

    The rows must be all that is recorded of their events.
    """
    own = (
        rows.filter(pl.col("revision") < STRUCK)
        .sort("recorded_seq")
        .with_columns(known=pl.col("start_second").first().over(KEY), home=pl.col("start_date").first().over(KEY))
    )
    return own.filter(pl.col("start_date") != pl.col("home")).select(WRONG_SCHEMA.names())


def unstruck(wrong: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the first of the wrong rows of each event and date, where no strike is recorded yet."""
    place = [*KEY, "start_date"]
    strikes = rows.filter(pl.col("revision") >= STRUCK)
    return wrong.unique(place, keep="first", maintain_order=True).join(strikes, on=place, how="anti")


def strikes(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the events that strike lake rows, of which the start `known` before is told, from their partitions."""
    said = pl.struct(
        reason=pl.lit("recorded before with another start"),
        by=pl.lit("start check"),
        word=pl.lit("strike"),
        start_second="known",
    )
    nothing = {name: pl.lit(0) for name in ("suspended_seconds", "cpus", "nodes", "memory_bytes")}
    return rows.with_columns(
        revision=pl.lit(STRUCK),
        revision_derived=pl.lit(value=False),
        state=pl.lit(STRUCK_STATE),
        end_second="start_second",
        ended=pl.lit(value=True),
        cards=pl.lit(""),
        counters=pl.lit(""),
        evidence=said.struct.json_encode(),
        **nothing,
    ).select([pl.col(name).cast(kind) for name, kind in EVENT_SCHEMA.items()])


def listed(rows: pl.DataFrame) -> pl.DataFrame:
    """Return lake rows, of which the start `known` before is told, as quarantine lists them."""
    message = start_changed_message(pl.col("known"))
    return rows.with_columns(code=pl.lit(START_CHANGED), message=message).select(HELD_SCHEMA.names())
