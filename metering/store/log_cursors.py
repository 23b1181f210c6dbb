"""Cursors: up to where each followed log was read. They save work only: without them a log is read from its start."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Text
from sqlmodel import Field, Session, SQLModel, col, select

from base.columns import BigInt, ForeignText, Instant


class LogCursorRow(SQLModel, table=True):
    """Up to where a file, or the changes that a server tells of, was read for a source such as `pbs:hpc2`."""

    __tablename__ = "log_cursor"

    source: str = Field(primary_key=True, sa_type=Text)
    path: str = Field(primary_key=True, sa_type=ForeignText)
    marks: str = Field(sa_type=Text)  # what tells whether the file changed since: inode, size and time of change
    read_bytes: int = Field(sa_type=BigInt)  # unpacked
    read_lines: int = Field(sa_type=BigInt)
    head_bytes: int = Field(sa_type=BigInt)
    head_digest: str = Field(sa_type=Text)  # SHA-256 of the first bytes
    tail_digest: str = Field(sa_type=Text)  # SHA-256 of the last bytes that were read
    position: str = Field(default="", sa_type=Text)  # of a server: the version of its state that was seen last
    problem: str = Field(default="", sa_type=ForeignText)  # why it could not be read on the last time; "" if it could
    read_at: datetime = Field(sa_type=Instant)


def log_cursors(session: Session, source: str | None = None) -> list[LogCursorRow]:
    """Return the cursors of a source, else of all, by source and path."""
    rows = select(LogCursorRow).order_by(col(LogCursorRow.source), col(LogCursorRow.path))
    return list(session.exec(rows if source is None else rows.where(LogCursorRow.source == source)))


def save_log_cursor(session: Session, cursor: LogCursorRow) -> None:
    """Note up to where a file was read, for the caller to commit with what was read."""
    session.merge(cursor)


def forget_log_cursors(session: Session, source: str) -> int:
    """Let a source be read from its start again; return how many files that are."""
    rows = session.exec(select(LogCursorRow).where(LogCursorRow.source == source)).all()
    for row in rows:
        session.delete(row)
    session.flush()
    return len(rows)
