"""Runaways: a running attempt that nobody ended counts no longer than its time limit and a grace.

Accounting sometimes loses the end of a job: its row says RUNNING, and grows, for ever. What is counted of it depends on
the row and on its cluster's dated settings alone, never on when it is read. A later row that has ended replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import orjson
import polars as pl

from metering.clusters import DEFAULT_RUNAWAY_GRACE, Cluster
from metering.events import EVENT_SCHEMA

LIMIT = "time_limit_seconds"
RUNAWAY = "runaway"  # key of the evidence: what the row stated before it was capped
_SECONDS_OF_DATE = 86_400


def limit_seconds() -> pl.Expr:
    """Return the time limit that a row's evidence states; NULL where there is none."""
    text = pl.col("evidence").str.json_path_match(f"$.{LIMIT}")
    return pl.when(text.str.contains(r"^[0-9]{1,10}$")).then(text).cast(pl.Int64)


def is_runaway() -> pl.Expr:
    """Tell which rows were capped."""
    return pl.col("evidence").str.json_path_match(f"$.{RUNAWAY}.stated_end_second").is_not_null()


def stated_end() -> pl.Expr:
    """Return the second until which each row said that it ran, before it was capped."""
    # Where the key does not stand in the text nothing is parsed: that is nearly everywhere.
    capped = ~pl.col("ended") & pl.col("evidence").str.contains(f'"{RUNAWAY}"', literal=True)
    stated = pl.when(capped).then("evidence").str.json_path_match(f"$.{RUNAWAY}.stated_end_second")
    return pl.coalesce(stated.cast(pl.Int64, strict=False), "end_second").alias("stated_end_second")


def may_be_runaway(events: pl.DataFrame) -> bool:
    """Tell whether any row could need a cap: it runs, and a time limit is known."""
    return bool(events.select(_has_limit().any()).item())


def _has_limit() -> pl.Expr:
    return ~pl.col("ended") & pl.col("evidence").str.contains(f'"{LIMIT}"', literal=True)


def cap(events: pl.DataFrame, clusters: Mapping[str, Cluster]) -> pl.DataFrame:
    """Count running attempts up to their time limit and their cluster's grace; the rest stays as it is.

    Suspended time is no part of a time limit. The evidence of a capped row keeps the end that was stated.
    """
    running = events.with_row_index("row").filter(_has_limit())
    if running.is_empty():
        return events
    allowed = limit_seconds() + pl.col("suspended_seconds") + _grace(running, clusters)
    beyond = running.with_columns(cap_second=pl.col("start_second") + allowed).filter(
        pl.col("cap_second") < pl.col("end_second")
    )
    if beyond.is_empty():
        return events
    evidence = [_capped(text, end) for text, end in beyond.select("evidence", "end_second").iter_rows()]
    rows = beyond["row"]
    return events.with_columns(
        end_second=events["end_second"].scatter(rows, beyond["cap_second"]),
        evidence=events["evidence"].scatter(rows, pl.Series(evidence, dtype=pl.String)),
    ).select(list(EVENT_SCHEMA))


def _grace(running: pl.DataFrame, clusters: Mapping[str, Cluster]) -> pl.Series:
    """Return the grace of each attempt: of its cluster, on the day of UTC on which it started."""
    days = (running["start_second"] // _SECONDS_OF_DATE).alias("day")
    places = running.select("cluster", days).unique()
    found = [_grace_of(clusters.get(cluster), day) for cluster, day in places.iter_rows()]
    looked_up = places.with_columns(pl.Series("grace", found, dtype=pl.Int64))
    return running.select("cluster", days).join(looked_up, on=["cluster", "day"], how="left", maintain_order="left")[
        "grace"
    ]


def _grace_of(cluster: Cluster | None, day: int) -> int:
    if cluster is None:
        return DEFAULT_RUNAWAY_GRACE
    return cluster.runaway_grace_on(datetime.fromtimestamp(day * _SECONDS_OF_DATE, UTC).date())


def _capped(evidence: str, stated_end_second: int) -> str:
    said = orjson.loads(evidence)
    return orjson.dumps({**said, RUNAWAY: {"stated_end_second": stated_end_second}}).decode()
