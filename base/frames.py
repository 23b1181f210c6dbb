"""Checks on polars frames: the declared schema, no nulls, no silent overflow."""

from __future__ import annotations

import polars as pl

# Int64 sums wrap silently, so a sum is only taken where max(|value|) × rows stays below this.
OVERFLOW_GUARD = 2**62


class FrameError(ValueError):
    """A frame is not what its declared schema says; the message names the columns."""


def check_frame(frame: pl.DataFrame, schema: pl.Schema, name: str) -> pl.DataFrame:
    """Return the frame with the columns in declared order, or name what is missing, extra, mistyped or null."""
    have = frame.schema
    missing = [column for column in schema if column not in have]
    extra = [column for column in have if column not in schema]
    wrong = [f"{c} is {have[c]}, not {schema[c]}" for c in schema if c in have and have[c] != schema[c]]
    if missing or extra or wrong:
        raise FrameError(f"{name}: missing {missing}, unknown {extra}, mistyped {wrong}")
    nulls = [column for column, count in frame.null_count().row(0, named=True).items() if count]
    if nulls:
        raise FrameError(f"{name}: no value in column(s) {', '.join(nulls)}")
    return frame.select(list(schema))


def guard_sum(frame: pl.DataFrame, *columns: str) -> None:
    """Raise where summing an Int64 column could pass 2^62: the sum would wrap without an error."""
    if frame.is_empty():
        return
    for column in columns:
        low, high = frame[column].min(), frame[column].max()
        if not isinstance(low, int) or not isinstance(high, int):
            raise FrameError(f"{column}: cannot be summed, it holds no integers")
        if max(abs(low), abs(high)) * frame.height >= OVERFLOW_GUARD:
            raise OverflowError(f"{column}: {frame.height} rows up to {max(abs(low), abs(high))} could overflow a sum")
