"""API keys and page sessions: who may call, as which role, for which customer. Only hashes of secrets are stored."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, cast

from sqlalchemy import Text, delete
from sqlmodel import Field, Session, SQLModel, col, select

from base.columns import Instant
from hourbook import facts
from hourbook.receiving import UnknownCustomerError
from pricing.catalog import Catalog

Role = Literal["collector", "customer", "finance", "operator"]
ROLES: tuple[Role, ...] = ("collector", "customer", "finance", "operator")

ID_BYTES = 6
SECRET_BYTES = 32  # 256 bits: no guessing, so a plain SHA-256 keeps it
SESSION_IDLE = timedelta(hours=2)
SESSION_LONGEST = timedelta(hours=12)
SEEN_EVERY = timedelta(minutes=1)  # a visit is noted at most so often: reading should rarely write

_KEY = re.compile(r"hb_([0-9a-f]{12})_([0-9a-f]{64})", re.ASCII)
_NO_HASH = "0" * 64


class KeyRefusedError(ValueError):
    """A key that cannot be made or revoked as asked."""


class ApiKeyRow(SQLModel, table=True):
    """A key as it was made; its secret is known to its owner alone."""

    __tablename__ = "api_key"

    id: str = Field(primary_key=True, sa_type=Text)
    secret_sha256: str = Field(sa_type=Text)
    role: str = Field(sa_type=Text)
    customer: str = Field(sa_type=Text)  # "" but for the role customer
    clusters: str = Field(sa_type=Text)  # JSON: of a collector, the only ones it reports of; empty for any
    created_at: datetime = Field(sa_type=Instant)


class ApiKeyRevocationRow(SQLModel, table=True):
    """The end of a key."""

    __tablename__ = "api_key_revocation"

    id: str = Field(primary_key=True, sa_type=Text, foreign_key="api_key.id")
    revoked_at: datetime = Field(sa_type=Instant)


class WebSessionRow(SQLModel, table=True):
    """Somebody signed in to the pages with a key; the browser holds the token, we its hash."""

    __tablename__ = "web_session"

    token_sha256: str = Field(primary_key=True, sa_type=Text)
    key_id: str = Field(sa_type=Text, foreign_key="api_key.id")
    started_at: datetime = Field(sa_type=Instant)
    seen_at: datetime = Field(sa_type=Instant)


@dataclass(frozen=True)
class Caller:
    """Who calls: the key, what it may do, and for the role customer whose data it may see."""

    key_id: str
    role: Role
    customer: str = ""
    clusters: tuple[str, ...] = ()

    def may_see(self, customer: str) -> bool:
        """Tell whether this customer's data is the caller's business."""
        return self.role == "finance" or (self.role == "customer" and self.customer == customer)

    def may_report(self, cluster: str) -> bool:
        """Tell whether the caller reports of this cluster: a collector of any, unless its key names some."""
        return self.role == "collector" and (not self.clusters or cluster in self.clusters)


@dataclass(frozen=True)
class KeyEntry:
    """A key as it is listed."""

    id: str
    role: str
    customer: str
    created_at: datetime
    revoked_at: datetime | None
    clusters: tuple[str, ...] = ()


def create_key(session: Session, role: Role, now: datetime, *, customer: str = "", clusters: Sequence[str] = ()) -> str:
    """Make a key and return it in full: the only time that its secret is seen."""
    if role not in ROLES:
        raise KeyRefusedError(f"role {role!r} is unknown; a key is one of {', '.join(ROLES)}")
    if (role == "customer") != bool(customer):
        raise KeyRefusedError("a customer's key names its customer, and no other key does")
    if customer and customer not in Catalog.from_facts(facts.as_of(session)).customers:
        raise UnknownCustomerError(customer)
    if clusters and role != "collector":
        raise KeyRefusedError("only a collector's key names clusters")
    key_id, secret = secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES)
    named = json.dumps(sorted(set(clusters)), ensure_ascii=False)
    row = ApiKeyRow(
        id=key_id, secret_sha256=_hash(secret), role=role, customer=customer, clusters=named, created_at=now
    )
    session.add(row)
    session.flush()
    return f"hb_{key_id}_{secret}"


def revoke_key(session: Session, key_id: str, now: datetime) -> bool:
    """End a key from this moment; return False where it was ended before."""
    if session.get(ApiKeyRow, key_id) is None:
        raise KeyRefusedError(f"there is no key {key_id!r}; `hourbook key list` shows them")
    if session.get(ApiKeyRevocationRow, key_id) is not None:
        return False
    session.add(ApiKeyRevocationRow(id=key_id, revoked_at=now))
    session.flush()
    return True


def list_keys(session: Session) -> list[KeyEntry]:
    """Return every key ever made, oldest first, without secrets."""
    ended = {row.id: row.revoked_at for row in session.exec(select(ApiKeyRevocationRow))}
    rows = session.exec(select(ApiKeyRow).order_by(col(ApiKeyRow.created_at), col(ApiKeyRow.id)))
    return [KeyEntry(row.id, row.role, row.customer, row.created_at, ended.get(row.id), _clusters(row)) for row in rows]


def caller_of_key(session: Session, key: str) -> Caller | None:
    """Return who holds this key; None where it is unknown, wrong or revoked."""
    parts = _KEY.fullmatch(key)
    if parts is None:
        return None
    row = session.get(ApiKeyRow, parts[1])
    # Compared in constant time, and for an unknown id too, so that the time taken tells nothing.
    equal = hmac.compare_digest(_hash(parts[2]), row.secret_sha256 if row else _NO_HASH)
    return _caller(session, row) if row and equal else None


def _caller(session: Session, row: ApiKeyRow) -> Caller | None:
    if session.get(ApiKeyRevocationRow, row.id) is not None:
        return None
    return Caller(row.id, cast("Role", row.role), row.customer, _clusters(row))


def _clusters(row: ApiKeyRow) -> tuple[str, ...]:
    return tuple(json.loads(row.clusters))


def start_session(session: Session, caller: Caller, now: datetime) -> str:
    """Sign a caller in and return the new token for the browser; sessions that are long over are forgotten."""
    session.exec(delete(WebSessionRow).where(col(WebSessionRow.started_at) < now - SESSION_LONGEST))
    token = secrets.token_hex(SECRET_BYTES)
    session.add(WebSessionRow(token_sha256=_hash(token), key_id=caller.key_id, started_at=now, seen_at=now))
    session.flush()
    return token


def caller_of_session(session: Session, token: str, now: datetime) -> Caller | None:
    """Return who is signed in with this token; None where it ran out, was ended, or its key was revoked."""
    row = session.get(WebSessionRow, _hash(token))
    if row is None or now - row.started_at >= SESSION_LONGEST or now - row.seen_at >= SESSION_IDLE:
        return None
    return _caller(session, session.get_one(ApiKeyRow, row.key_id))


def visit_is_due(session: Session, token: str, now: datetime) -> bool:
    """Tell whether the last visit was noted so long ago that this one should be noted, too."""
    row = session.get(WebSessionRow, _hash(token))
    return row is not None and now - row.seen_at >= SEEN_EVERY


def note_visit(session: Session, token: str, now: datetime) -> None:
    """Note that a session was used."""
    row = session.get(WebSessionRow, _hash(token))
    if row is not None:
        row.seen_at = max(row.seen_at, now)
        session.add(row)


def end_session(session: Session, token: str) -> None:
    """Sign out: the token is worth nothing from now on."""
    session.exec(delete(WebSessionRow).where(col(WebSessionRow.token_sha256) == _hash(token)))


def form_token(token: str) -> str:
    """Return what a form of this browser must send along: another site cannot know it."""
    return hmac.new(token.encode(), b"hourbook form", hashlib.sha256).hexdigest()


def is_form_token(token: str, given: str) -> bool:
    """Tell whether a form comes from a page that we made for this browser."""
    return hmac.compare_digest(form_token(token).encode(), given.encode())


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
