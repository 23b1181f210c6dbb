"""Sums of integer quantities that never wrap: added in 128 bits, refused where 64 bits could not hold them safely."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from base.frames import OVERFLOW_GUARD


def wide(column: str) -> pl.Expr:
    """Return a column in 128 bits, in which no sum of 64-bit values can wrap."""
    return pl.col(column).cast(pl.Int128)


def sum_by(frame: pl.DataFrame, keys: Sequence[str], column: str = "quantity") -> pl.DataFrame:
    """Sum a column by keys; raise where a sum is beyond 2^62."""
    sums = frame.group_by(keys).agg(wide(column).sum())
    huge = sums.filter((pl.col(column) >= OVERFLOW_GUARD) | (pl.col(column) <= -OVERFLOW_GUARD))
    for row in huge.head(1).iter_rows(named=True):
        where = ", ".join(f"{key} {row[key]}" for key in keys)
        raise OverflowError(f"{column} of {where} adds up to {row[column]}, beyond what can be priced")
    return sums.with_columns(pl.col(column).cast(pl.Int64))
