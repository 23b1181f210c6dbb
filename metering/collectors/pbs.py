"""Accounting logs of PBS Pro, OpenPBS and Torque: `MM/DD/YYYY HH:MM:SS;TYPE;id;key=value key=value …`.

The time in front is local and only says when the line was written; `start` and `end` are seconds of UTC.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import BaseModel, ConfigDict

from metering.clusters import Cluster
from metering.collectors.common import (
    TIME_MESSAGES,
    Judgement,
    Outcome,
    broken_text,
    collected,
    evidence,
    first_of,
    impossible_times,
    log_lines,
    number,
)
from metering.collectors.held import HELD_MESSAGES, allocation_problems, as_columns, with_held
from metering.collectors.pbs_held import TEXTS, read_held
from metering.collectors.slurm_fields import ENDED_REVISION
from metering.events import Collected

# What other records than those of an attempt's end are about.
_REASONS = {
    "Q": "queued",
    "D": "deleted",
    "A": "aborted",
    "L": "licence",
    "M": "moved",
    "C": "checkpointed",
    "T": "restarted",
    "a": "altered",
    "z": "suspended",
    "r": "resumed",
    "c": "phase",
    **dict.fromkeys("Ss", "started"),
    **dict.fromkeys("BFKkUY", "reservation"),
    **dict.fromkeys("Pp", "provisioning"),
}
_ENDS = ("E", "R")
# A job that gave nodes back while it ran is told in phases; its E record alone would count all nodes to the end.
_PHASES = ("u", "e")

_HEADER = r"^([0-9]{2}/[0-9]{2}/[0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?;([A-Za-z]);([^;\s]*);(.*)$"
_FIELDS = {
    **{name: name for name in ("user", "group", "account", "project", "queue", "jobname", "ctime", "start", "end")},
    **{name: name for name in ("exec_host", "exec_vnode", "exec_gpus", "Exit_status", "run_count")},
    **{name: f"Resource_List.{name}" for name in ("nodes", "neednodes", "nodect", "select", "place")},
    "memory": "Resource_List.mem",
    "limit": "Resource_List.walltime",
    "walltime": "resources_used.walltime",
}
_MARK = "\x1f"
_MAY_REPEAT = frozenset({"jobname", "group", "run_count", "limit", "walltime"})
# Whole numbers that were asked for: ncpus, ngpus, gpu, dcus and whatever else a site calls its cards.
_REQUESTED = r"(?:^|\s)Resource_List\.[A-Za-z_]\w*=[0-9]+(?:\.[0-9]+)?\b(?::|\S)?"
_WALLTIME_EXCEEDED = -29

_MESSAGES = {
    **TIME_MESSAGES,
    **HELD_MESSAGES,
    "broken_row": "line is no accounting record (MM/DD/YYYY HH:MM:SS;type;id;fields); was a record cut in two?",
    "unknown_type": "record type {type} of job {job} is unknown, and so is whether it tells of usage",
    "invalid_bytes": "job {job} has bytes that are no UTF-8 in its names; export it again as UTF-8",
    "repeated_field": "record of job {job} has {repeated} twice: a value with blanks in it may be forged",
    "released_nodes": "job {job} gave nodes back while it ran (record type {type}); work out by hand what it held when",
    "array_summary": "record {job} stands for a whole job array and yet names hosts; its subjobs are counted each",
    "naive_time": "record of job {job} has no end, and the local time in front of it ({written}) needs a zone: "
    "declare the cluster's",
    "ambiguous_time": "record of job {job} has no end, and the clock showed {written} twice or never",
}


class PbsOptions(BaseModel):
    """Which field of a record names the account."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    account_from: Literal["account", "project", "group"] = "account"


def read_pbs(
    payload: bytes, *, cluster: Cluster, timezone: ZoneInfo | None = None, options: PbsOptions | None = None
) -> Collected:
    """Read an accounting log of PBS; a zone is needed only for records that state no end of their own."""
    settings = options or PbsOptions()
    log = log_lines(payload)
    rows = _fields(log.lines)
    rows = _numbers(rows, timezone or cluster.zone, settings)
    rows = with_held(rows, TEXTS, read_held, cluster).with_columns(as_columns())
    rows = rows.with_columns(verdict=first_of(_outcomes(cluster, zoned=bool(timezone or cluster.zone))))
    judgement = Judgement(rows, _MESSAGES, f"pbs:{cluster.name}", cluster, log.raw)
    return collected(judgement, _notes(rows))


def _fields(lines: pl.DataFrame) -> pl.DataFrame:
    """Lay the records out in their fields. A value runs to the next key, as it may hold blanks."""
    parts = pl.col("text").str.extract_groups(_HEADER).struct.rename_fields(["written", "type", "job", "said"])
    rows = lines.select("line", parts.alias("parts")).unnest("parts")
    # What stands in quotes is a value and has no keys.
    plain = pl.col("said").str.replace_all(r'="[^"]*"', "=")
    # A mark before each key lets every field be found by plain text, which is many times as fast.
    marked = pl.concat_str(pl.lit(" "), plain).str.replace_all(r"\s+([A-Za-z_][\w.]*=)", _MARK + "${1}")
    rows = rows.with_columns(plain=plain, marked=marked)
    fields = [_value(name, key).alias(name) for name, key in _FIELDS.items()]
    twice = [
        pl.when(pl.col("marked").str.count_matches(f"{_MARK}{key}=", literal=True) > 1).then(pl.lit(key))
        for name, key in _FIELDS.items()
        if name not in _MAY_REPEAT
    ]
    requested = pl.col("plain").str.extract_all(_REQUESTED).list.eval(_whole_request()).list.drop_nulls()
    return rows.with_columns(*fields, requested=requested.list.join(" "), repeated=pl.coalesce(twice))


def _value(name: str, key: str) -> pl.Expr:
    key = re.escape(key)
    plain = pl.col("marked").str.extract(rf"{_MARK}{key}=([^{_MARK}]*)").str.strip_chars_end()
    if name not in {"account", "project", "jobname"}:
        return plain
    quoted = pl.col("said").str.extract(rf'(?:^|\s){key}="([^"]*)"')
    return pl.coalesce(quoted, plain)


def _whole_request() -> pl.Expr:
    """Keep `ngpus=4` of what was asked for; sizes, times and lists of nodes are read elsewhere."""
    return pl.element().str.extract(r"Resource_List\.([A-Za-z_]\w*=[0-9]+(?:\.[0-9]+)?)$")


def _numbers(rows: pl.DataFrame, zone: ZoneInfo | None, settings: PbsOptions) -> pl.DataFrame:
    """Work out when each attempt ran and how it ended."""
    written = pl.col("written").str.to_datetime("%m/%d/%Y %H:%M:%S", strict=False, time_unit="us")
    if zone is None:
        written_second = pl.lit(None, pl.Int64)
    else:
        written_second = written.dt.replace_time_zone(zone.key, ambiguous="null", non_existent="null").dt.epoch("s")
    status = pl.col("Exit_status").cast(pl.Int64, strict=False)
    rerun = pl.when(pl.col("type") == "R").then(pl.lit("REQUEUED"))
    timeout = rerun.when(status == 0).then(pl.lit("COMPLETED")).when(status == _WALLTIME_EXCEEDED)
    ended_how = timeout.then(pl.lit("TIMEOUT")).when(status.is_not_null())
    start, end = number(pl.col("start")), number(pl.col("end"))
    rows = rows.with_columns(
        start_second=start,
        end_second=pl.when(pl.col("type") == "E").then(pl.coalesce(end, written_second)).otherwise(end),
        state=ended_how.then(pl.lit("FAILED")).otherwise(pl.lit("UNKNOWN")),
        suspended_seconds=pl.lit(0, pl.Int64),
        partition=pl.col("queue").fill_null(""),
        account=_account(settings),
        job=pl.col("job").fill_null(""),
    )
    # A rerun writes a record of its own beside or instead of the one of the end; where both are there, the end counts.
    weight = pl.when(pl.col("type") == "R").then(ENDED_REVISION // 2).otherwise(ENDED_REVISION)
    return rows.with_columns(
        # The start tells attempts apart; numbers of jobs begin anew with a new database.
        id=pl.when(pl.col("type").is_in(_ENDS)).then(pl.format("{}:{}", "job", "start_second")),
        revision=pl.col("end_second") - pl.col("start_second") + weight,
        evidence=_evidence(),
    )


def _account(settings: PbsOptions) -> pl.Expr:
    name = pl.col(settings.account_from).fill_null("")
    return pl.when(name == "_pbs_project_default").then(pl.lit("")).otherwise(name)


def _evidence() -> pl.Expr:
    names = ("group", "account", "project", "jobname", "ctime", "exec_host", "place", "limit", "walltime", "run_count")
    said = {name: pl.col(name) for name in names}
    # Only the request says that nobody else was let on its nodes; who is charged for all of them is a measure.
    alone = pl.any_horizontal(
        *(pl.col(name).fill_null("").str.contains("#excl", literal=True) for name in ("nodes", "neednodes")),
        pl.col("place").fill_null("").str.contains(r"(?:^|:)excl"),
    )
    return evidence(pl.col("line"), type=pl.col("type"), exit_status=pl.col("Exit_status"), exclusive=alone, **said)


def _outcomes(cluster: Cluster, *, zoned: bool) -> Sequence[Outcome]:
    kind = pl.col("type")
    reason = kind.replace_strict(_REASONS, default=None, return_dtype=pl.String)
    no_end = (kind == "E") & number(pl.col("end")).is_null()
    of_array = pl.col("job").str.contains("[]", literal=True)
    partial_rerun = (kind == "R") & (pl.col("start_second").is_null() | pl.col("end_second").is_null())
    return [
        (kind.is_null(), "broken_row"),
        (reason.is_not_null(), "-" + reason),
        (kind.is_in(_PHASES), "released_nodes"),
        (~kind.is_in(_ENDS), "unknown_type"),
        (broken_text("user", "account", "partition", "job"), "invalid_bytes"),
        (pl.col("repeated").is_not_null(), "repeated_field"),
        (of_array & pl.col("exec_host").is_in([""]), "-array_summary"),
        (of_array, "array_summary"),
        (partial_rerun, "-rerun"),
        (pl.col("start_second") == 0, "-never_started"),
        (no_end & pl.lit(not zoned), "naive_time"),
        (no_end & pl.col("end_second").is_null(), "ambiguous_time"),
        *impossible_times(),
        *allocation_problems(cluster),
    ]


def _notes(rows: pl.DataFrame) -> list[str]:
    kept = rows.filter(pl.col("verdict").is_null())
    notes = []
    if asked := kept.filter(pl.col("exec_host") == "", pl.col("exec_vnode") == "").height:
        notes.append(f"{asked} record(s) name no host: their CPUs are those that were asked for")
    if paused := rows.filter(pl.col("type") == "z")["job"].n_unique():
        notes.append(f"{paused} job(s) were suspended for a time, which no end record states: it is counted as held")
    return notes
