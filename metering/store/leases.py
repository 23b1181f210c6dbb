"""Leases: who alone does a piece of work at the moment."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Text
from sqlmodel import Field, Session, SQLModel

from base.columns import Instant


class LeaseRow(SQLModel, table=True):
    """Who alone does a piece of work at the moment."""

    __tablename__ = "lease"

    name: str = Field(primary_key=True, sa_type=Text)
    holder: str = Field(sa_type=Text)
    expires_at: datetime = Field(sa_type=Instant)


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
