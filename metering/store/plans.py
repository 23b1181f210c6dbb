"""Rollup plans by number, and which dates are rolled up under each."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import Text, func
from sqlmodel import Field, Session, SQLModel, select

from base.columns import BigInt, Instant
from metering.plan import RollupPlan


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


def _plan_digest(plan: RollupPlan) -> str:
    return hashlib.sha256(plan.model_dump_json().encode()).hexdigest()
