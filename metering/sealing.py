"""What sealing decides about a batch of events: how each is recorded, and which must not enter the lake.

Every decision looks only at rows recorded earlier, so it comes out the same however batches are grouped, and when a
sealer that was killed starts over.
"""

from __future__ import annotations

import polars as pl

from base.frames import check_frame
from metering.events import EVENT_SCHEMA, LAKE_SCHEMA
from metering.identity import KEY, canonical_facts, key_hash

# Codes of events that were readable, yet contradict what is known; the sealer finds them, no collector could.
START_CHANGED = "start_changed"
IDENTITY_COLLISION = "identity_collision"
CONFLICT = "conflict"
SEALER_CODES = (START_CHANGED, IDENTITY_COLLISION, CONFLICT)

HELD_COLUMNS = (*LAKE_SCHEMA, "code", "message")


def recorded(events: pl.DataFrame, *, first_seq: int, batch_seq: int) -> pl.DataFrame:
    """Return the events as lake rows, numbered on from `first_seq`."""
    check_frame(events, EVENT_SCHEMA, "collected events")
    day = pl.from_epoch("start_second", time_unit="s").dt.strftime("%Y-%m-%d")
    return events.with_columns(
        recorded_seq=pl.int_range(pl.len(), dtype=pl.Int64) + first_seq,
        batch_seq=pl.lit(batch_seq, pl.Int64),
        key_hash=key_hash(events),
        start_date=day,
    ).select(list(LAKE_SCHEMA))


def hold_back(batch: pl.DataFrame, known: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a batch into what may enter the lake and what goes to quarantine, with code and message.

    `known` is what the lake holds under the keys of the batch, in any partition.
    """
    rows = pl.concat([known.with_columns(new=pl.lit(value=False)), batch.with_columns(new=pl.lit(value=True))])
    shared = rows["key_hash"].filter(~rows["key_hash"].is_first_distinct()).unique()
    rows = rows.filter(pl.col("key_hash").is_in(shared.implode())).sort("recorded_seq", maintain_order=True)
    rows = rows.with_columns(canonical_facts(), db_index=pl.col("evidence").str.json_path_match("$.db_index"))
    held = []
    for judge in (_start_changed, _identity_collision, _conflict):
        judged = judge(rows).with_columns(wrong=pl.col("new") & pl.col("wrong").fill_null(value=False))
        held.append(judged.filter("wrong").select(HELD_COLUMNS))
        rows = judged.filter(~pl.col("wrong")).drop("wrong", "code", "message")
    back = pl.concat(held).sort("recorded_seq")
    return batch.filter(~pl.col("recorded_seq").is_in(back["recorded_seq"].implode())), back


def _start_changed(rows: pl.DataFrame) -> pl.DataFrame:
    known = pl.col("start_second").first().over(KEY)
    message = pl.format(
        "event {} of {} starts at second {}, but was recorded before as starting at {}; "
        "a source must never give one id to two starts",
        "id",
        "source",
        "start_second",
        known,
    )
    return rows.with_columns(wrong=pl.col("start_second") != known, code=pl.lit(START_CHANGED), message=message)


def _identity_collision(rows: pl.DataFrame) -> pl.DataFrame:
    known = pl.col("db_index").drop_nulls().first().over(KEY)
    message = pl.format(
        "event {} of {} comes from database row {}, an earlier one of the same id from row {}; "
        "find out whether they are two attempts",
        "id",
        "source",
        pl.col("db_index").fill_null(""),
        known.fill_null(""),
    )
    return rows.with_columns(wrong=pl.col("db_index") != known, code=pl.lit(IDENTITY_COLLISION), message=message)


def _conflict(rows: pl.DataFrame) -> pl.DataFrame:
    known = pl.col("facts").first().over(*KEY, "revision")
    message = pl.format(
        "event {} of {} was recorded before at revision {} with other usage; a correction must state a higher revision",
        "id",
        "source",
        "revision",
    )
    wrong = ~pl.col("revision_derived") & (pl.col("facts") != known)
    return rows.with_columns(wrong=wrong, code=pl.lit(CONFLICT), message=message)
