"""What senders state of each hour, and what a person decided to accept although it is not certain. Append only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Index, Text, func
from sqlmodel import Field, Session, SQLModel, col, select

from base.columns import BigInt, ForeignText, Instant
from metering.completeness import Statement


class StatementRow(SQLModel, table=True):
    """What a sender stated of one hour of a cluster; of several, the last counts."""

    __tablename__ = "hour_statement"
    __table_args__ = (Index("hour_statement_of", "cluster", "hour_second"),)

    number: int = Field(primary_key=True, sa_type=BigInt, sa_column_kwargs={"autoincrement": False})
    cluster: str = Field(sa_type=ForeignText)
    source: str = Field(sa_type=ForeignText)
    hour_second: int = Field(sa_type=BigInt)
    events: int = Field(sa_type=BigInt)
    checksum: str = Field(sa_type=Text)
    stated_by: str = Field(sa_type=ForeignText)  # key or file
    received_at: datetime = Field(sa_type=Instant)


class WaiverRow(SQLModel, table=True):
    """What a person accepted although it is not certain, and why: an hour of a cluster, or a runaway's cap."""

    __tablename__ = "waiver"
    __table_args__ = (Index("waiver_of", "kind", "subject"),)

    number: int = Field(primary_key=True, sa_type=BigInt, sa_column_kwargs={"autoincrement": False})
    kind: str = Field(sa_type=Text)  # "gap", "runaway"
    subject: str = Field(sa_type=ForeignText)  # cluster, or the source of the attempt
    detail: str = Field(sa_type=ForeignText)  # the hour as seconds since 1970, or the id of the attempt
    basis: int = Field(sa_type=BigInt)  # gap: the latest statement of the hour that the person saw; 0 for none
    reason: str = Field(sa_type=ForeignText)
    waived_by: str = Field(sa_type=ForeignText)
    waived_at: datetime = Field(sa_type=Instant)


@dataclass(frozen=True)
class Waiver:
    """What a person accepts: one hour of a cluster, or one runaway."""

    kind: str
    subject: str
    detail: str
    basis: int = 0


def add_statements(session: Session, statements: Sequence[Statement], stated_by: str, now: datetime) -> int:
    """Record statements; one that repeats the last of its hour changes nothing. Return how many were new."""
    if not statements:
        return 0
    number = session.exec(select(func.max(StatementRow.number))).one() or 0
    seconds = [one.hour_second for one in statements]
    clusters = {one.cluster for one in statements}
    known = {
        (row.cluster, row.source, row.hour_second): (row.events, row.checksum)
        for row in latest_statements(session, min(seconds), max(seconds) + 1, clusters)
    }
    added = 0
    for one in statements:
        key, said = (one.cluster, one.source, one.hour_second), (one.events, one.checksum)
        if known.get(key) == said:
            continue
        known[key] = said
        added += 1
        row = StatementRow(
            number=number + added,
            cluster=one.cluster,
            source=one.source,
            hour_second=one.hour_second,
            events=one.events,
            checksum=one.checksum,
            stated_by=stated_by,
            received_at=now,
        )
        session.add(row)
    session.flush()
    return added


def latest_statements(
    session: Session, begin_second: int, end_second: int, clusters: Iterable[str]
) -> list[StatementRow]:
    """Return the last statement of each cluster, source and hour from one second until another, exclusive."""
    hour = col(StatementRow.hour_second)
    rows = select(StatementRow).where(hour >= begin_second, hour < end_second)
    rows = rows.where(col(StatementRow.cluster).in_(sorted(clusters))).order_by(col(StatementRow.number))
    return list({(row.cluster, row.source, row.hour_second): row for row in session.exec(rows)}.values())


def stated_clusters(session: Session, begin_second: int, end_second: int) -> list[str]:
    """Return the clusters of which anything was stated from one second until another, exclusive, by name."""
    hour = col(StatementRow.hour_second)
    rows = select(StatementRow.cluster).where(hour >= begin_second, hour < end_second).distinct()
    return sorted(session.exec(rows))


def add_waivers(session: Session, waivers: Sequence[Waiver], *, reason: str, waived_by: str, now: datetime) -> None:
    """Record what a person accepts, and why."""
    number = session.exec(select(func.max(WaiverRow.number))).one() or 0
    for number_of, one in enumerate(waivers, start=number + 1):
        row = WaiverRow(
            number=number_of,
            kind=one.kind,
            subject=one.subject,
            detail=one.detail,
            basis=one.basis,
            reason=reason,
            waived_by=waived_by,
            waived_at=now,
        )
        session.add(row)
    session.flush()


def waivers(session: Session, kind: str, subjects: Iterable[str] | None = None) -> list[WaiverRow]:
    """Return what was accepted, oldest first."""
    rows = select(WaiverRow).where(WaiverRow.kind == kind).order_by(col(WaiverRow.number))
    if subjects is not None:
        rows = rows.where(col(WaiverRow.subject).in_(sorted(subjects)))
    return list(session.exec(rows))
