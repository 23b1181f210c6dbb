"""Which rows of one date do not count, found by looking closely only at those that may not.

Nearly every event was told once. The few others are judged by their full key, and most of them need no rule: they agree
on the latest revision. What is left, some disputes and the operator's words, `metering.identity` decides.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from metering.identity import AMENDED, KEY, winners
from metering.names import WHO, Names
from metering.rollup import holds_something

# What is read, besides what every event is counted by, of rows that may not count.
CONTESTED = (
    "key_hash",
    *KEY,
    "revision",
    "revision_derived",
    "recorded_seq",
    "state",
    "memory_bytes",
    "counters",
)
# Equal numbers mean equal text, so these are the usage facts of identity.
_FACTS = (
    "who_number",
    "cards_number",
    "state",
    "start_second",
    "end_second",
    "ended",
    "suspended_seconds",
    "cpus",
    "nodes",
    "memory_bytes",
    "counters",
)


# Reads recorded number and evidence of the rows with some recorded numbers.
EvidenceOf = Callable[[pl.Series], pl.DataFrame]


def repeated(hashes: pl.Series) -> pl.Series:
    """Return the hashes that occur more than once."""
    in_order = hashes.sort()
    return in_order.filter(in_order == in_order.shift(1)).unique()


def losers(rows: pl.DataFrame, names: Names, evidence_of: EvidenceOf) -> pl.DataFrame:
    """Return the rows that do not count: of an event told before or replaced later, or one that holds nothing.

    Whoever shares a key hash with any of the rows must be among them.
    """
    rows = rows.sort("key_hash", "revision", "recorded_seq", descending=[False, True, False])
    same_hash = rows["key_hash"] == rows["key_hash"].shift(1)
    spoken = rows["revision"] >= AMENDED
    disputed = rows["key_hash"].filter((same_hash & _differs(rows)).fill_null(value=False) | spoken)
    is_disputed = rows["key_hash"].is_in(disputed.unique().implode())
    # Of rows that agree the first in this order is the first that was recorded of the latest revision. They may have
    # stated different ends beyond one cap: then identity may name another of them, which counts as much.
    agreed = rows.filter(~is_disputed & same_hash.fill_null(value=False))
    parts = [agreed]
    if disputed.len():
        judged = _with_evidence(with_text(rows.filter(is_disputed), names), evidence_of)
        parts.append(judged.join(winners(judged), on="recorded_seq", how="anti").select(rows.columns))
    lost = pl.concat(parts)
    counted = _may_be_nothing(rows, names)
    return pl.concat([lost, counted.join(lost, on="recorded_seq", how="anti")])


def with_text(rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    """Add the text that the rows' numbers stand for."""
    who = [names.who[column].gather(rows["who_number"]) for column in WHO]
    return rows.with_columns(*who, names.cards.gather(rows["cards_number"]))


def _with_evidence(rows: pl.DataFrame, evidence_of: EvidenceOf) -> pl.DataFrame:
    """Add what identity looks at besides: what running attempts stated before they were capped."""
    running = rows.filter(~pl.col("ended"))["recorded_seq"]
    if running.is_empty():
        return rows.with_columns(evidence=pl.lit("{}"))
    return rows.join(evidence_of(running), on="recorded_seq", how="left", maintain_order="left")


def _differs(rows: pl.DataFrame) -> pl.Series:
    """Tell of each row whether it is not a word about the event before it that agrees with it."""
    other_key = pl.any_horizontal(pl.col(column) != pl.col(column).shift(1) for column in KEY)
    other_facts = pl.any_horizontal(pl.col(column) != pl.col(column).shift(1) for column in _FACTS)
    same_revision = pl.col("revision") == pl.col("revision").shift(1)
    return rows.select(differs=other_key | (same_revision & other_facts)).to_series()


def _may_be_nothing(rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    empty = rows.filter((pl.col("cpus") == 0) & (pl.col("nodes") == 0))
    return with_text(empty, names).filter(~holds_something()).select(rows.columns)
