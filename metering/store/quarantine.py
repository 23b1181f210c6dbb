"""Quarantine: input that could not be used, kept with its reason and what became of it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import orjson
import polars as pl
from sqlalchemy import ColumnElement, Index, Text, bindparam, func, insert, update
from sqlalchemy import select as select_columns
from sqlmodel import Field, Session, SQLModel, col, select

from base.columns import BigInt, Bytes, ForeignText, Instant
from base.period import month_days, month_of
from metering.events import EVENT_SCHEMA, RejectedEvent

QuarantineStatus = Literal["open", "resolved", "written_off", "dismissed"]


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


def quarantine_held(session: Session, held: pl.DataFrame, now: datetime) -> int:
    """Put events that the sealer held back into quarantine; those there already stay as they are."""
    known = _known(session, QuarantineRow.recorded_seq, held["recorded_seq"].to_list())
    number = _last_number(session)
    entries: list[dict[str, Any]] = []
    for row in held.iter_rows(named=True):
        if row["recorded_seq"] in known:
            continue
        raw = orjson.dumps({name: row[name] for name in EVENT_SCHEMA})
        entry = {
            "number": number + len(entries) + 1,
            "batch_seq": row["batch_seq"],
            "recorded_seq": row["recorded_seq"],
            "code": row["code"],
            "message": row["message"],
            "raw": raw,
            "raw_digest": _digest(row["code"], raw),
            "line": 0,
            "source": row["source"],
            "event_id": row["id"],
            "month": row["start_date"][:7],
        }
        entries.append(entry)
    _open(session, entries, now)
    return len(entries)


def _open(session: Session, entries: Sequence[dict[str, Any]], now: datetime) -> None:
    """Insert open entries, many at once."""
    rest = {"status": "open", "resolved_by": "", "reason": "", "opened_at": now}
    if entries:
        session.connection().execute(insert(QuarantineRow), [{**entry, **rest} for entry in entries])


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


OPEN_SCHEMA = pl.Schema(
    {
        "number": pl.Int64,
        "batch_seq": pl.Int64,
        "code": pl.String,
        "source": pl.String,
        "event_id": pl.String,
        "month": pl.String,
    }
)
HELD_SCHEMA = pl.Schema({"batch_seq": pl.Int64, "recorded_seq": pl.Int64, "code": pl.String})


def open_entries(session: Session) -> pl.DataFrame:
    """Return the open entries of which the event is known, without what arrived."""
    row = QuarantineRow
    return _facts(session, OPEN_SCHEMA, col(row.status) == "open", col(row.source) != "", col(row.event_id) != "")


def held_entries(session: Session) -> pl.DataFrame:
    """Return every event that was held back, or is listed for its wrong start, whatever was decided about it."""
    return _facts(session, HELD_SCHEMA, col(QuarantineRow.recorded_seq).is_not(None))


def _facts(session: Session, schema: pl.Schema, *conditions: ColumnElement[bool]) -> pl.DataFrame:
    columns = [getattr(QuarantineRow, name) for name in schema]
    rows = session.connection().execute(select_columns(*columns).where(*conditions))
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")


def resolve_entries(session: Session, resolved_by: Mapping[int, str], reason: str, now: datetime) -> int:
    """Resolve entries, each by what is named; return how many were open still, for the others stay as decided."""
    numbers = _known(session, QuarantineRow.number, resolved_by, col(QuarantineRow.status) == "open")
    row = col(QuarantineRow.number)
    change = (
        update(QuarantineRow)
        .where(row == bindparam("which"))
        .values(status="resolved", closed_at=now, reason=reason, resolved_by=bindparam("by_whom"))
    )
    if numbers:
        changes = [{"which": number, "by_whom": resolved_by[number]} for number in sorted(numbers)]
        session.connection().execute(change, changes)
    return len(numbers)


def quarantine_rejected(session: Session, rejected: Sequence[RejectedEvent], *, batch_seq: int, now: datetime) -> int:
    """Open an entry per rejected row; return how many stood in quarantine before, with the same bytes and code."""
    digests = [_digest(row.code, row.raw) for row in rejected]
    known = _known(session, QuarantineRow.raw_digest, digests)
    told = _open_events(session, [row.event_id for row in rejected if row.provisional])
    number = _last_number(session)
    entries: list[dict[str, Any]] = []
    for row, digest in zip(rejected, digests, strict=True):
        # Of an attempt that goes on one row is enough, until the row that ends it.
        event = (row.source, row.event_id, row.code)
        if digest in known or (row.provisional and event in told):
            continue
        known.add(digest)
        told.add(event)
        facts: dict[str, Any] = {name: getattr(row, name) for name in _REJECTED_FACTS}
        numbers = {"number": number + len(entries) + 1, "batch_seq": batch_seq, "recorded_seq": None}
        entries.append({**facts, **numbers, "raw_digest": digest})
    _open(session, entries, now)
    return len(rejected) - len(entries)


def _open_events(session: Session, event_ids: Collection[str]) -> set[tuple[str, str, str]]:
    """Return source, id and code of open entries of these events."""
    row, found, every = QuarantineRow, set[tuple[str, str, str]](), list(event_ids)
    for first in range(0, len(every), 500):  # SQLite takes a limited number of parameters
        these = (col(row.event_id).in_(every[first : first + 500]), col(row.status) == "open")
        wanted = select_columns(col(row.source), col(row.event_id), col(row.code)).where(*these)
        for one in session.connection().execute(wanted).mappings():
            found.add((one["source"], one["event_id"], one["code"]))
    return found


_REJECTED_FACTS = ("code", "message", "raw", "line", "source", "event_id", "month")


def _known(session: Session, column: Any, values: Collection[Any], *conditions: ColumnElement[bool]) -> set[Any]:  # noqa: ANN401 - a column of any type
    """Return those values that a column holds."""
    known: set[Any] = set()
    every = list(values)
    for first in range(0, len(every), 500):  # SQLite takes a limited number of parameters
        wanted = select(column).where(col(column).in_(every[first : first + 500]), *conditions)
        known.update(session.exec(wanted))
    return known


def _last_number(session: Session) -> int:
    return session.exec(select(func.max(QuarantineRow.number))).one() or 0


def _digest(code: str, raw: bytes) -> str:
    return hashlib.sha256(code.encode() + b"\0" + raw).hexdigest()
