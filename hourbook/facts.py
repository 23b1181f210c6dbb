"""Facts about the operator, its customers, prices and contracts: recorded, never edited, each as of a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Column, ForeignKey, Index, Table, Text, func, insert, select
from sqlalchemy.orm import Session
from sqlmodel import SQLModel

from base.columns import BigInt, Instant

FactKey = tuple[str, str]  # kind and key: ("customers", "u-north-physics")

APPLY_RUN = Table(
    "apply_run",
    SQLModel.metadata,
    Column("apply_seq", BigInt, primary_key=True, autoincrement=False),
    Column("recorded_at", Instant, nullable=False),
    Column("source", Text, nullable=False),
    Column("person", Text, nullable=False),
)

FACT = Table(
    "fact",
    SQLModel.metadata,
    Column("seq", BigInt, primary_key=True, autoincrement=False),
    Column("apply_seq", BigInt, ForeignKey("apply_run.apply_seq"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Index("fact_by_key", "kind", "key", "seq"),
)


class FactError(ValueError):
    """A fact that would not read back as it was written."""


@dataclass(frozen=True)
class Changes:
    """What recording facts did; `apply_seq` is the number as of which they all hold."""

    apply_seq: int
    added: tuple[FactKey, ...] = ()
    changed: tuple[FactKey, ...] = ()
    unchanged: tuple[FactKey, ...] = ()


def record(
    session: Session, facts: Mapping[FactKey, Mapping[str, Any]], now: datetime, *, source: str = "", person: str = ""
) -> Changes:
    """Record facts, each as a new version where it differs from the newest; the same facts again change nothing."""
    connection = session.connection()
    texts = {fact: _text(fact, body) for fact, body in facts.items()}
    newest = _newest(session, None)
    added = tuple(sorted(fact for fact in texts if fact not in newest))
    changed = tuple(sorted(fact for fact in texts if fact in newest and newest[fact] != texts[fact]))
    unchanged = tuple(sorted(texts.keys() - set(added) - set(changed)))
    apply_seq = latest(session)
    if not added and not changed:
        return Changes(apply_seq, unchanged=unchanged)
    apply_seq += 1
    run = {"apply_seq": apply_seq, "recorded_at": now, "source": source, "person": person}
    connection.execute(insert(APPLY_RUN), run)
    first = connection.execute(select(func.coalesce(func.max(FACT.c.seq), 0))).scalar_one() + 1
    rows = [
        {"seq": seq, "apply_seq": apply_seq, "kind": kind, "key": key, "body": texts[kind, key], "recorded_at": now}
        for seq, (kind, key) in enumerate(sorted((*added, *changed)), start=first)
    ]
    connection.execute(insert(FACT), rows)
    return Changes(apply_seq, added, changed, unchanged)


def latest(session: Session) -> int:
    """Return the number of the latest recording; 0 where nothing is recorded yet."""
    number: int = session.connection().execute(select(func.coalesce(func.max(APPLY_RUN.c.apply_seq), 0))).scalar_one()
    return number


def as_of(session: Session, apply_seq: int | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """Return every fact, by kind and key, in the version that held as of a recording; without a number, the newest."""
    facts: dict[str, dict[str, dict[str, Any]]] = {}
    for (kind, key), body in sorted(_newest(session, apply_seq).items()):
        facts.setdefault(kind, {})[key] = orjson.loads(body)
    return facts


def _newest(session: Session, apply_seq: int | None) -> dict[FactKey, str]:
    last = select(func.max(FACT.c.seq)).group_by(FACT.c.kind, FACT.c.key)
    if apply_seq is not None:
        last = last.where(FACT.c.apply_seq <= apply_seq)
    query = select(FACT.c.kind, FACT.c.key, FACT.c.body).where(FACT.c.seq.in_(last))
    return {(kind, key): body for kind, key, body in session.connection().execute(query)}


def _text(fact: FactKey, body: Mapping[str, Any]) -> str:
    """Write a body in its one canonical form, by which versions are compared."""
    _refuse_floats(fact, body)
    try:
        return orjson.dumps(dict(body), option=orjson.OPT_SORT_KEYS).decode()
    except TypeError as error:
        raise FactError(f"{fact[0]} {fact[1]!r} cannot be written as JSON: {error}; write decimals as text") from error


def _refuse_floats(fact: FactKey, value: object) -> None:
    if isinstance(value, float):
        raise FactError(f"{fact[0]} {fact[1]!r} holds the inexact number {value}; write decimals as text")
    if isinstance(value, Mapping):
        for part in value.values():
            _refuse_floats(fact, part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _refuse_floats(fact, part)
