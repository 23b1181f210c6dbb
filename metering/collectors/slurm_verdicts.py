"""What becomes of each sacct row: it is usage, it is no usage for a reason, or it is refused with a code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import polars as pl

from metering.clusters import Cluster
from metering.collectors.slurm_fields import ID_PATTERN, LAST_SECOND, LIVE_STATES, STATES, UNASSIGNED, absent
from metering.events import RejectedEvent

# Shown to the reader; a cell longer than this is cut.
SHOWN_CHARACTERS = 80

_MESSAGES = {
    "foreign_cluster": "this row is of cluster {Cluster!r}; import it with --cluster {Cluster}",
    "broken_row": "{JobIDRaw!r} stands where JobIDRaw should; ask sacct for JobName last and no other free text",
    "unknown_state": "state {State!r} of job {JobIDRaw} is unknown, and so is whether it used anything; "
    "resolve the row by hand or have the state added",
    "bad_time": "job {JobIDRaw} has a time that cannot be read: Submit {Submit!r}, Start {Start!r}, End {End!r}",
    "ambiguous_time": "the clock showed a time of job {JobIDRaw} twice or never (Submit {Submit!r}, Start {Start!r}, "
    "End {End!r}); pull it again with SLURM_TIME_FORMAT=%s",
    "bad_duration": "job {JobIDRaw} has a duration that cannot be read: Elapsed {ElapsedRaw!r} {Elapsed!r}, "
    "Suspended {Suspended!r}",
    "array_summary": "row {JobID} stands for several array tasks and yet has used time; pull the tasks one by one",
    "missing_start": "job {JobIDRaw} is {State!r} but has no Start; pull it again",
    "missing_end": "job {JobIDRaw} is {State!r} but has no End (a runaway job?); check sacctmgr show runaway",
    "inconsistent_time": "job {JobIDRaw} ended before it began, or was suspended longer than it ran: Submit {Submit}, "
    "Start {Start}, End {End}, Suspended {Suspended}",
    "inconsistent_state": "job {JobIDRaw} is {State!r} and yet has started; pull it again",
    "cpus_missing": "job {JobIDRaw} ran, but neither AllocTRES ({AllocTRES!r}) nor NCPUS says how many CPUs it held",
    "cards_missing": "job {JobIDRaw} ran in card partition {Partition} but AllocTRES ({AllocTRES!r}) names no card; "
    "does AccountingStorageTRES list the gres?",
    "invalid_bytes": "job {JobIDRaw} has bytes outside its free text that are not UTF-8; export it again as UTF-8",
}


def verdict(cluster: Cluster, *, node_list: bool) -> pl.Expr:
    """Return for each row null (usage), `-<reason>` (no usage) or the code under which it is refused."""
    return pl.coalesce(
        pl.when(condition).then(pl.lit(outcome) if isinstance(outcome, str) else outcome)
        for condition, outcome in (
            *_unusable(cluster),
            *_without_usage(node_list=node_list),
            *_contradictions(),
            *_allocations(cluster),
        )
    )


def _unusable(cluster: Cluster) -> Iterator[tuple[pl.Expr, str]]:
    yield pl.col("invalid_bytes"), "invalid_bytes"
    yield ~pl.col("Cluster").str.to_lowercase().is_in(["", cluster.name.lower()]), "foreign_cluster"
    yield pl.col("JobIDRaw").str.contains(r"^[0-9_+]+\.") | pl.col("JobID").str.contains(r"^[^|]*\.\w+$"), "-step"
    yield ~pl.col("JobIDRaw").str.contains(ID_PATTERN), "broken_row"
    yield ~pl.col("state").is_in(STATES), "unknown_state"


def _without_usage(*, node_list: bool) -> Iterator[tuple[pl.Expr, str]]:
    """Yield the rows that never held a node. AllocTRES is no proof: it is filled for jobs that never started, too."""
    unassigned = pl.col("NodeList").str.strip_chars() == UNASSIGNED
    pending = (pl.col("state") == "PENDING") & (absent("Start") | unassigned)
    yield pl.col("state") == "REVOKED", "-revoked"
    yield pending, "-pending"
    yield unassigned, "-never_started"
    unread = pl.any_horizontal(pl.col(number).is_null() & ~absent(text) for text, number in _TIMES.items())
    local = pl.any_horizontal(pl.col(f"naive_{text}") & pl.col(number).is_null() for text, number in _TIMES.items())
    yield local, "ambiguous_time"
    yield unread | pl.col("submit").is_null(), "bad_time"
    yield pl.col("elapsed").is_null() | pl.col("suspended").is_null(), "bad_duration"
    nowhere = pl.col("NodeList") == "" if node_list else pl.col("AllocTRES") == ""
    no_time = (pl.col("elapsed") == 0) & (pl.col("began").is_null() | (pl.col("finished") <= pl.col("began")))
    live = pl.col("state").is_in(LIVE_STATES)
    yield no_time & ~live & (pl.col("began").is_null() | nowhere), "-never_started"


_TIMES = {"Submit": "submit", "Start": "began", "End": "finished"}


def _contradictions() -> Iterator[tuple[pl.Expr, str]]:
    yield pl.col("JobID").str.contains("[", literal=True), "array_summary"
    yield pl.col("state") == "PENDING", "inconsistent_state"
    yield pl.col("began").is_null(), "missing_start"
    open_end = ~pl.col("ended") & ~pl.col("state").is_in([*LIVE_STATES, "RESIZING"])
    yield open_end, "missing_end"
    held = pl.col("end_second") - pl.col("start_second")
    beyond = pl.col("end_second") > LAST_SECOND
    yield (held < 0) | (pl.col("suspended") > held) | beyond, "inconsistent_time"


def _allocations(cluster: Cluster) -> Iterator[tuple[pl.Expr, str | pl.Expr]]:
    yield pl.col("tres_code").is_not_null(), pl.col("tres_code")
    yield pl.col("cpus").is_null() & (pl.col("end_second") > pl.col("start_second")), "cpus_missing"
    forced = pl.col("Partition").str.split(",").list.eval(pl.element().is_in(cluster.card_partitions)).list.any()
    yield forced & (pl.col("cards") == ""), "cards_missing"


def message(code: str, row: Mapping[str, object]) -> str:
    """Say what is wrong with a row, which one it is and what to do."""
    if row["tres_code"] == code:
        return f"job {row['JobIDRaw']}: {row['tres_message']}"
    return _MESSAGES[code].format_map({key: _shown(value) for key, value in row.items()})


def _shown(value: object) -> object:
    return f"{value[:SHOWN_CHARACTERS]}…" if isinstance(value, str) and len(value) > SHOWN_CHARACTERS else value


def rejected(row: Mapping[str, object], raw: bytes, cluster: Cluster) -> RejectedEvent:
    """Make the refused row ready for quarantine."""
    code = str(row["verdict"])
    known = code != "broken_row" and row["submit"] is not None
    return RejectedEvent(
        code=code,
        message=message(code, row),
        raw=raw,
        line=int(str(row["line"])) + 1,
        source=f"slurm:{row['Cluster'] or cluster.name}",
        event_id=f"{row['JobIDRaw']}:{row['submit']}" if known else "",
        month=month_of_usage(row["start_second"], row["end_second"]),
        provisional=known and row["state"] in LIVE_STATES,
    )


def month_of_usage(start: object, end: object) -> str:
    """Name the UTC month that usage lies in; none where it is unknown or in several, so that it blocks every close."""
    months = {
        datetime.fromtimestamp(second, tz=UTC).strftime("%Y-%m")
        for second in (start, end)
        if isinstance(second, int) and 0 < second <= LAST_SECOND
    }
    return months.pop() if len(months) == 1 else ""
