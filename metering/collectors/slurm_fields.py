"""The cells of sacct rows as columns of numbers: instants, durations, states and what was allocated."""

from __future__ import annotations

from datetime import UTC, date
from zoneinfo import ZoneInfo

import polars as pl

from base.period import day_start
from metering.clusters import Cluster
from metering.collectors.tres import GresRules, TresError, gres_rules, read_alloc_tres

# States of an attempt that goes on; an End beside them is not its end.
LIVE_STATES = ("RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "SIGNALING", "STAGE_OUT", "STOPPED")
FINAL_STATES = (
    *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE"),
    *("OUT_OF_MEMORY", "LAUNCH_FAILED", "RECONFIG_FAIL", "REVOKED"),
)
# States of an attempt that may be over or not: it is over if the row has an End.
OTHER_STATES = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESIZING", "RESV_DEL_HOLD", "SPECIAL_EXIT")
STATES = (*LIVE_STATES, *FINAL_STATES, *OTHER_STATES)

# How sacct writes that something is not there.
ABSENT = ("", "0", "Unknown", "None", "NONE", "N/A")
UNASSIGNED = "None assigned"
ENDED_REVISION = 2**40

# The end of the year 9999, beyond which there are no dates.
LAST_SECOND = 253_402_300_799

_NAIVE = "%Y-%m-%dT%H:%M:%S"
_DURATION = r"^(?:([0-9]{1,6})-)?(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{2})(?:\.[0-9]+)?$"
_NUMBER = r"^[0-9]{1,15}$"
ID_PATTERN = r"^[0-9]{1,18}(?:[_+][0-9]{1,18})?$"


def whole_number(name: str) -> pl.Expr:
    """Read a column of whole numbers; anything else is null."""
    text = pl.col(name)
    return pl.when(text.str.contains(_NUMBER)).then(text).cast(pl.Int64)


def naive_time(name: str) -> pl.Expr:
    """Read a column's times that name no zone; anything else is null."""
    return pl.col(name).str.to_datetime(_NAIVE, strict=False, time_unit="us")


def instant(name: str, zone: ZoneInfo | None) -> pl.Expr:
    """Read times as seconds since 1970 UTC; null where there is none or the clock shows it twice or never."""
    naive = naive_time(name).dt.replace_time_zone(str(zone or UTC), ambiguous="null", non_existent="null")
    offset = pl.col(name).str.to_datetime(_NAIVE + "%z", strict=False, time_unit="us")
    seconds = pl.coalesce(whole_number(name), naive.dt.epoch("s"), offset.dt.epoch("s"))
    return pl.when(seconds.is_between(1, LAST_SECOND)).then(seconds)


def duration(name: str) -> pl.Expr:
    """Read a column of seconds, or of `[D-]HH:MM:SS`, as seconds."""
    parts = pl.col(name).str.extract_groups(_DURATION)
    days, hours, minutes, seconds = (parts.struct.field(str(i)).cast(pl.Int64) for i in range(1, 5))
    clock = days.fill_null(0) * 86_400 + hours.fill_null(0) * 3600 + minutes * 60 + seconds
    return pl.coalesce(whole_number(name), clock)


def absent(name: str) -> pl.Expr:
    """Tell where a column says nothing."""
    return pl.col(name).is_in(ABSENT)


def with_numbers(cells: pl.DataFrame, zone: ZoneInfo | None, *, suspended_known: bool) -> pl.DataFrame:
    """Add what the cells say as numbers: submit, start, end, elapsed and suspended seconds, state, whether it ended."""
    numbers = cells.with_columns(
        pl.col("State").str.extract(r"^\s*(\S+)").str.to_uppercase().fill_null("").alias("state"),
        instant("Submit", zone).alias("submit"),
        instant("Start", zone).alias("began"),
        instant("End", zone).alias("finished"),
        pl.coalesce(whole_number("ElapsedRaw"), duration("Elapsed")).alias("elapsed"),
        pl.when(absent("Suspended")).then(0).otherwise(duration("Suspended")).alias("suspended"),
    ).with_columns((pl.col("finished").is_not_null() & ~pl.col("state").is_in(LIVE_STATES)).alias("ended"))
    if not suspended_known:
        # Slurm's elapsed time is End − Start − Suspended, so an ended row tells what its missing column would have.
        gap = pl.col("finished") - pl.col("began") - pl.col("elapsed")
        numbers = numbers.with_columns(
            pl.when(pl.col("ended") & (gap > 0)).then(gap).otherwise(pl.col("suspended")).alias("suspended")
        )
    return numbers.with_columns(
        # A resized job's row keeps the first Start; its own time begins with its Submit, the moment of the resize.
        pl.max_horizontal("began", "submit").alias("start_second"),
        pl.when("ended")
        .then("finished")
        # Of a job that runs on, so far as its row states; clocks may differ by a second after a resize.
        .otherwise(pl.max_horizontal(pl.col("began") + pl.col("elapsed") + pl.col("suspended"), "submit"))
        .alias("end_second"),
    )


def with_allocation(rows: pl.DataFrame, cluster: Cluster) -> pl.DataFrame:
    """Add what AllocTRES says, by the card rules in force when the attempt started; each text is read once."""
    days = sorted({card.effective_from for card in cluster.cards})
    borders = [int(day_start(day, cluster.zone or ZoneInfo("UTC")).timestamp()) for day in days]
    started = ((pl.col("began") >= border).fill_null(value=False).cast(pl.Int64) for border in borders)
    regime = pl.sum_horizontal(pl.lit(0), *started)
    rows = rows.with_columns(regime.cast(pl.Int64).alias("regime"))
    known = rows.select("AllocTRES", "regime").unique()
    rules = [gres_rules(cluster, day) for day in (date.min, *days)]
    readings = [_read(text, regime, rules[regime]) for text, regime in known.iter_rows()]
    schema = {"AllocTRES": pl.String, "regime": pl.Int64, "a_cpus": pl.Int64, "a_nodes": pl.Int64}
    schema |= {"a_memory": pl.Int64, "cards": pl.String, "tres_code": pl.String, "tres_message": pl.String}
    readings_frame = pl.DataFrame(readings, schema=schema, orient="row")
    return rows.join(readings_frame, on=["AllocTRES", "regime"], how="left", maintain_order="left").with_columns(
        pl.coalesce("a_cpus", whole_number("AllocCPUS"), whole_number("NCPUS")).alias("cpus"),
        pl.coalesce("a_nodes", whole_number("AllocNodes"), whole_number("NNodes")).alias("nodes"),
        pl.col("a_memory").fill_null(0).alias("memory_bytes"),
    )


def _read(text: str, regime: int, rules: GresRules) -> tuple[str | int | None, ...]:
    try:
        held = read_alloc_tres(text, rules)
    except TresError as error:
        return text, regime, None, None, None, "", error.code, str(error)
    return text, regime, held.cpus, held.nodes, held.memory_bytes, held.cards, None, None
