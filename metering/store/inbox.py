"""The inbox: every accepted file or request, durable here before it is acknowledged, until the lake holds it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson
import polars as pl
from sqlalchemy import Text, update
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
    payload: bytes = Field(sa_type=Bytes)  # the events as Arrow IPC
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


def accept(
    session: Session, collected: Collected, origin: str, payload_digest: str, now: datetime, *, kind: str = "events"
) -> BatchReceipt:
    """Record a collected batch in the inbox, and its rejected rows in quarantine, for the caller to commit together.

    The same file again is another batch: its events will be counted as duplicates, and a rejected row that stands in
    quarantine already does not open twice.
    """
    events = check_frame(collected.events, EVENT_SCHEMA, "collected events")
    batch_seq, first_seq = _next_numbers(session)
    codes = Counter(row.code for row in collected.rejected)
    batch = InboxBatchRow(
        batch_seq=batch_seq,
        first_seq=first_seq,
        events=events.height,
        logical_rows=collected.rows,
        kind=kind,
        origin=origin,
        digest=payload_digest,
        payload=_pack(events),
        no_usage=_json(collected.no_usage),
        rejected=_json(codes),
        repeated=0,
        notes=orjson.dumps(collected.notes).decode(),
        reading=orjson.dumps(dict(collected.reading), option=orjson.OPT_SORT_KEYS).decode(),
        received_at=now,
        sealed=False,
    )
    session.add(batch)
    session.flush()
    batch.repeated = quarantine_rejected(session, collected.rejected, batch_seq=batch_seq, now=now)
    session.flush()
    no_usage = {reason: rows for reason, rows in collected.no_usage.items() if rows}
    notes = tuple(collected.notes)
    return BatchReceipt(batch_seq, origin, collected.rows, events.height, no_usage, dict(codes), batch.repeated, notes)


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
    events = pl.read_ipc(io.BytesIO(batch.payload))
    return recorded(events, first_seq=batch.first_seq, batch_seq=batch.batch_seq)


def mark_sealed(session: Session, batch_seqs: Collection[int]) -> None:
    """Note that the lake holds these batches."""
    session.exec(update(InboxBatchRow).where(col(InboxBatchRow.batch_seq).in_(batch_seqs)).values(sealed=True))


def _next_numbers(session: Session) -> tuple[int, int]:
    """Return the batch_seq and the first recorded_seq of the next batch."""
    numbers = select(InboxBatchRow.batch_seq, InboxBatchRow.first_seq, InboxBatchRow.events)
    last = session.exec(numbers.order_by(col(InboxBatchRow.batch_seq).desc()).limit(1)).first()
    return (last[0] + 1, last[1] + last[2]) if last else (1, 1)


def _json(counts: Mapping[str, int]) -> str:
    return orjson.dumps({name: rows for name, rows in counts.items() if rows}, option=orjson.OPT_SORT_KEYS).decode()


def _pack(events: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    events.write_ipc(buffer, compression="zstd")
    return buffer.getvalue()
