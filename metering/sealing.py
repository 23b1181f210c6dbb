"""What sealing decides about a batch of events: how each is recorded, and which must not enter the lake.

Every decision looks only at rows recorded earlier, so it comes out the same however batches are grouped, and when a
sealer that was killed starts over.
"""

from __future__ import annotations

import polars as pl

from base.frames import check_frame
from metering.events import EVENT_SCHEMA, LAKE_SCHEMA
from metering.identity import AMENDED, KEY, SECONDS_OF_DATE, STRUCK, canonical_facts, key_hash

# Codes of events that were readable, yet contradict what is known; the sealer finds them, no collector could.
START_CHANGED = "start_changed"
CLUSTER_CHANGED = "cluster_changed"
IDENTITY_COLLISION = "identity_collision"
CONFLICT = "conflict"
SEALER_CODES = (START_CHANGED, CLUSTER_CHANGED, IDENTITY_COLLISION, CONFLICT)

# An event that was held back, with the reason.
HELD_SCHEMA = pl.Schema([*LAKE_SCHEMA.items(), ("code", pl.String()), ("message", pl.String())])


def recorded(events: pl.DataFrame, *, first_seq: int, batch_seq: int) -> pl.DataFrame:
    """Return the events as lake rows, numbered on from `first_seq`."""
    check_frame(events, EVENT_SCHEMA, "collected events")
    day = events["start_second"] // SECONDS_OF_DATE
    days = day.unique()
    dates = pl.from_epoch(days * SECONDS_OF_DATE, time_unit="s").dt.strftime("%Y-%m-%d")
    return events.with_columns(
        recorded_seq=pl.int_range(pl.len(), dtype=pl.Int64) + first_seq,
        batch_seq=pl.lit(batch_seq, pl.Int64),
        key_hash=key_hash(events),
        # Where there are no events at all, the replacement keeps the type of what it replaces.
        start_date=day.replace_strict(days, dates, return_dtype=pl.String).cast(pl.String),
    ).select(list(LAKE_SCHEMA))


def hold_back(batch: pl.DataFrame, known: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a batch into what may enter the lake and what goes to quarantine, with code and message.

    `known` is what the lake holds under the keys of the batch, in the partitions that were looked at. Only rows that
    share their hash with another are looked at closely.
    """
    hashes = batch["key_hash"]
    shared = pl.concat([known["key_hash"], hashes.filter(~hashes.is_first_distinct())]).unique()
    contested = batch.filter(pl.col("key_hash").is_in(shared.implode()))
    if contested.is_empty():
        return batch, HELD_SCHEMA.to_frame()
    rows = pl.concat([_looked_at(known, new=False), _looked_at(contested, new=True)]).sort("recorded_seq")
    rows = rows.with_columns(event=_event_numbers(rows))
    held = []
    for code, judge, message in _JUDGES:
        judged = judge(rows).with_columns(wrong=pl.col("new") & pl.col("wrong").fill_null(value=False))
        wrong = judged.filter("wrong")
        held.append(wrong.select("recorded_seq", code=pl.lit(code), message=message(pl.col("known"))))
        rows = judged.filter(~pl.col("wrong")).drop("wrong", "known")
    back = contested.join(pl.concat(held), on="recorded_seq").sort("recorded_seq").select(HELD_SCHEMA.names())
    return batch.filter(~pl.col("recorded_seq").is_in(back["recorded_seq"].implode())), back


def _looked_at(rows: pl.DataFrame, *, new: bool) -> pl.DataFrame:
    """Return what the decisions look at; an operator's word speaks for no row of a scheduler's database."""
    said = pl.col("evidence").str.json_path_match("$.db_index")
    return rows.select(
        *KEY,
        "key_hash",
        "revision",
        "revision_derived",
        "start_second",
        "cluster",
        "recorded_seq",
        canonical_facts(),
        strike=pl.col("revision") >= STRUCK,
        said_start=pl.col("evidence").str.json_path_match("$.start_second").cast(pl.Int64, strict=False),
        db_index=pl.when(pl.col("revision") < AMENDED).then(said),
        new=pl.lit(value=new),
    )


def _event_numbers(rows: pl.DataFrame) -> pl.Series:
    """Return one number for all rows of an event: what follows would compare the text of keys many times."""
    hashes = pl.col("key_hash")
    same = pl.all_horizontal(pl.col(column) == pl.col(column).first().over(hashes) for column in KEY)
    if rows.select(same.all()).item():
        return rows["key_hash"]
    return rows.select(pl.struct(KEY).rank("dense").cast(pl.Int64)).to_series()


def _start_changed(rows: pl.DataFrame) -> pl.DataFrame:
    """Hold back what starts at another second than the first row known, or than a strike before it says."""
    strike_seq = pl.col("recorded_seq").filter("strike").first().over("event")
    stated = pl.col("said_start").filter("strike").first().over("event")
    first = pl.col("start_second").filter(~pl.col("strike")).first().over("event")
    known = pl.when(pl.col("recorded_seq") > strike_seq).then(stated).otherwise(first)
    wrong = ~pl.col("strike") & (pl.col("start_second") != known)
    return rows.with_columns(wrong=wrong, known=known)


def start_changed_message(known: pl.Expr) -> pl.Expr:
    """Say of each row that its start contradicts a known one."""
    begins, began = (
        pl.from_epoch(second, time_unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ") for second in ("start_second", known)
    )
    return pl.format(
        "event {} of {} starts at {}, but was recorded before as starting at {}; "
        "a source must never give one id to two starts",
        "id",
        "source",
        begins,
        began,
    )


def _cluster_changed(rows: pl.DataFrame) -> pl.DataFrame:
    """Hold back what is of another cluster than the first row known: usage must not move between clusters."""
    known = pl.col("cluster").filter(~pl.col("strike")).first().over("event")
    return rows.with_columns(wrong=~pl.col("strike") & (pl.col("cluster") != known), known=known)


def _cluster_changed_message(known: pl.Expr) -> pl.Expr:
    return pl.format(
        "event {} of {} is said to be of cluster {}, but was recorded before as of {}; find out which sender is wrong: "
        "a cluster needs a source, or ids, of its own; what never ran on {} is retracted with hourbook event retract",
        "id",
        "source",
        "cluster",
        known,
        known,
    )


def _identity_collision(rows: pl.DataFrame) -> pl.DataFrame:
    """Hold back what comes from another database row than the first of the id that was let in."""
    # Until one names a database row and is let in, only rows that name none were: a row that contradicts those at its
    # revision is held as a conflict, and what it names does not count.
    nameless = pl.col("db_index").is_null()
    place = ("event", "revision")
    nameless_facts = pl.col("facts").filter(nameless).first().over(place)
    nameless_seq = pl.col("recorded_seq").filter(nameless).first().over(place)
    refused = (
        pl.col("new")
        & ~pl.col("revision_derived")
        & (nameless_seq < pl.col("recorded_seq"))
        & (pl.col("facts") != nameless_facts)
    ).fill_null(value=False)
    names = rows.with_columns(let_in=~nameless & ~refused)
    known = pl.col("db_index").filter("let_in").first().over("event")
    known_seq = pl.col("recorded_seq").filter("let_in").first().over("event")
    wrong = (pl.col("db_index") != known) & (pl.col("recorded_seq") > known_seq)
    return names.with_columns(wrong=wrong, known=known).drop("let_in")


def _identity_collision_message(known: pl.Expr) -> pl.Expr:
    return pl.format(
        "event {} of {} comes from database row {}, an earlier one of the same id from row {}; "
        "find out whether they are two attempts",
        "id",
        "source",
        "db_index",
        known,
    )


def _conflict(rows: pl.DataFrame) -> pl.DataFrame:
    """Hold back other usage at a revision that was stated before."""
    known = pl.col("facts").first().over("event", "revision")
    wrong = ~pl.col("revision_derived") & ~pl.col("strike") & (pl.col("facts") != known)
    return rows.with_columns(wrong=wrong, known=known)


def _conflict_message(_known: pl.Expr) -> pl.Expr:
    return pl.format(
        "event {} of {} was recorded before at revision {} with other usage; a correction must state a higher revision",
        "id",
        "source",
        "revision",
    )


# In this order: what is held back for one reason decides nothing about the next.
_JUDGES = (
    (START_CHANGED, _start_changed, start_changed_message),
    (CLUSTER_CHANGED, _cluster_changed, _cluster_changed_message),
    (IDENTITY_COLLISION, _identity_collision, _identity_collision_message),
    (CONFLICT, _conflict, _conflict_message),
)
