"""Metering's tables: the inbox of accepted batches, quarantine, rollup plans, and what is rolled up already."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import orjson
import polars as pl
from sqlalchemy import Index, Text, func, update
from sqlalchemy.orm import defer
from sqlmodel import Field, Session, SQLModel, col, select

from base.columns import BigInt, Bytes, Flag, ForeignText, Instant
from base.frames import check_frame
from base.period import month_days, month_of
from metering.events import EVENT_SCHEMA, Collected, RejectedEvent
from metering.plan import RollupPlan
from metering.sealing import recorded

QuarantineStatus = Literal["open", "resolved", "written_off", "dismissed"]


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


class QuarantineRow(SQLModel, table=True):
    """Input that could not be used, with the reason, until it is resolved, written off or dismissed."""

    __tablename__ = "quarantine"
    __table_args__ = (Index("quarantine_open", "status", "month"),)

    number: int = Field(primary_key=True, sa_type=BigInt, sa_column_kwargs={"autoincrement": False})
    batch_seq: int = Field(sa_type=BigInt, foreign_key="inbox_batch.batch_seq", index=True)
    # Of an event that the sealer held back; NULL where the row could not be read as an event.
    recorded_seq: int | None = Field(default=None, sa_type=BigInt, unique=True)
    code: str = Field(sa_type=Text)
    message: str = Field(sa_type=ForeignText)
    raw: bytes = Field(sa_type=Bytes)
    raw_digest: str = Field(sa_type=Text, index=True)
    line: int = Field(sa_type=BigInt)
    source: str = Field(sa_type=ForeignText)
    event_id: str = Field(sa_type=ForeignText)
    month: str = Field(sa_type=Text)  # UTC month of the usage; "" where unknown, which blocks every close
    status: str = Field(sa_type=Text)
    resolved_by: str = Field(default="", sa_type=Text)
    reason: str = Field(default="", sa_type=Text)
    opened_at: datetime = Field(sa_type=Instant)
    closed_at: datetime | None = Field(default=None, sa_type=Instant)

    @property
    def id(self) -> str:
        """Its name on the command line: `Q-17`."""
        return f"Q-{self.number}"


class RollupPlanRow(SQLModel, table=True):
    """A rollup plan by its number, which documents pin."""

    __tablename__ = "rollup_plan"

    number: int = Field(primary_key=True, sa_type=BigInt, sa_column_kwargs={"autoincrement": False})
    body: str = Field(sa_type=Text)  # canonical JSON
    digest: str = Field(sa_type=Text, unique=True)
    created_at: datetime = Field(sa_type=Instant)


class RollupPartitionRow(SQLModel, table=True):
    """Where the rollup of one date of events under one plan lies, and how far it is counted."""

    __tablename__ = "rollup_partition"

    start_date: str = Field(primary_key=True, sa_type=Text)
    plan_number: int = Field(primary_key=True, sa_type=BigInt, foreign_key="rollup_plan.number")
    recorded_seq: int = Field(sa_type=BigInt)  # the latest event of the date that is in it
    file: str = Field(sa_type=Text)
    previous_file: str = Field(sa_type=Text)  # kept for whoever is still reading it


class LeaseRow(SQLModel, table=True):
    """Who alone does a piece of work at the moment."""

    __tablename__ = "lease"

    name: str = Field(primary_key=True, sa_type=Text)
    holder: str = Field(sa_type=Text)
    expires_at: datetime = Field(sa_type=Instant)


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
    batch.repeated = _quarantine_rejected(session, batch, collected.rejected)
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


def quarantine_held(session: Session, held: pl.DataFrame, now: datetime) -> int:
    """Put events that the sealer held back into quarantine; those there already stay as they are."""
    known = set(session.exec(select(QuarantineRow.recorded_seq).where(col(QuarantineRow.recorded_seq).is_not(None))))
    number = _last_number(session)
    opened = 0
    for row in held.iter_rows(named=True):
        if row["recorded_seq"] in known:
            continue
        opened += 1
        raw = orjson.dumps({name: row[name] for name in EVENT_SCHEMA})
        entry = QuarantineRow(
            number=number + opened,
            batch_seq=row["batch_seq"],
            recorded_seq=row["recorded_seq"],
            code=row["code"],
            message=row["message"],
            raw=raw,
            raw_digest=_digest(row["code"], raw),
            line=0,
            source=row["source"],
            event_id=row["id"],
            month=row["start_date"][:7],
            status="open",
            opened_at=now,
        )
        session.add(entry)
    session.flush()
    return opened


def quarantine(
    session: Session, *, status: QuarantineStatus | None = None, month: str | None = None
) -> list[QuarantineRow]:
    """Return quarantine entries, oldest first; with a month, those that could be of it.

    These are entries of no known month, too, and of the month before: an entry knows its month in UTC, and in a zone
    east of it the first hours of a month are still the month before.
    """
    wanted = select(QuarantineRow).order_by(col(QuarantineRow.number))
    if status is not None:
        wanted = wanted.where(QuarantineRow.status == status)
    if month is not None:
        before = month_of(month_days(month)[0] - timedelta(days=1))
        wanted = wanted.where(col(QuarantineRow.month).in_(["", before, month]))
    return list(session.exec(wanted))


def quarantine_entry(session: Session, entry_id: str) -> QuarantineRow:
    """Return the entry named `Q-17`."""
    digits = entry_id.removeprefix("Q-")
    entry = session.get(QuarantineRow, int(digits)) if digits.isascii() and digits.isdigit() else None
    if entry is None:
        raise LookupError(f"there is no quarantine entry {entry_id!r}; see: hourbook quarantine list")
    return entry


def close_entry(
    session: Session, entry: QuarantineRow, status: QuarantineStatus, now: datetime, *, resolved_by: str, reason: str
) -> None:
    """Close an open quarantine entry: who or what did it, and why; a closed one stays as it was decided."""
    if entry.status != "open":
        raise ValueError(f"{entry.id} is {entry.status} already, by {entry.resolved_by or 'an earlier decision'}")
    entry.status, entry.closed_at, entry.resolved_by, entry.reason = status, now, resolved_by, reason
    session.add(entry)
    session.flush()


def plan_number(session: Session, plan: RollupPlan) -> int | None:
    """Return the number of a plan, or None where it was never registered."""
    row = session.exec(select(RollupPlanRow).where(RollupPlanRow.digest == _plan_digest(plan))).first()
    return row.number if row else None


def register_plan(session: Session, plan: RollupPlan, now: datetime) -> int:
    """Give a plan its number; an equal plan keeps the one it has."""
    known = plan_number(session, plan)
    if known is not None:
        return known
    number = (session.exec(select(func.max(RollupPlanRow.number))).one() or 0) + 1
    body = plan.model_dump_json()
    session.add(RollupPlanRow(number=number, body=body, digest=_plan_digest(plan), created_at=now))
    session.flush()
    return number


def plan_of(session: Session, number: int) -> RollupPlan:
    """Return the plan with a number."""
    row = session.get(RollupPlanRow, number)
    if row is None:
        raise LookupError(f"there is no rollup plan {number}")
    return RollupPlan.model_validate_json(row.body)


def rolled_up(session: Session, number: int | None) -> dict[str, RollupPartitionRow]:
    """Return what is rolled up under a plan, by date of start."""
    rows = session.exec(select(RollupPartitionRow).where(RollupPartitionRow.plan_number == number))
    return {row.start_date: row for row in rows}


def register_partition(session: Session, start_date: str, number: int, *, recorded_seq: int, file: str) -> str:
    """Note where a date's rollup lies now; return the file that nobody needs any more, or an empty text."""
    row = session.get(RollupPartitionRow, (start_date, number))
    if row is None:
        row = RollupPartitionRow(
            start_date=start_date, plan_number=number, recorded_seq=recorded_seq, file=file, previous_file=""
        )
        session.add(row)
        return ""
    if row.recorded_seq >= recorded_seq:
        return ""
    unneeded = row.previous_file
    row.recorded_seq, row.file, row.previous_file = recorded_seq, file, row.file
    session.add(row)
    return unneeded


def lease_holder(session: Session, name: str, now: datetime) -> str:
    """Return who holds a lease that has not run out; an empty text for nobody."""
    row = session.get(LeaseRow, name)
    return row.holder if row is not None and row.expires_at > now else ""


def take_lease(session: Session, name: str, holder: str, expires_at: datetime) -> None:
    """Hold a lease until an instant, whoever held it before."""
    session.merge(LeaseRow(name=name, holder=holder, expires_at=expires_at))


def release_lease(session: Session, name: str, holder: str) -> None:
    """Give a lease back, unless somebody else holds it by now."""
    row = session.get(LeaseRow, name)
    if row is not None and row.holder == holder:
        session.delete(row)


def _next_numbers(session: Session) -> tuple[int, int]:
    """Return the batch_seq and the first recorded_seq of the next batch."""
    numbers = select(InboxBatchRow.batch_seq, InboxBatchRow.first_seq, InboxBatchRow.events)
    last = session.exec(numbers.order_by(col(InboxBatchRow.batch_seq).desc()).limit(1)).first()
    return (last[0] + 1, last[1] + last[2]) if last else (1, 1)


def _quarantine_rejected(session: Session, batch: InboxBatchRow, rejected: Sequence[RejectedEvent]) -> int:
    """Open an entry per rejected row; return how many stood in quarantine before, with the same bytes and code."""
    digests = [_digest(row.code, row.raw) for row in rejected]
    known = _known_digests(session, digests)
    number = _last_number(session)
    repeated = 0
    for row, digest in zip(rejected, digests, strict=True):
        if digest in known:
            repeated += 1
            continue
        known.add(digest)
        number += 1
        facts: dict[str, Any] = {name: getattr(row, name) for name in _REJECTED_FACTS}
        entry = QuarantineRow(
            **facts,
            number=number,
            batch_seq=batch.batch_seq,
            raw_digest=digest,
            status="open",
            opened_at=batch.received_at,
        )
        session.add(entry)
    return repeated


_REJECTED_FACTS = ("code", "message", "raw", "line", "source", "event_id", "month")


def _known_digests(session: Session, digests: Sequence[str]) -> set[str]:
    known: set[str] = set()
    for first in range(0, len(digests), 500):  # SQLite takes a limited number of parameters
        some = digests[first : first + 500]
        wanted = select(QuarantineRow.raw_digest).where(col(QuarantineRow.raw_digest).in_(some))
        known.update(session.exec(wanted))
    return known


def _last_number(session: Session) -> int:
    return session.exec(select(func.max(QuarantineRow.number))).one() or 0


def _digest(code: str, raw: bytes) -> str:
    return hashlib.sha256(code.encode() + b"\0" + raw).hexdigest()


def _plan_digest(plan: RollupPlan) -> str:
    return hashlib.sha256(plan.model_dump_json().encode()).hexdigest()


def _json(counts: Mapping[str, int]) -> str:
    return orjson.dumps({name: rows for name, rows in counts.items() if rows}, option=orjson.OPT_SORT_KEYS).decode()


def _pack(events: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    events.write_ipc(buffer, compression="zstd")
    return buffer.getvalue()
