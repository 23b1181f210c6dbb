"""The usage event: one measurement of one attempt, as every collector hands it on.

An event is known by `(source, id)` for ever; a later `revision` of it replaces the earlier one. Its columns are facts
of the cluster only: no customer, SKU or price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

# Cards are counted in thousandths, so that a third of a card is a number too.
CARD_DENOMINATOR = 1000

# Every column is filled; text that is not known is "".
EVENT_SCHEMA = pl.Schema(
    {
        "source": pl.String,  # who says so, e.g. "slurm:hpc1"
        "id": pl.String,  # made by the source from the facts, e.g. "4711:1795294603"
        "revision": pl.Int64,
        "revision_derived": pl.Boolean,  # true: made from a log row; false: stated by the event itself
        "cluster": pl.String,
        "partition": pl.String,
        "qos": pl.String,
        "account": pl.String,  # the scheduler's account
        "user": pl.String,
        "job": pl.String,  # for the reader
        "state": pl.String,  # first word, upper case
        "start_second": pl.Int64,  # seconds since 1970 UTC; counted from here, never changes
        "end_second": pl.Int64,  # counted until here, exclusive; of a running job as far as its row states
        "ended": pl.Boolean,
        "suspended_seconds": pl.Int64,  # come off cpu only
        "cpus": pl.Int64,  # allocated CPUs as the scheduler counts them (hardware threads where it does)
        "nodes": pl.Int64,
        "memory_bytes": pl.Int64,
        "cards": pl.String,  # "a100:2000;v100:1000": thousandths by model, sorted by model; "" for none
        "counters": pl.String,  # "storage_byte_seconds:123": totals of named counters, sorted by name
        "evidence": pl.String,  # JSON object of what the source says besides (uid, db_index, time_limit_seconds, line…)
    }
)

# What makes two rows of one id and revision the same usage; names, flags and evidence do not.
USAGE_FACTS = (
    "start_second",
    "end_second",
    "ended",
    "suspended_seconds",
    "state",
    "cpus",
    "nodes",
    "memory_bytes",
    "cards",
    "counters",
    "account",
    "user",
    "partition",
    "qos",
    "cluster",
)

# A lake row is an event with where and when it was recorded.
LAKE_SCHEMA = pl.Schema(
    [
        *EVENT_SCHEMA.items(),
        ("recorded_seq", pl.Int64()),  # gapless over all events ever accepted; "as of N" is recorded_seq <= N
        ("batch_seq", pl.Int64()),  # the inbox batch (file or request) it came with
        ("key_hash", pl.Int64()),  # hash of (source, id): finds candidates, the full key decides
        ("start_date", pl.String()),  # UTC date of start, the partition
    ]
)


@dataclass(frozen=True)
class RejectedEvent:
    """Input that cannot be used, kept with the reason: it goes to quarantine and nothing is lost."""

    code: str  # e.g. "broken_row", "unknown_state", "foreign_cluster", "naive_time"
    message: str  # what, which, and what to do
    raw: bytes  # exactly what arrived
    line: int  # first physical line in the file, from 1; 0 where there are no lines
    source: str = ""
    event_id: str = ""  # where it could be read; a later kept row of this id resolves it
    month: str = ""  # UTC month of the usage, "2026-11"; "" where unknown (blocks every close)
    provisional: bool = False  # of an attempt that goes on: its row is another one at every look


@dataclass(frozen=True)
class Collected:
    """What a collector made of one file or request: every logical row is in exactly one of the three."""

    events: pl.DataFrame  # EVENT_SCHEMA
    rejected: tuple[RejectedEvent, ...]
    no_usage: Mapping[str, int]  # reason -> logical rows: "never_started", "step", "revoked", …
    notes: tuple[str, ...] = ()  # what the importer should know, e.g. that a forged row could not be seen
    # How the file was read (cluster, zone, columns), as far as its refused rows need it to be read again.
    reading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Logical rows that came in."""
        return self.events.height + len(self.rejected) + sum(self.no_usage.values())
