"""The check of all starts: an event that was recorded with two starts counts at the first one only.

Sealing compares a batch with its own dates and the recent ones. Whatever it could not see is found here: the keys
recorded since the last check are looked up in every partition, by their hashes; the full key decides. The check says up
to which recorded number no event counts twice, and a month is closed as of no later number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
from sqlmodel import Session

from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.refreshing import Progress, seal_waiting, sealed_to
from hourbook.settings import Home
from hourbook.settling import settle_all
from metering import store
from metering.events import Collected
from metering.lake import EventLake
from metering.starts import START_COLUMNS, listed, strikes, unstruck, wrong_starts

# Hashes held in memory at once, and events judged at once.
MOST_HASHES = 4_000_000
MOST_EVENTS = 10_000
# To be ready to look up a hash costs, for each date, as much as reading so many.
LOOKUP_COST = 40


@dataclass(frozen=True)
class StartCheck:
    """What a check of all starts came to."""

    checked_to: int  # as of this recorded number no event counts at two starts
    struck: int  # events that were struck from the partition of a wrong start
    resolved: int  # quarantine entries that the lake had settled


def check_starts(home: Home, progress: Progress = lambda _step, _done, _all: None) -> StartCheck:
    """Strike every event from the partitions of starts that are not its first recorded, and list these rows.

    Strikes come in through the inbox like anything else, so the check is repeated until it finds none to make.
    """
    lake = EventLake(home.lake)
    struck = 0
    while True:
        seal_waiting(home, lake)
        with read_session(home.engine) as session:
            checked, head = store.starts_checked_to(session), sealed_to(session)
        new = _strike_since(home, lake, checked, progress) if checked < head else 0
        struck += new
        if not new:
            break
    crash_point("starts:before_note")
    if checked < head:
        run_write(home.engine, lambda session: store.note_starts_checked(session, head, home.now()))
    crash_point("starts:after_note")
    return StartCheck(max(checked, head), struck, settle_all(home.engine, lake, home.now()))


def _strike_since(home: Home, lake: EventLake, checked: int, progress: Progress) -> int:
    """Strike what was recorded with a wrong start and touches a key recorded since; return how many strikes are new."""
    held = lake.partitions()
    dates = held["start_date"].to_list()
    passes = _passes(lake, held, checked)
    new = 0
    for number, predicate in enumerate(passes):
        done = number * len(dates)
        places = []
        for index, date in enumerate(dates):
            places.append(_hashes(lake, date, predicate).with_columns(date=pl.lit(index, pl.Int32)))
            progress("check starts", done + index + 1, len(passes) * len(dates))
        suspects = pl.concat(places).filter(pl.col("key_hash").is_duplicated())
        for some in _together(suspects):
            new += _strike(home, lake, some["key_hash"].unique(), [dates[index] for index in some["date"].unique()])
    return new


def _passes(lake: EventLake, held: pl.DataFrame, checked: int) -> list[pl.Expr]:
    """Return filters that together let through the hashes of all keys recorded since, a bounded number each."""
    fresh = held.filter(pl.col("recorded_seq") > checked)
    if fresh.is_empty():
        return []  # all that came since was held back
    since = lake.scan(fresh["start_date"].to_list()).filter(pl.col("recorded_seq") > checked)
    new, every = int(since.select(pl.len()).collect().item()), int(held["rows"].sum())
    parts = -(-every // MOST_HASHES)
    if new <= MOST_HASHES and new * held.height * LOOKUP_COST < every * parts:
        hashes = since.select("key_hash").unique().collect(engine="streaming")["key_hash"]
        return [pl.col("key_hash").is_in(hashes.implode())]
    # So many that reading every hash of the lake, part by part, is the shorter way.
    return [pl.col("key_hash").reinterpret(signed=False) % parts == part for part in range(parts)]


def _hashes(lake: EventLake, date: str, predicate: pl.Expr) -> pl.DataFrame:
    return lake.scan([date]).filter(predicate).select("key_hash").unique().collect(engine="streaming")


def _together(suspects: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the places of a bounded number of suspect hashes at a time, all places of a hash together."""
    ranked = suspects.with_columns(part=(pl.col("key_hash").rank("dense") - 1) // MOST_EVENTS)
    yield from ranked.partition_by("part", include_key=False) if suspects.height else ()


def _strike(home: Home, lake: EventLake, hashes: pl.Series, dates: list[str]) -> int:
    """Strike the events under these hashes that have wrong starts on some dates, and list their rows in quarantine."""
    mine = pl.col("key_hash").is_in(hashes.implode())
    rows = pl.concat([lake.scan([date]).filter(mine).select(START_COLUMNS).collect() for date in dates])
    wrong = wrong_starts(rows)
    if wrong.is_empty():
        return 0
    numbers = wrong["recorded_seq"].implode()
    found = lake.scan(wrong["start_date"].unique().to_list()).filter(mine, pl.col("recorded_seq").is_in(numbers))
    whole = found.collect().join(wrong.select("recorded_seq", "known"), on="recorded_seq").sort("recorded_seq")
    to_strike = strikes(whole.join(unstruck(wrong, rows).select("recorded_seq"), on="recorded_seq", how="semi"))

    def work(session: Session) -> None:
        store.quarantine_held(session, listed(whole), home.now())
        if to_strike.height:
            digest = hashlib.sha256(to_strike.write_ndjson().encode()).hexdigest()
            collected = Collected(to_strike, (), {})
            store.accept(session, collected, "check of all starts", digest, home.now(), kind="start_check")
        crash_point("starts:before_commit")

    run_write(home.engine, work)
    crash_point("starts:after_commit")
    return to_strike.height
