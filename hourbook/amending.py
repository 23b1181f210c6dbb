"""The operator's words about events, recorded: each is previewed in hours first, and is a fact for ever after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from zoneinfo import ZoneInfo

import orjson
import polars as pl
from sqlalchemy import func
from sqlmodel import Session, select

from hourbook import facts
from hourbook.closes import closes_by_month
from hourbook.database import read_session, run_write
from hourbook.event_bills import usage_of
from hourbook.event_history import event_rows, rows_of
from hourbook.importing import accept_in
from hourbook.refreshing import plan_now, refresh
from hourbook.settings import Home
from metering import store as metering
from metering.amendments import AmendmentRefusedError, UnknownEventError, Word, backfilled, spoken
from metering.events import Collected
from metering.sealing import recorded
from metering.usage import hours
from pricing.catalog import Catalog

INBOX_KIND = "amendment"
SHOWN = ("core_hours", "card_hours", "node_hours", "wall_hours")
TRIES_BESIDE_OTHERS = 5


@dataclass(frozen=True)
class Effect:
    """What a word changes in one month, in hours."""

    month: str
    closed: bool  # then the change is charged with the next document, as an adjustment
    before: Mapping[str, str]
    after: Mapping[str, str]

    @property
    def difference(self) -> dict[str, str]:
        """What is added; below zero what is taken off."""
        return {name: str(Decimal(self.after[name]) - Decimal(self.before[name])) for name in SHOWN}


@dataclass(frozen=True)
class Spoken:
    """A word about one event, or about the events of a backfill, and its effect."""

    kind: str
    events: int
    revision: int  # of the new row; of a backfill the highest
    effects: tuple[Effect, ...]
    batch: int = 0  # the inbox batch it was recorded in; 0 for a preview

    @property
    def adjusts(self) -> tuple[str, ...]:
        """The closed months that it changes."""
        return tuple(effect.month for effect in self.effects if effect.closed)


@dataclass(frozen=True)
class _Change:
    """Rows to record, and the rows before and after of every event that they are about."""

    events: pl.DataFrame
    before: pl.DataFrame

    @property
    def after(self) -> pl.DataFrame:
        """All rows, with the new ones as the last recorded."""
        last = self.before["recorded_seq"].max()
        first = (last if isinstance(last, int) else 0) + 1
        new = recorded(self.events, first_seq=first, batch_seq=first)
        return pl.concat([self.before, new.select(self.before.columns)], how="vertical_relaxed")


def say_word(home: Home, source: str, event_id: str, word: Word, *, dry_run: bool = False) -> Spoken:
    """Amend, retract or revert one event, or only say what that would change."""

    def prepare() -> _Change:
        rows = event_rows(home, source, event_id)
        if rows.is_empty():
            raise UnknownEventError(source, event_id)
        return _Change(spoken(rows, word, home.now()), rows)

    return _record(home, word, prepare, dry_run=dry_run)


def backfill(home: Home, collected: Collected, word: Word, *, dry_run: bool = False) -> Spoken:
    """Bring in usage that no log holds, marked as such; a file of which anything cannot be used is refused whole."""
    if collected.rejected:
        told = "; ".join(row.message for row in collected.rejected[:3])
        raise AmendmentRefusedError(f"{len(collected.rejected)} row(s) cannot be used, so none is taken: {told}")
    if collected.events.is_empty():
        raise AmendmentRefusedError("there is no usage in it")

    def prepare() -> _Change:
        known = rows_of(home, collected.events)
        return _Change(backfilled(collected.events, known, word), known)

    return _record(home, word, prepare, dry_run=dry_run)


def _record(home: Home, word: Word, prepare: Callable[[], _Change], *, dry_run: bool) -> Spoken:
    """Record a word unless another one was recorded meanwhile: then it is prepared again, on top of that."""
    for _ in range(TRIES_BESIDE_OTHERS):
        with read_session(home.engine) as session:
            seen = _latest_word(session)
        refresh(home)
        change = prepare()
        with read_session(home.engine) as session:
            effects = tuple(_effects(session, change))
        latest = change.events["revision"].max()
        assert isinstance(latest, int)  # noqa: S101 - there is a row
        said = Spoken(word.kind, change.events.height, latest, effects)
        if dry_run:
            return said
        batch = run_write(home.engine, partial(_accept, home, seen, word, change.events))
        if batch is not None:
            refresh(home)
            return Spoken(said.kind, said.events, said.revision, said.effects, batch)
    raise AmendmentRefusedError("others speak about events at the same time; try again")


def _accept(home: Home, seen: int, word: Word, events: pl.DataFrame, session: Session) -> int | None:
    if _latest_word(session) != seen:
        return None
    payload = orjson.dumps([{**row} for row in events.to_dicts()])
    origin = f"{word.kind} by {word.by}"
    return accept_in(session, home, payload, Collected(events, (), {}), kind=INBOX_KIND, origin=origin).batch_seq


def _latest_word(session: Session) -> int:
    table = metering.InboxBatchRow
    return session.exec(select(func.max(table.batch_seq)).where(table.kind == INBOX_KIND)).one() or 0


def _effects(session: Session, change: _Change) -> Iterable[Effect]:
    """Yield the months in which hours change, in the billing zone."""
    catalog = Catalog.from_facts(facts.as_of(session))
    plan, zone = plan_now(session), ZoneInfo(catalog.zone_name)
    before, after = (_hours(usage_of(rows, plan), zone, catalog) for rows in (change.before, change.after))
    settled = max(closes_by_month(session), default="")
    nothing = dict.fromkeys(SHOWN, "0.000000")
    for month in sorted({*before, *after}):
        was, is_now = before.get(month, nothing), after.get(month, nothing)
        if was != is_now:
            yield Effect(month, month <= settled, was, is_now)


def _hours(rollup: pl.DataFrame, zone: ZoneInfo, catalog: Catalog) -> dict[str, dict[str, str]]:
    rows: Sequence[dict[str, str]] = hours(rollup, ["month"], zone=zone, clusters=catalog.clusters.values()).to_dicts()
    return {row["month"]: {name: row[name] for name in SHOWN} for row in rows}
