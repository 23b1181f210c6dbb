"""Rollup plans by number, and which dates are rolled up under each."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import Text, func
from sqlmodel import Field, Session, SQLModel, col, select

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
    changes: str = Field(sa_type=Text)  # files of later differences, one a line, which are added to it
    previous_files: str = Field(sa_type=Text)  # one a line; kept for whoever is still reading them

    @property
    def files(self) -> list[str]:
        """The files whose rows together are what was counted."""
        return [self.file, *self.changes.splitlines()]


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


def number_of_cuts(session: Session, plan: RollupPlan) -> int | None:
    """Return the number of the first plan that cuts as this one does: what is counted of a date depends on no more."""
    rows = session.exec(select(RollupPlanRow).order_by(col(RollupPlanRow.number)))
    known = ((row.number, RollupPlan.model_validate_json(row.body)) for row in rows)
    return next((n for n, other in known if (other.zones, other.hourly) == (plan.zones, plan.hourly)), None)


def register_partition(session: Session, start_date: str, number: int, *, recorded_seq: int, file: str) -> list[str]:
    """Note where a date lies that was counted as a whole; return the files that nobody needs any more."""
    row = session.get(RollupPartitionRow, (start_date, number))
    if row is None:
        whole = {"file": file, "changes": "", "previous_files": ""}
        row = RollupPartitionRow(start_date=start_date, plan_number=number, recorded_seq=recorded_seq, **whole)
        session.add(row)
        return []
    # Changes may have been put together without anything new being counted.
    if row.recorded_seq > recorded_seq or (row.recorded_seq == recorded_seq and row.file == file):
        return []
    unneeded = [name for name in row.previous_files.splitlines() if name != file]
    row.previous_files = "\n".join(name for name in row.files if name != file)
    row.recorded_seq, row.file, row.changes = recorded_seq, file, ""
    session.add(row)
    return unneeded


def register_change(
    session: Session, start_date: str, number: int, *, after: int, recorded_seq: int, file: str
) -> bool:
    """Note a difference to what was counted as of `after`; False where somebody counted further meanwhile."""
    row = session.get(RollupPartitionRow, (start_date, number))
    if row is None or row.recorded_seq != after:
        return False
    row.recorded_seq, row.changes = recorded_seq, "\n".join([*row.changes.splitlines(), file])
    session.add(row)
    return True


def _plan_digest(plan: RollupPlan) -> str:
    return hashlib.sha256(plan.model_dump_json().encode()).hexdigest()
