"""Logs in the Standard Workload Format, as the Parallel Workloads Archive keeps them.

A line has 18 whole numbers, -1 where something is not known; times count from the header's `UnixStartTime`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import BaseModel, ConfigDict

from metering.clusters import Cluster
from metering.collectors.common import (
    TIME_MESSAGES,
    Judgement,
    LogFileError,
    Outcome,
    collected,
    evidence,
    first_of,
    impossible_times,
    log_lines,
)
from metering.events import Collected

FIELDS = (
    *("number", "submit", "wait", "run_time", "allocated", "cpu_time_used", "memory_used", "requested"),
    *("time_limit", "memory_requested", "status", "user_number", "group", "application", "queue", "partition_number"),
    *("preceding", "think_time"),
)
_STATES = {"0": "FAILED", "1": "COMPLETED", "5": "CANCELLED", "-1": "UNKNOWN"}
# Bursts of a job that was checkpointed; another line sums them up.
_BURSTS = ("2", "3", "4")
_KIBIBYTE = 1024

_MESSAGES = {
    **TIME_MESSAGES,
    "broken_row": "line has {found} fields instead of 18 whole numbers; restore it from the archive",
    "unknown_state": "job {job} has status {status_text}, which the format does not know",
    "start_unknown": "job {job} has no waiting time, so that its start is not known; where a log's submit times are "
    "start times, import it with submit_is_start = true",
    "duration_unknown": "job {job} has no run time; look it up at the site",
    "cpus_missing": "job {job} ran, but the number of its allocated processors is not known (requested: {requested})",
}


class SwfOptions(BaseModel):
    """What a log in the Standard Workload Format does not say itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unix_start_time: int | None = None  # where the header does not state it
    submit_is_start: bool = False  # the log's submit times are start times where the waiting time is not known


def read_swf(
    payload: bytes, *, cluster: Cluster, timezone: ZoneInfo | None = None, options: SwfOptions | None = None
) -> Collected:
    """Read a log in the Standard Workload Format; its times count in UTC, so that no zone is needed."""
    del timezone
    settings = options or SwfOptions()
    log = log_lines(payload)
    comment = pl.col("text").str.starts_with(";")
    origin = _origin(log.lines.filter(comment)["text"], settings)
    rows = _numbers(log.lines.filter(~comment), origin, settings)
    rows = rows.with_columns(verdict=first_of(_outcomes()))
    judgement = Judgement(rows, _MESSAGES, f"swf:{cluster.name}", cluster, log.raw)
    # A refused row that is read again alone must still know from when its times count.
    head = {"head": f"; UnixStartTime: {origin}"}
    return replace(collected(judgement, _notes(rows, settings)), reading=head)


def _origin(header: pl.Series, settings: SwfOptions) -> int:
    """Return the instant from which the log's times count."""
    stated = header.str.extract(r"^;\s*UnixStartTime:\s*([0-9]{1,12})\s*$").drop_nulls()
    if settings.unix_start_time is not None:
        return settings.unix_start_time
    if stated.is_empty():
        raise LogFileError("the header states no UnixStartTime, from which all times count; give unix_start_time")
    return int(stated[0])


def _numbers(lines: pl.DataFrame, origin: int, settings: SwfOptions) -> pl.DataFrame:
    """Lay the lines out in numbers and work out when each job ran."""
    cells = pl.col("text").str.extract_all(r"\S+")
    rows = lines.select("line", cells.alias("cells"), whole=pl.col("text").str.contains(_ROW))
    rows = rows.with_columns(
        pl.col("cells").list.len().alias("found"),
        *(pl.col("cells").list.get(at, null_on_oob=True).alias(name) for at, name in enumerate(FIELDS)),
    ).drop("cells")
    as_number = [pl.when("whole").then(pl.col(name)).cast(pl.Int64, strict=False).alias(name) for name in FIELDS]
    rows = rows.with_columns(pl.col("status").alias("status_text"), pl.col("number").fill_null("").alias("job"))
    rows = rows.with_columns(as_number)
    wait = pl.col("wait")
    if settings.submit_is_start:
        wait = pl.when(wait < 0).then(0).otherwise(wait)
    start = pl.when((wait >= 0) & (pl.col("submit") >= 0)).then(pl.col("submit") + wait + origin)
    return rows.with_columns(start_second=start).with_columns(
        end_second=pl.when(pl.col("run_time") >= 0).then(pl.col("start_second") + pl.col("run_time")),
        id=pl.when("whole").then(pl.format("{}:{}", "number", pl.col("submit") + origin)),
        state=pl.col("status_text").replace_strict(_STATES, default="", return_dtype=pl.String),
        cpus=pl.max_horizontal("allocated", 0),
        memory_bytes=pl.max_horizontal("memory_requested", 0) * pl.max_horizontal("allocated", 0) * _KIBIBYTE,
        user=_named("user_number"),
        account=_named("group"),
        qos=_named("queue"),
        partition=_named("partition_number"),
        suspended_seconds=pl.lit(0, pl.Int64),
        evidence=evidence(
            pl.col("line"),
            **{name: pl.col(name) for name in ("status", "requested", "time_limit", "cpu_time_used", "application")},
        ),
    )


# Used CPU time and memory are averages and may have a fraction.
_WHOLE, _AVERAGE = r"-?[0-9]{1,12}\s+", r"-?[0-9]{1,12}(?:\.[0-9]+)?\s+"
_ROW = rf"^\s*(?:{_WHOLE}){{5}}(?:{_AVERAGE}){{2}}(?:{_WHOLE}){{10}}-?[0-9]{{1,12}}\s*$"


def _named(field: str) -> pl.Expr:
    """Return a number that stands for a name as text; -1 is none."""
    return pl.when(pl.col(field) >= 0).then(pl.col(field).cast(pl.String)).otherwise(pl.lit(""))


def _outcomes() -> Sequence[Outcome]:
    never = (pl.col("run_time") <= 0) & (pl.col("wait") < 0) & (pl.col("status") == 5)  # noqa: PLR2004 - cancelled
    return [
        (~pl.col("whole"), "broken_row"),
        (pl.col("status_text").is_in(_BURSTS), "-part_of_a_job"),
        (pl.col("state") == "", "unknown_state"),
        (never, "-never_started"),
        (pl.col("start_second").is_null(), "start_unknown"),
        (pl.col("end_second").is_null(), "duration_unknown"),
        *impossible_times(),
        ((pl.col("allocated") <= 0) & (pl.col("run_time") > 0), "cpus_missing"),
    ]


def _notes(rows: pl.DataFrame, settings: SwfOptions) -> list[str]:
    notes = ["the format knows no nodes and no cards: node-hours and card-hours are 0"]
    guessed = rows.filter(pl.col("verdict").is_null(), pl.col("wait") < 0).height
    if settings.submit_is_start and guessed:
        notes.append(f"{guessed} job(s) without a waiting time are taken to have started when they were submitted")
    return notes
