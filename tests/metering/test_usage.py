"""The hours view: exact sums, written with 6 decimals."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from fractions import Fraction
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.money import round_half_away
from metering.clusters import Cluster, CpusPerCore
from metering.events import LAKE_SCHEMA
from metering.plan import RollupPlan
from metering.rollup import roll_up
from metering.usage import hours, six_decimals, with_times

LakeRows = Callable[..., pl.DataFrame]
SHANGHAI = ZoneInfo("Asia/Shanghai")
PLAN = RollupPlan(zones=("Asia/Shanghai",))
MIDNIGHT = 1_795_276_800  # 2026-11-22T00:00:00+08:00


def two_days(lake_rows_of: LakeRows) -> pl.DataFrame:
    """An hour before midnight and two after it, of 4 CPUs and half a card; another cluster's 600 s of 4 CPUs."""
    long = {"id": "1", "start_second": MIDNIGHT - 3600, "end_second": MIDNIGHT + 7200, "cards": "a100:500", "nodes": 2}
    return roll_up(lake_rows_of(long, {"id": "2", "cluster": "cpu2"}), PLAN)


def test_hours_by_day_and_cluster(lake_rows_of: LakeRows) -> None:
    table = hours(two_days(lake_rows_of), ["day", "cluster"], zone=SHANGHAI)
    assert table.columns == ["day", "cluster", "core_hours", "card_hours", "node_hours", "wall_hours", "jobs"]
    assert table.rows() == [
        ("2026-11-21", "hpc1", "4.000000", "0.500000", "2.000000", "1.000000", 0),
        ("2026-11-22", "cpu2", "0.666667", "0.000000", "0.166667", "0.166667", 1),
        ("2026-11-22", "hpc1", "8.000000", "1.000000", "4.000000", "2.000000", 1),
    ]


def test_without_fields_it_is_the_total(lake_rows_of: LakeRows) -> None:
    assert hours(two_days(lake_rows_of), [], zone=SHANGHAI).rows() == [
        ("12.666667", "1.500000", "6.166667", "3.166667", 2)
    ]


def test_threads_are_counted_as_cores_from_the_day_it_is_so(lake_rows_of: LakeRows) -> None:
    threads = (CpusPerCore(cpus=1), CpusPerCore(effective_from=date(2026, 11, 22), cpus=3))
    clusters = [Cluster(name="hpc1", cpus_per_core=threads), Cluster(name="cpu2", cpus_per_core=(CpusPerCore(cpus=2),))]
    table = hours(two_days(lake_rows_of), [], zone=SHANGHAI, clusters=clusters)
    assert table["core_hours"].to_list() == ["7.000000"]  # 4 + 8/3 + 1/3


def test_a_column_that_was_joined_groups_too(lake_rows_of: LakeRows) -> None:
    joined = two_days(lake_rows_of).with_columns(customer=pl.lit("u-north"))
    assert hours(joined, ["customer", "month"], zone=SHANGHAI)["customer"].to_list() == ["u-north"]


def test_an_unknown_field_is_refused_by_name(lake_rows_of: LakeRows) -> None:
    with pytest.raises(ValueError, match="colour"):
        hours(two_days(lake_rows_of), ["colour"], zone=SHANGHAI)


@pytest.mark.parametrize(("fields", "zone"), [(["hour"], "Asia/Shanghai"), (["day"], "UTC")])
def test_usage_that_was_not_cut_there_is_refused_not_misplaced(
    lake_rows_of: LakeRows, fields: list[str], zone: str
) -> None:
    with pytest.raises(ValueError, match="not cut"):
        hours(two_days(lake_rows_of), fields, zone=ZoneInfo(zone))


def test_the_two_hours_of_a_clock_turned_back_are_told_apart(lake_rows_of: LakeRows) -> None:
    before = 1_792_886_400  # 2026-10-25T02:00:00+02:00, an hour that comes twice
    rows = lake_rows_of({"start_second": before, "end_second": before + 7199})
    berlin = ZoneInfo("Europe/Berlin")
    rollup = roll_up(rows, RollupPlan(zones=("Europe/Berlin",), hourly=True))
    assert with_times(rollup, berlin)["hour"].unique().sort().to_list() == [
        "2026-10-25T02:00+01:00",
        "2026-10-25T02:00+02:00",
    ]


def test_nothing_used_is_an_empty_table() -> None:
    empty = roll_up(LAKE_SCHEMA.to_frame(), PLAN)
    assert hours(empty, ["day"], zone=SHANGHAI).is_empty()


@given(st.integers(0, 2**61), st.sampled_from([3600, 7200, 10_800, 3_600_000]))
def test_hours_are_rounded_half_away_from_zero_from_the_exact_sum(parts: int, per_hour: int) -> None:
    frame = pl.DataFrame({"parts": [parts]}, schema={"parts": pl.Int64})
    expected = round_half_away(Fraction(parts * 10**6, per_hour))
    text = frame.select(six_decimals(pl.col("parts"), per_hour)).item()
    assert text.replace(".", "") == f"{expected:07d}"
