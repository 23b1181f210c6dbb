"""How far the starts of all events were compared with all that was recorded before."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, Session, SQLModel

from base.columns import BigInt, Instant

_ONLY = 1


class StartCheckRow(SQLModel, table=True):
    """Up to which recorded number no event counts at two starts; one row."""

    __tablename__ = "start_check"

    id: int = Field(default=_ONLY, primary_key=True, sa_type=BigInt, sa_column_kwargs={"autoincrement": False})
    recorded_seq: int = Field(sa_type=BigInt)
    checked_at: datetime = Field(sa_type=Instant)


def starts_checked_to(session: Session) -> int:
    """Return the recorded number as of which no event counts at two starts; 0 before the first check."""
    row = session.get(StartCheckRow, _ONLY)
    return row.recorded_seq if row else 0


def note_starts_checked(session: Session, recorded_seq: int, now: datetime) -> None:
    """Note that as of a recorded number no event counts at two starts; a check that came in between may know more."""
    if recorded_seq > starts_checked_to(session):
        session.merge(StartCheckRow(recorded_seq=recorded_seq, checked_at=now))
        session.flush()
