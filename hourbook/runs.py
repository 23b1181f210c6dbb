"""Which scheduled work was done for which period: each (job, period) once, whoever tries and however often."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Text
from sqlmodel import Field, Session, SQLModel, col, select

from base.columns import Instant


class JobRunRow(SQLModel, table=True):
    """A period for which a job was done; the row is committed together with what the job did."""

    __tablename__ = "job_run"

    job: str = Field(primary_key=True, sa_type=Text)
    period_key: str = Field(primary_key=True, sa_type=Text)
    done_at: datetime = Field(sa_type=Instant)
    outcome: str = Field(sa_type=Text)


def claim(session: Session, job: str, period_key: str, now: datetime, outcome: str) -> bool:
    """Take a period for the work of this transaction; return False where it was done before.

    If the transaction is undone, so is the claim; of two that claim at once, one commits.
    """
    if session.get(JobRunRow, (job, period_key)) is not None:
        return False
    session.add(JobRunRow(job=job, period_key=period_key, done_at=now, outcome=outcome))
    session.flush()
    return True


def done_periods(session: Session, job: str) -> dict[str, JobRunRow]:
    """Return the periods for which a job was done."""
    rows = session.exec(select(JobRunRow).where(JobRunRow.job == job).order_by(col(JobRunRow.period_key)))
    return {row.period_key: row for row in rows}
