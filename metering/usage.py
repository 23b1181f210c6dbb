"""The hours view: rolled-up usage by any fields, in hours that are exact until they are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import date
from zoneinfo import ZoneInfo

import polars as pl

from base.frames import guard_sum
from metering.clusters import Cluster
from metering.events import CARD_DENOMINATOR

HOURS = ("core_hours", "card_hours", "node_hours", "wall_hours")
ROLLUP_FIELDS = ("hour", "day", "month", "cluster", "partition", "qos", "account", "user")
_HOUR_SECONDS = 3600
_MILLIONTHS = 10**6


def hours(
    rollup: pl.DataFrame, fields: Sequence[str], *, zone: ZoneInfo, clusters: Iterable[Cluster] = ()
) -> pl.DataFrame:
    """Group rolled-up usage by fields, with core-, card-, node- and wall-hours and the jobs that ended there.

    Hours are text with 6 decimals, rounded half away from zero from the exact sum. `hour`, `day` and `month` are of
    the zone, whose days the rollup must have been cut at; any other field is a column of the rollup as given, so that
    a caller may have joined `customer` or `sku` to it. A cluster that is not given counts one CPU per core.
    """
    dated = with_times(rollup, zone)
    missing = [field for field in fields if field not in dated.columns]
    if missing:
        raise ValueError(f"unknown field(s) {', '.join(missing)}; known are {', '.join(ROLLUP_FIELDS)}")
    _refuse_uncut(rollup, dated, zone, "hour" if "hour" in fields else "day")
    threads = _cpus_per_core(dated, clusters)
    whole_core = math.lcm(*threads["cpus_per_core"].to_list(), 1)
    # Counted in parts of a core that every cluster's CPU is a whole number of.
    dated = dated.join(threads, on=["cluster", "day"], how="left", maintain_order="left")
    weight = whole_core // pl.col("cpus_per_core")
    guard_sum(dated, "quantity", "jobs")
    sums = dated.group_by(fields or pl.lit(1).alias("all")).agg(
        core_hours=_sum(pl.col("resource") == "cpu", weight),
        card_hours=_sum(pl.col("resource").str.starts_with("card:")),
        node_hours=_sum(pl.col("resource") == "node"),
        wall_hours=_sum(pl.col("resource") == "wall"),
        jobs=pl.col("jobs").sum(),
    )
    parts = dict.fromkeys(HOURS, _HOUR_SECONDS) | {
        "core_hours": whole_core * _HOUR_SECONDS,
        "card_hours": CARD_DENOMINATOR * _HOUR_SECONDS,
    }
    texts = [six_decimals(pl.col(name), per_hour).alias(name) for name, per_hour in parts.items()]
    return sums.select(*fields, *texts, "jobs").sort(fields or "jobs")


def with_times(rollup: pl.DataFrame, zone: ZoneInfo) -> pl.DataFrame:
    """Add the local `hour`, `day` and `month` in which each span begins, as text; an hour states its offset."""
    local = pl.col("span_start").dt.convert_time_zone(zone.key)
    return rollup.with_columns(
        hour=local.dt.strftime("%Y-%m-%dT%H:00%:z"), day=local.dt.strftime("%Y-%m-%d"), month=local.dt.strftime("%Y-%m")
    )


def six_decimals(parts: pl.Expr, per_hour: int) -> pl.Expr:
    """Write `parts ÷ per_hour`, of parts that are not negative, with 6 decimals, halves rounded up."""
    # Int128: a million times a sum near the guard passes Int64.
    millionths = (parts.cast(pl.Int128) * (2 * _MILLIONTHS) + per_hour) // (2 * per_hour)
    whole = (millionths // _MILLIONTHS).cast(pl.Int64).cast(pl.String)
    return whole + "." + (millionths % _MILLIONTHS).cast(pl.Int64).cast(pl.String).str.zfill(6)


def _refuse_uncut(rollup: pl.DataFrame, dated: pl.DataFrame, zone: ZoneInfo, field: str) -> None:
    last = with_times(rollup.with_columns(span_start=pl.col("span_end") - pl.duration(microseconds=1)), zone)
    uncut = dated.filter(dated[field] != last[field])
    if not uncut.is_empty():
        start, end = uncut.row(0, named=True)["span_start"], uncut.row(0, named=True)["span_end"]
        raise ValueError(f"usage from {start} to {end} was not cut at each {field} of {zone.key}; use a plan that does")


def _sum(rows: pl.Expr, weight: pl.Expr | None = None) -> pl.Expr:
    quantity = pl.col("quantity").cast(pl.Int128)
    return (quantity if weight is None else quantity * weight).filter(rows).sum()


def _cpus_per_core(dated: pl.DataFrame, clusters: Iterable[Cluster]) -> pl.DataFrame:
    """Look up the CPUs per core of each cluster and day that occur."""
    known = {cluster.name: cluster for cluster in clusters}
    pairs = dated.select("cluster", "day").unique()
    threads = [
        known[name].cpus_per_core_on(date.fromisoformat(day)) if name in known else 1 for name, day in pairs.iter_rows()
    ]
    return pairs.with_columns(pl.Series("cpus_per_core", threads, dtype=pl.Int64))
