"""The inbox: every accepted file or request, durable here before it is acknowledged, until the lake holds it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

import orjson
import polars as pl
from sqlalchemy import Text, insert, update
from sqlalchemy.orm import defer
from sqlmodel import Field, Session, SQLModel, col, select

from base.columns import BigInt, Bytes, Flag, ForeignText, Instant
from base.frames import check_frame
from metering.events import EVENT_SCHEMA, Collected
from metering.sealing import recorded
from metering.store.quarantine import quarantine_rejected


class InboxBatchRow(SQLModel, table=True):
    """One accepted file or request; its events wait here until the lake holds them."""

    __tablename__ = "inbox_batch"

    batch_seq: int = Field(primary_key=True, sa_type=BigInt, sa_column_kwargs={"autoincrement": False})
    first_seq: int = Field(sa_type=BigInt)  # recorded_seq of its first event; the next batch goes on without a gap
    events: int = Field(sa_type=BigInt)
    logical_rows: int = Field(sa_type=BigInt)
    kind: str = Field(sa_type=Text)  # "slurm", "cloud_events", …
    origin: str = Field(sa_type=ForeignText)  # file name or request id
    digest: str = Field(sa_type=Text)  # SHA-256 of what arrived
    payload: bytes = Field(sa_type=Bytes)  # the events as Arrow IPC; nothing once the lake holds them
    no_usage: str = Field(sa_type=Text)  # JSON: reason -> rows
    rejected: str = Field(sa_type=Text)  # JSON: code -> rows, repeats of earlier ones included
    repeated: int = Field(sa_type=BigInt)  # rejected rows that stood in quarantine before
    notes: str = Field(sa_type=Text)  # JSON: what the importer should know
    reading: str = Field(sa_type=Text)  # JSON: how it was read, so that its rejected rows can be read again
    received_at: datetime = Field(sa_type=Instant)
    sealed: bool = Field(sa_type=Flag, index=True)


@dataclass(frozen=True)
class BatchReceipt:
    """What became of a file or request when it was accepted; it is durable once the session has committed."""

    batch_seq: int
    origin: str
    rows: int
    events: int
    no_usage: Mapping[str, int]
    quarantined: Mapping[str, int]
    repeated: int  # of the quarantined: rows that stood in quarantine before
    notes: tuple[str, ...]


@dataclass(frozen=True)
class IncomingBatch:
    """A collected file or request, made ready to be recorded before the database is locked for it."""

    collected: Collected
    kind: str
    origin: str
    digest: str  # SHA-256 of what arrived
    payload: bytes  # the events as Arrow IPC

    @classmethod
    def of(cls, collected: Collected, *, kind: str, origin: str, digest: str) -> IncomingBatch:
        """Make what was collected ready."""
        events = check_frame(collected.events, EVENT_SCHEMA, "collected events")
        return cls(collected, kind, origin, digest, _pack(events))


def accept(
    session: Session, collected: Collected, origin: str, payload_digest: str, now: datetime, *, kind: str = "events"
) -> BatchReceipt:
    """Record a collected batch in the inbox, and its rejected rows in quarantine, for the caller to commit together.

    The same file again is another batch: its events will be counted as duplicates, and a rejected row that stands in
    quarantine already does not open twice.
    """
    batch = IncomingBatch.of(collected, kind=kind, origin=origin, digest=payload_digest)
    return accept_batches(session, [batch], now)[0]


def accept_batches(session: Session, batches: Sequence[IncomingBatch], now: datetime) -> list[BatchReceipt]:
    """Record batches one after the other, for the caller to commit together."""
    batch_seq, first_seq = _next_numbers(session)
    receipts = []
    for batch in batches:
        receipts.append(_record(session, batch, batch_seq, first_seq, now))
        batch_seq, first_seq = batch_seq + 1, first_seq + batch.collected.events.height
    return receipts


def _record(session: Session, batch: IncomingBatch, batch_seq: int, first_seq: int, now: datetime) -> BatchReceipt:
    collected = batch.collected
    codes = Counter(row.code for row in collected.rejected)
    row = {
        "batch_seq": batch_seq,
        "first_seq": first_seq,
        "events": collected.events.height,
        "logical_rows": collected.rows,
        "kind": batch.kind,
        "origin": batch.origin,
        "digest": batch.digest,
        "payload": batch.payload,
        "no_usage": _json(collected.no_usage),
        "rejected": _json(codes),
        "repeated": 0,
        "notes": orjson.dumps(collected.notes).decode(),
        "reading": orjson.dumps(dict(collected.reading), option=orjson.OPT_SORT_KEYS).decode(),
        "received_at": now,
        "sealed": False,
    }
    session.exec(insert(InboxBatchRow).values(row))
    repeated = 0
    if collected.rejected:
        repeated = quarantine_rejected(session, collected.rejected, batch_seq=batch_seq, now=now)
        session.flush()
        this = col(InboxBatchRow.batch_seq) == batch_seq
        session.exec(update(InboxBatchRow).where(this).values(repeated=repeated))
    no_usage = {reason: rows for reason, rows in collected.no_usage.items() if rows}
    notes = tuple(collected.notes)
    return BatchReceipt(
        batch_seq, batch.origin, collected.rows, collected.events.height, no_usage, dict(codes), repeated, notes
    )


def waiting_events(session: Session) -> int:
    """Return how many events wait for the sealer, which takes batches in order."""
    waiting = select(InboxBatchRow.first_seq).where(col(InboxBatchRow.sealed).is_(other=False))
    first = session.exec(waiting.order_by(col(InboxBatchRow.batch_seq)).limit(1)).first()
    return 0 if first is None else _next_numbers(session)[1] - first


def inbox_batches(session: Session) -> list[InboxBatchRow]:
    """Return every batch in the order it was accepted, without its events."""
    rows = select(InboxBatchRow).order_by(col(InboxBatchRow.batch_seq))
    return list(session.exec(rows.options(defer(InboxBatchRow.payload))))  # type: ignore[arg-type]


def unsealed(session: Session, most_events: int) -> list[InboxBatchRow]:
    """Return the next batches to seal, oldest first, up to about so many events, at least one if there is any."""
    waiting = select(InboxBatchRow.batch_seq, InboxBatchRow.events).where(col(InboxBatchRow.sealed).is_(other=False))
    chosen: list[int] = []
    total = 0
    for batch_seq, events in session.exec(waiting.order_by(col(InboxBatchRow.batch_seq))):
        if chosen and total + events > most_events:
            break
        chosen.append(batch_seq)
        total += events
    if not chosen:
        return []
    rows = select(InboxBatchRow).where(col(InboxBatchRow.batch_seq).between(chosen[0], chosen[-1]))
    return list(session.exec(rows.order_by(col(InboxBatchRow.batch_seq))))


def batch_events(batch: InboxBatchRow) -> pl.DataFrame:
    """Return the events of a batch as lake rows."""
    events = pl.read_ipc_stream(batch.payload)
    return recorded(events, first_seq=batch.first_seq, batch_seq=batch.batch_seq)


def group_events(batches: Sequence[InboxBatchRow]) -> pl.DataFrame:
    """Return the events of batches that follow each other as lake rows."""
    first_seqs = [batch.first_seq for batch in batches]
    expected = list(accumulate((batch.events for batch in batches[:-1]), initial=batches[0].first_seq))
    if first_seqs != expected:
        raise RuntimeError(f"the events of batches from {batches[0].batch_seq} on are not numbered without gaps")
    events = pl.concat([pl.read_ipc_stream(batch.payload) for batch in batches], rechunk=True)
    numbers = pl.Series("batch_seq", [batch.batch_seq for batch in batches], dtype=pl.Int64)
    sizes = pl.Series([batch.events for batch in batches], dtype=pl.Int64)
    of_rows = numbers.repeat_by(sizes).explode(empty_as_null=False)
    return recorded(events, first_seq=first_seqs[0], batch_seq=0).with_columns(of_rows)


def anything_unsealed(session: Session) -> bool:
    """Tell whether a batch waits for the sealer."""
    waiting = select(InboxBatchRow.batch_seq).where(col(InboxBatchRow.sealed).is_(other=False)).limit(1)
    return session.exec(waiting).first() is not None


def mark_sealed(session: Session, batch_seqs: Collection[int]) -> None:
    """Note that the lake holds these batches, and let go of their events: the lake's are the ones that count."""
    every = list(batch_seqs)
    for first in range(0, len(every), 500):  # SQLite takes a limited number of parameters
        these = col(InboxBatchRow.batch_seq).in_(every[first : first + 500])
        session.exec(update(InboxBatchRow).where(these).values(sealed=True, payload=b""))


def _next_numbers(session: Session) -> tuple[int, int]:
    """Return the batch_seq and the first recorded_seq of the next batch."""
    numbers = select(InboxBatchRow.batch_seq, InboxBatchRow.first_seq, InboxBatchRow.events)
    last = session.exec(numbers.order_by(col(InboxBatchRow.batch_seq).desc()).limit(1)).first()
    return (last[0] + 1, last[1] + last[2]) if last else (1, 1)


def _json(counts: Mapping[str, int]) -> str:
    return orjson.dumps({name: rows for name, rows in counts.items() if rows}, option=orjson.OPT_SORT_KEYS).decode()


def _pack(events: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    # As a stream: for the small batches of requests it is read in half the time of a file with its index.
    events.write_ipc_stream(buffer, compression="zstd")
    return buffer.getvalue()
