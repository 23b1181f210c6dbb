"""Quarantine entries that the lake settles: a readable row, or a later word, of the event that was left open."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial

import polars as pl
from sqlalchemy import Engine

from hourbook.database import read_session, run_write
from metering import store
from metering.identity import KEY, key_hash, winners
from metering.lake import EventLake
from metering.sealing import IDENTITY_COLLISION, SEALER_CODES

REASON = "a readable row of the event is kept"


def settled_by_group(engine: Engine, lake: EventLake, group: pl.DataFrame, batch_seqs: Collection[int]) -> pl.DataFrame:
    """Return the open entries that a sealed group settles: those of its events, and those that came with it.

    Entries that came with it are compared with the group's dates and those of the entry's month; the check of all
    starts compares them with every date.
    """
    with read_session(engine) as session:
        entries = store.open_entries(session).rename({"event_id": "id"})
    if entries.is_empty():
        return _none_settled()
    came = entries["batch_seq"].is_in(list(batch_seqs))
    theirs = entries.filter(came | entries["number"].is_in(_of_group(entries, group).implode()))
    months = theirs.filter(pl.col("batch_seq").is_in(list(batch_seqs)))["month"].unique().to_list()
    of_group = set(group["start_date"].unique())
    return settled(theirs, lake, [date for date in lake.dates() if date in of_group or date[:7] in months])


def _of_group(entries: pl.DataFrame, group: pl.DataFrame) -> pl.Series:
    return entries.join(group.select(KEY).unique(), on=KEY, how="semi")["number"]


def settled(
    entries: pl.DataFrame,
    lake: EventLake,
    dates: Collection[str],
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> pl.DataFrame:
    """Return the entries that what the lake holds on some dates has settled, each with the event that did.

    A row that could not be read is settled by a row of the same event recorded after it, or by any that says how the
    event ended. An event that was held back is settled only by a later word of its source, and two database rows
    under one id only by a person: they may be two attempts.
    """
    found = [_none_settled()]
    hashes = key_hash(entries).unique()
    for done, date in enumerate(dates if len(hashes) else [], start=1):
        rows = winners(lake.scan([date]).filter(pl.col("key_hash").is_in(hashes.implode())).collect())
        known = rows.select(*KEY, "recorded_seq", "ended", known_batch="batch_seq")
        found.append(entries.join(known, on=KEY).filter(_settles()).select("number", "source", "id", "recorded_seq"))
        progress(done, len(dates))
    return pl.concat(found).unique("number", keep="first", maintain_order=True)


def _settles() -> pl.Expr:
    """Tell whether the winning row of an event answers what an entry left open."""
    later = pl.col("known_batch") > pl.col("batch_seq")
    # A row that could not be read might have been a later word than a running one known before.
    read_since = pl.col("ended") & ~pl.col("code").is_in(SEALER_CODES)
    return (pl.col("code") != IDENTITY_COLLISION) & (later | read_since)


def _none_settled() -> pl.DataFrame:
    return pl.DataFrame(schema={"number": pl.Int64, "source": pl.String, "id": pl.String, "recorded_seq": pl.Int64})


def settled_by(rows: pl.DataFrame) -> dict[int, str]:
    """Say of each settled entry, by number, which event settled it."""
    event = pl.format("event {} of {}, recorded as {}", "id", "source", "recorded_seq")
    return dict(rows.select("number", event).iter_rows())


def settle_all(engine: Engine, lake: EventLake, now: datetime) -> int:
    """Resolve every open entry that the lake settles, whatever its date; return how many."""
    with read_session(engine) as session:
        entries = store.open_entries(session).rename({"event_id": "id"})
    resolved = settled_by(settled(entries, lake, lake.dates() if entries.height else ()))
    if not resolved:
        return 0
    return run_write(engine, partial(store.resolve_entries, resolved_by=resolved, reason=REASON, now=now))
