"""Collected files as the lake would hold them, and their hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import orjson
import polars as pl

from metering.clusters import Cluster
from metering.events import Collected, RejectedEvent
from metering.identity import mark
from metering.plan import RollupPlan
from metering.rollup import roll_up
from metering.sealing import recorded
from metering.usage import hours

UTC = ZoneInfo("UTC")
PLAN = RollupPlan(zones=("UTC",))


def lake_rows(*files: Collected) -> pl.DataFrame:
    """Lake rows of several files, imported one after the other."""
    rows: list[pl.DataFrame] = []
    for number, collected in enumerate(files, start=1):
        first_seq = sum(part.height for part in rows) + 1
        rows.append(recorded(collected.events, first_seq=first_seq, batch_seq=number))
    return pl.concat(rows)


def statuses(*files: Collected) -> dict[str, int]:
    """How many rows of the files counted, were duplicates, and so on."""
    counted = mark(lake_rows(*files)).group_by("status").len()
    return {str(status): int(count) for status, count in counted.iter_rows()}


def hours_in_all(*files: Collected, clusters: Sequence[Cluster] = ()) -> dict[str, Decimal]:
    """Hours of all events together, each event once, as the rollup counts them."""
    table = hours(roll_up(lake_rows(*files), PLAN), ["cluster"], zone=UTC, clusters=clusters)
    assert table.height == 1
    return {name: Decimal(table[name][0]) for name in ("core_hours", "card_hours", "node_hours", "wall_hours", "jobs")}


def quantities(*files: Collected) -> dict[str, Fraction]:
    """Hours by resource, exactly."""
    sums = roll_up(lake_rows(*files), PLAN).group_by("resource").agg(pl.col("quantity").sum())
    units = {name: 3_600_000 if name.startswith("card:") else 3600 for name in sums["resource"]}
    return {name: Fraction(quantity, units[name]) for name, quantity in sums.iter_rows()}


def only(collected: Collected) -> dict[str, object]:
    """Return the only event of a file, of which nothing was refused."""
    assert not collected.rejected, collected.rejected
    assert collected.events.height == 1
    return collected.events.row(0, named=True)


def refusal(collected: Collected) -> RejectedEvent:
    """Return the only refused row of a file, of which nothing was kept."""
    assert collected.events.is_empty()
    (refused,) = collected.rejected
    return refused


def said(event: Mapping[str, object]) -> dict[str, object]:
    """Return an event's evidence."""
    found: dict[str, object] = orjson.loads(str(event["evidence"]))
    return found
