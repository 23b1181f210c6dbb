"""Pods that a collector knows: what they were like when they were last seen, so that one that vanishes is ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import Text, delete
from sqlmodel import Field, Session, SQLModel, col, select

from base.columns import BigInt, ForeignText, Instant

HELD, OVER, GONE = "held", "over", "gone"


class KnownPodRow(SQLModel, table=True):
    """A pod of a cluster as it was last seen."""

    __tablename__ = "known_pod"

    source: str = Field(primary_key=True, sa_type=Text)
    uid: str = Field(primary_key=True, sa_type=ForeignText)
    status: str = Field(
        sa_type=Text
    )  # held: holds its resources; over: its end is recorded; gone: it was taken for gone
    version: str = Field(sa_type=Text)  # of the pod, by the server's count
    body: str = Field(sa_type=Text)  # JSON of the pod and the model of its cards; "" unless it is held
    times_gone: int = Field(sa_type=BigInt)
    changed_at: datetime = Field(sa_type=Instant)


def known_pods(session: Session, source: str) -> dict[str, KnownPodRow]:
    """Return the known pods of a source by their uid."""
    rows = session.exec(select(KnownPodRow).where(KnownPodRow.source == source))
    return {row.uid: row for row in rows}


def save_known_pods(session: Session, rows: Iterable[KnownPodRow]) -> None:
    """Note what pods are like now, for the caller to commit with what was recorded of them."""
    for row in rows:
        session.merge(row)


def forget_pods(session: Session, source: str, uids: Collection[str]) -> None:
    """Forget pods of which nothing more is to come."""
    every = sorted(uids)
    for first in range(0, len(every), 500):  # SQLite takes a limited number of parameters
        some = col(KnownPodRow.uid).in_(every[first : first + 500])
        session.exec(delete(KnownPodRow).where(col(KnownPodRow.source) == source, some))
