"""Slurm's accounting as usage events: reads what `sacct -P` writes, whole or in overlapping windows.

Ask sacct with epoch times and JobName last:

    SLURM_TIME_FORMAT=%s sacct -a -X -D -P --noconvert -S … -E … -o JobID,JobIDRaw,…,AllocTRES,State,…,JobName
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from zoneinfo import ZoneInfo

import polars as pl

from base.frames import check_frame
from metering.clusters import Cluster
from metering.collectors.pieces import joined, shifted
from metering.collectors.slurm_broken import broken_event
from metering.collectors.slurm_fields import (
    ENDED_REVISION,
    naive_time,
    whole_number,
    with_allocation,
    with_numbers,
)
from metering.collectors.slurm_fields import duration as seconds_of
from metering.collectors.slurm_layout import KNOWN, SacctFileError, is_free
from metering.collectors.slurm_rows import SacctLines, read_lines, sacct_pieces
from metering.collectors.slurm_verdicts import rejected, verdict
from metering.events import EVENT_SCHEMA, Collected, RejectedEvent

# Rows are laid out in columns this many at a time, to keep the memory small.
ROWS_AT_ONCE = 50_000
# Stands between the columns of a refused row whose file had a delimiter of its own.
SEPARATOR = "\x1f"
# A delimiter this long was made up for one pull: nobody who gives a job its name can know it.
UNGUESSABLE_CHARACTERS = 8


def read_sacct(
    payload: bytes,
    *,
    cluster: Cluster,
    timezone: ZoneInfo | None = None,
    columns: Sequence[str] | None = None,
    delimiter: str = "|",
) -> Collected:
    """Read one file of `sacct -P` (plain or gzip) as usage events; every row is kept, without usage, or refused.

    Columns come from the header line, else from `columns`. Times without a zone are read in `timezone`, else in the
    cluster's; where neither is declared the file is refused with a `SacctFileError`.
    """
    zone = timezone or cluster.zone
    # A large file is read piece by piece, so that the memory it takes does not grow with it.
    parts = [
        shifted(_read(replace(read_lines(piece, columns, delimiter), lines_before=lines), cluster, zone), lines)
        for piece, lines in sacct_pieces(payload, columns, delimiter)
    ]
    declared = timezone.key if timezone else None
    reading = {**parts[0].reading, "cluster": cluster.name, "timezone": declared}
    return replace(joined(parts), reading=reading)


def _read(found: SacctLines, cluster: Cluster, zone: ZoneInfo | None) -> Collected:
    events: list[pl.DataFrame] = []
    refused = [broken_event(found, row, cluster, zone) for row in found.broken]
    no_usage = Counter({"header": found.headers} if found.headers else {})
    for lines in found.rows.to_frame().iter_slices(ROWS_AT_ONCE):
        judged = _judged(found, lines["line"], cluster, zone)
        events.append(_events(judged.filter(pl.col("verdict").is_null()), found, cluster))
        without = judged.filter(pl.col("verdict").str.starts_with("-"))["verdict"].str.slice(1)
        no_usage.update({str(reason): int(count) for reason, count in without.value_counts().iter_rows()})
        refused.extend(_refused(judged, found, cluster))
    frame = check_frame(pl.concat(events) if events else EVENT_SCHEMA.to_frame(), EVENT_SCHEMA, "sacct")
    kept, delimiter = _kept_as(sorted(refused, key=lambda event: event.line), found.layout.delimiter)
    reading = {"columns": found.layout.columns, "delimiter": delimiter}
    return Collected(frame, kept, dict(no_usage), tuple(_notes(found)), reading)


def _kept_as(refused: Sequence[RejectedEvent], delimiter: str) -> tuple[tuple[RejectedEvent, ...], str]:
    """Write refused rows with a delimiter that is known later: one made up for a pull is known to nobody else.

    So the same row has the same bytes whichever pull it comes from, and stands in quarantine once.
    """
    if delimiter == "|":
        return tuple(refused), delimiter
    made_up, known = delimiter.encode(), SEPARATOR.encode()
    return tuple(replace(event, raw=event.raw.replace(made_up, known)) for event in refused), SEPARATOR


def _judged(found: SacctLines, lines: pl.Series, cluster: Cluster, zone: ZoneInfo | None) -> pl.DataFrame:
    """Lay rows out in columns, read their numbers and decide what becomes of each."""
    cells = _cells(found, lines)
    naive = cells.select(
        *(naive_time(name).is_not_null().alias(f"naive_{name}") for name in ("Submit", "Start", "End"))
    )
    if zone is None and naive.select(pl.any_horizontal(pl.all()).any()).item():
        raise SacctFileError(
            f"the file's times name no zone and cluster {cluster.name} declares none: say which one with --timezone, "
            "set the cluster's timezone, or pull with SLURM_TIME_FORMAT=%s"
        )
    present = found.layout.columns
    rows = with_numbers(pl.concat([cells, naive], how="horizontal"), zone, suspended_known="Suspended" in present)
    rows = with_allocation(rows, cluster)
    return rows.with_columns(verdict(cluster, node_list="NodeList" in present).alias("verdict"))


def _cells(found: SacctLines, lines: pl.Series) -> pl.DataFrame:
    """Return the known columns of the given lines; columns that the file lacks are empty."""
    layout = found.layout
    names = list(layout.columns)
    if layout.free_text_last and layout.tail:
        names = names[: len(names) - layout.tail + 1]  # all that follows the first free text belongs to it
    labels = [name if name in KNOWN else f"unread {at}" for at, name in enumerate(names)]
    rows = found.lines[lines]
    split = rows["text"].str.splitn(layout.delimiter, len(labels)).struct.rename_fields(labels)
    cells = split.struct.unnest().select(name for name in labels if name in KNOWN)
    missing = [pl.lit("").alias(name) for name in KNOWN if name not in cells.columns]
    return cells.with_columns(
        rows["line"],
        pl.Series("invalid_bytes", _invalid(found, rows), dtype=pl.Boolean),
        pl.col(pl.String).fill_null(""),
        *missing,
    )


def _invalid(found: SacctLines, rows: pl.DataFrame) -> list[bool] | pl.Series:
    """Tell which rows hold bytes outside their free text that are no UTF-8."""
    suspect = rows["text"].str.contains("\ufffd", literal=True)
    if not suspect.any():
        return suspect
    free = [is_free(column) for column in found.layout.columns]
    delimiter = found.layout.delimiter.encode()
    first_free = found.layout.first_free
    result = []
    for line, doubtful in zip(rows["line"], suspect, strict=True):
        cells = found.raw(line, line + 1).split(delimiter) if doubtful else []
        if found.layout.free_text_last:
            cells = cells[:first_free]
        result.append(any(not _is_utf8(cell) for cell, text in zip(cells, free, strict=False) if not text))
    return result


def _is_utf8(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True


def _events(rows: pl.DataFrame, found: SacctLines, cluster: Cluster) -> pl.DataFrame:
    """Write kept rows as usage events."""
    source = f"slurm:{cluster.name}"
    revision = pl.col("elapsed") + pl.col("suspended") + pl.when("ended").then(ENDED_REVISION).otherwise(0)
    return rows.select(
        pl.lit(source).alias("source"),
        pl.format("{}:{}", "JobIDRaw", "submit").alias("id"),
        revision.alias("revision"),
        pl.lit(value=True).alias("revision_derived"),
        pl.lit(cluster.name).alias("cluster"),
        pl.col("Partition").alias("partition"),
        pl.col("QOS").alias("qos"),
        pl.col("Account").str.to_lowercase().alias("account"),
        pl.col("User").alias("user"),
        pl.when(pl.col("JobID") == "").then("JobIDRaw").otherwise("JobID").alias("job"),
        "state",
        "start_second",
        "end_second",
        "ended",
        pl.col("suspended").alias("suspended_seconds"),
        pl.col("cpus").fill_null(0),
        pl.col("nodes").fill_null(0),
        "memory_bytes",
        "cards",
        pl.lit("").alias("counters"),
        _evidence(found.layout.columns).alias("evidence"),
    ).cast(EVENT_SCHEMA)


def _evidence(present: Sequence[str]) -> pl.Expr:
    """Return what the row says besides its usage, as a JSON object."""
    limit = pl.coalesce(whole_number("TimelimitRaw") * 60, seconds_of("Timelimit"))
    parts = {
        "UID": whole_number("UID").alias("uid"),
        "DBIndex": whole_number("DBIndex").alias("db_index"),
        "Timelimit": limit.alias("time_limit_seconds"),
        "TimelimitRaw": limit.alias("time_limit_seconds"),
        "State": pl.col("State").alias("state_text"),
        "ExitCode": pl.col("ExitCode").alias("exit_code"),
        "NodeList": pl.col("NodeList").alias("node_list"),
        "AllocTRES": pl.col("AllocTRES").alias("alloc_tres"),
        "JobName": pl.col("JobName").alias("job_name"),
    }
    said = {part.meta.output_name(): part for column, part in parts.items() if column in present}
    line = (pl.col("line") + 1).alias("line")
    return pl.struct(line, *said.values()).struct.json_encode()


def _refused(judged: pl.DataFrame, found: SacctLines, cluster: Cluster) -> Iterator[RejectedEvent]:
    for row in judged.filter(~pl.col("verdict").str.starts_with("-")).iter_rows(named=True):
        yield rejected(row, found.raw(row["line"], row["line"] + 1), cluster)


def _notes(found: SacctLines) -> Iterator[str]:
    """Say what the importer should know of the file as a whole."""
    layout = found.layout
    free = [column for column in layout.columns if is_free(column)]
    if free and layout.free_text_last and len(layout.delimiter) >= UNGUESSABLE_CHARACTERS:
        pass  # what opens a row holds a delimiter that no user could write
    elif free and layout.free_text_last:
        yield f"{free[0]} comes last: a row that a user forged inside it cannot be told from a true one in a file"
    elif free:
        yield (
            f"free text ({', '.join(free)}) stands before other columns: {len(found.broken)} row(s) broken by it are "
            "refused; pull with JobName last and no other free text to read them. A name that holds the end of its own "
            "row and the beginning of another cannot be told from two true rows"
        )
    if found.continued:
        yield f"{found.continued} line(s) continue the free text of the row above and hold nothing that is metered"
    lacking = [name for name in ("Suspended", "NodeList", "Account", "User", "Partition") if name not in layout.columns]
    if lacking:
        yield f"the file has no column {', '.join(lacking)}"
