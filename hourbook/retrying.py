"""Quarantined rows, read again with the clusters as they are described now: what is usable then is accepted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import polars as pl
from sqlmodel import Session

from hourbook.database import read_session, run_write
from hourbook.importing import accept_in, catalog_of
from hourbook.refreshing import Progress, refresh
from hourbook.rereading import read_rows_again
from hourbook.settings import Home
from metering import store as metering
from metering.cloud_events import NOT_REPORTED, read_events
from metering.clusters import Cluster
from metering.collectors.slurm import read_sacct
from metering.events import Collected

# Rows whose form is broken. No description of a cluster mends them, and what stands inside them is not to be believed.
BROKEN_CODES = frozenset({"broken_row", "not_json", "not_parquet"})
# Reading an event again does not tell whose key it came with: only its own sender may send it.
NEVER_RETRIED = BROKEN_CODES | {NOT_REPORTED}
DELIMITER = "|"


@dataclass(frozen=True)
class Retried:
    """What came of reading quarantined rows again."""

    tried: int
    resolved: int
    left: int  # open entries, those included that were not tried


@dataclass(frozen=True)
class _Batch:
    """Open entries of one file or request, and how that was read."""

    kind: str
    origin: str
    reading: Mapping[str, Any]
    entries: Sequence[metering.QuarantineRow]


def retry_quarantine(home: Home, progress: Progress = lambda _step, _done, _all: None) -> Retried:
    """Read quarantined rows again, with the clusters as they are described now.

    A row that can be used now, or that turns out to be no usage, is accepted as a new batch and its entry is resolved;
    any other stays as it is. Rows of broken form are not tried, nor events that contradict what is known.
    """
    batches = _open_batches(home)
    clusters = catalog_of(home).clusters
    resolved = 0
    for done, batch in enumerate(batches, start=1):
        resolved += _retry(home, batch, clusters)
        progress("read again", done, len(batches))
    refresh(home, progress)
    with read_session(home.engine) as session:
        left = len(metering.quarantine(session, status="open"))
    return Retried(sum(len(batch.entries) for batch in batches), resolved, left)


def _open_batches(home: Home) -> list[_Batch]:
    with read_session(home.engine) as session:
        entries = defaultdict(list)
        for entry in metering.quarantine(session, status="open"):
            # What the sealer held back was readable; only a later word of its source settles it.
            if entry.recorded_seq is None and entry.code not in NEVER_RETRIED:
                entries[entry.batch_seq].append(entry)
        batches = [
            _Batch(batch.kind, batch.origin, orjson.loads(batch.reading), entries[batch.batch_seq])
            for batch in metering.inbox_batches(session)
            if batch.batch_seq in entries
        ]
        session.expunge_all()
        return [batch for batch in batches if batch.kind == "cloud_events" or "cluster" in batch.reading]


def _retry(home: Home, batch: _Batch, clusters: Mapping[str, Cluster]) -> int:
    """Accept what can be used of a batch now; return how many entries that resolved."""
    collected = _read_again(home, batch, clusters)
    refused = {row.line for row in collected.rejected}
    usable = [entry for line, entry in enumerate(batch.entries, start=1) if line not in refused]
    # Rows that ran together, or apart, would be resolved by one another: then none is touched.
    if not usable or collected.rows != len(batch.entries):
        return 0
    accepted = replace(collected, rejected=())
    more = f" and {len(usable) - 1} more" if len(usable) > 1 else ""
    origin = f"retry of {usable[0].id}{more} ({batch.origin})"

    def work(session: Session) -> int:
        entries = [metering.quarantine_entry(session, entry.id) for entry in usable]
        if any(entry.status != "open" for entry in entries):
            return 0  # somebody decided about one of them meanwhile
        receipt = accept_in(session, home, b"\n".join(e.raw for e in entries), accepted, kind=batch.kind, origin=origin)
        for entry in entries:
            reason = "read again, and usable as things are described now"
            metering.close_entry(session, entry, "resolved", home.now(), resolved_by=receipt.origin, reason=reason)
        return len(entries)

    return run_write(home.engine, work)


def _read_again(home: Home, batch: _Batch, clusters: Mapping[str, Cluster]) -> Collected:
    """Read the rows of a batch as its file was read; line 1 of the result is the first entry."""
    rows = [entry.raw for entry in batch.entries]
    if batch.kind == "cloud_events":
        # An event of an array may have been laid out over several lines; no text in JSON holds a line break.
        joined = b"\n".join(row.replace(b"\n", b" ") for row in rows)
        return read_events(joined, format="jsonl", now=home.now())
    if "columns" not in batch.reading:
        return read_rows_again(batch.reading, batch.entries, clusters)
    name, zone = batch.reading["cluster"], batch.reading["timezone"]
    # With a header line of our own no row can be taken for one, whatever its job is called.
    delimiter = batch.reading.get("delimiter", DELIMITER)
    header = delimiter.join(batch.reading["columns"]).encode()
    collected = read_sacct(
        b"\n".join([header, *rows]),
        cluster=clusters.get(name) or Cluster(name=name),
        timezone=ZoneInfo(zone) if zone else None,
        delimiter=delimiter,
    )
    lines = {number: entry.line for number, entry in enumerate(batch.entries, start=2)}
    evidence = [_in_its_file(text, lines) for text in collected.events["evidence"]]
    return replace(
        collected,
        events=collected.events.with_columns(pl.Series("evidence", evidence, dtype=pl.String)),
        rejected=tuple(replace(row, line=row.line - 1) for row in collected.rejected),
    )


def _in_its_file(evidence: str, lines: Mapping[int, int]) -> str:
    """Let evidence name the line of the file in which the row arrived first."""
    said = orjson.loads(evidence)
    return orjson.dumps({**said, "line": lines[said["line"]]}).decode()
