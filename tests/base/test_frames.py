"""A frame is what its schema says, or it is refused by name."""

from __future__ import annotations

import polars as pl
import pytest

from base.frames import OVERFLOW_GUARD, FrameError, check_frame, guard_sum

SCHEMA = pl.Schema({"user": pl.String, "seconds": pl.Int64})


def test_columns_come_back_in_the_declared_order() -> None:
    frame = pl.DataFrame({"seconds": [1], "user": ["alice"]})
    assert check_frame(frame, SCHEMA, "usage").columns == ["user", "seconds"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": ["a"]}, r"usage: missing \['seconds'\]"),
        ({"user": ["a"], "seconds": [1], "cost": [2]}, r"unknown \['cost'\]"),
        ({"user": ["a"], "seconds": [1.0]}, "seconds is Float64, not Int64"),
        ({"user": ["a", None], "seconds": [1, 2]}, r"no value in column\(s\) user"),
    ],
)
def test_a_frame_that_is_not_what_it_should_be_is_refused_by_name(
    columns: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(FrameError, match=message):
        check_frame(pl.DataFrame(columns), SCHEMA, "usage")


def test_a_sum_that_could_wrap_is_refused() -> None:
    half = OVERFLOW_GUARD // 2
    guard_sum(pl.DataFrame({"seconds": [half - 1, -half + 1]}), "seconds")
    for values in ([half, 0], [-half, 0]):
        with pytest.raises(OverflowError, match="2 rows up to"):
            guard_sum(pl.DataFrame({"seconds": values}), "seconds")


def test_an_empty_frame_has_nothing_to_overflow() -> None:
    guard_sum(SCHEMA.to_frame(), "seconds")


def test_what_holds_no_integers_cannot_be_summed() -> None:
    with pytest.raises(FrameError, match="holds no integers"):
        guard_sum(pl.DataFrame({"seconds": ["1"]}), "seconds")
