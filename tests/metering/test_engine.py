"""The rollup of a date read from the lake: equal to the count of its rows, however they came, lie and are read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering import engine
from metering.cells import COUNTED_SCHEMA
from metering.engine import count_change, count_date, roll_up_date
from metering.events import LAKE_SCHEMA
from metering.identity import AMENDED, STRUCK, key_hash
from metering.lake import EventLake
from metering.plan import Measure, RollupPlan
from metering.rollup import ROLLUP_SCHEMA, as_rollup, coarser, combine, roll_up

LakeRows = Callable[..., pl.DataFrame]
Facts = dict[str, object]

MIDNIGHT = 1_795_276_800  # 2026-11-22T00:00:00+08:00, sixteen o'clock of the UTC date before
DATE = "2026-11-21"
HOUR = 3600
PLAN = RollupPlan(
    zones=("Asia/Shanghai", "Europe/Berlin"),
    measures=(Measure(name="bare", quantity="cpu", when="no_cards", partitions=("cpu",)),),
)
WORDS = st.one_of(
    st.fixed_dictionaries({"revision": st.integers(0, 2), "state": st.just("COMPLETED")}),
    st.fixed_dictionaries({"revision": st.sampled_from([AMENDED + 1, AMENDED + 2]), "state": st.just("FAILED")}),
    st.just({"revision": AMENDED + 2, "state": "REVERTED"}),
    st.just({"revision": STRUCK, "state": "STRUCK"}),
)
# As of a running attempt that said it ran until then, and was capped before.
CAPPED = [f'{{"runaway":{{"stated_end_second":{MIDNIGHT + hours * HOUR}}}}}' for hours in (8, 99)]
ROW = st.builds(
    lambda word, facts: {**facts, **word},
    WORDS,
    st.fixed_dictionaries(
        {
            "id": st.sampled_from("abcdefgh"),
            "revision_derived": st.booleans(),
            "start_second": st.integers(MIDNIGHT - 3 * HOUR, MIDNIGHT + 3 * HOUR),
            "end_second": st.sampled_from([MIDNIGHT + 4 * HOUR, MIDNIGHT + 8 * HOUR, MIDNIGHT + 99 * HOUR]),
            "ended": st.booleans(),
            "evidence": st.sampled_from(["{}", *CAPPED, *CAPPED]),
            "suspended_seconds": st.sampled_from([0, 0, 777]),
            "cpus": st.integers(0, 3),
            "nodes": st.integers(0, 1),
            "cards": st.sampled_from(["", "a100:2000", "a100:333;v100:1000"]),
            "counters": st.sampled_from(["", "", "bytes:1000003", "bytes:7;licences:1"]),
            "account": st.sampled_from(["a", "b"]),
            "user": st.sampled_from(["x", "y"]),
        }
    ),
)


def in_batches(lake: EventLake, rows: pl.DataFrame, cuts: list[int]) -> list[int]:
    """Append the rows in batches that end at the given places; return the last recorded number of each batch."""
    ends = sorted({cut for cut in cuts if 0 < cut < rows.height} | {rows.height})
    begins = [0, *ends[:-1]]
    for number, (begin, end) in enumerate(zip(begins, ends, strict=True), start=1):
        batch = rows.slice(begin, end - begin).with_columns(batch_seq=pl.lit(number, pl.Int64))
        assert lake.append(batch, number)
    return [int(rows["recorded_seq"][end - 1]) for end in ends]


def from_the_lake(lake: EventLake, as_of: int | None = None) -> pl.DataFrame:
    return combine([roll_up_date(lake, date, PLAN, as_of) for date in lake.dates()])


@given(st.lists(ROW, min_size=1, max_size=14), st.lists(st.integers(1, 13), max_size=3), st.integers(0, 14))
@settings(max_examples=25, deadline=None)
def test_the_lake_gives_what_its_rows_add_up_to_at_any_moment(
    lake_rows_of: LakeRows, facts: list[Facts], cuts: list[int], moment: int
) -> None:
    rows = lake_rows_of(*facts)
    with tempfile.TemporaryDirectory() as folder:
        lake = EventLake(Path(folder))
        in_batches(lake, rows, cuts)
        assert from_the_lake(lake).equals(roll_up(rows, PLAN))
        then = rows.filter(pl.col("recorded_seq") <= moment)
        assert from_the_lake(lake, as_of=moment).equals(roll_up(then, PLAN))


@given(st.lists(ROW, min_size=2, max_size=14), st.lists(st.integers(1, 13), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_what_came_late_changes_a_count_into_exactly_the_count_of_all(
    lake_rows_of: LakeRows, facts: list[Facts], cuts: list[int]
) -> None:
    rows = lake_rows_of(*facts)
    with tempfile.TemporaryDirectory() as folder:
        lake = EventLake(Path(folder))
        moments = in_batches(lake, rows, cuts)
        for date in lake.dates():
            counted = [count_date(lake, date, PLAN, as_of=moments[0])]
            for after, until in pairwise(moments):
                counted.append(count_change(lake, date, PLAN, after, until))
            changed = as_rollup(date, pl.concat(counted), lake.names(), PLAN)
            assert changed.equals(roll_up_date(lake, date, PLAN))


# Rows of which most differ in nothing but where they were counted until, and what they had stated.
CAPPED_ROW = st.fixed_dictionaries(
    {
        "id": st.sampled_from("ab"),
        "revision": st.integers(0, 1),
        "revision_derived": st.booleans(),
        "end_second": st.sampled_from([MIDNIGHT + 4 * HOUR, MIDNIGHT + 8 * HOUR]),
        "ended": st.sampled_from([False, False, False, True]),
        "evidence": st.sampled_from(["{}", *CAPPED]),
        "cpus": st.sampled_from([1, 1, 1, 2]),
    }
)


@given(st.lists(CAPPED_ROW, min_size=2, max_size=8), st.lists(st.integers(1, 7), max_size=2))
@settings(max_examples=20, deadline=None)
def test_attempts_that_were_capped_count_as_their_rows_do(
    lake_rows_of: LakeRows, facts: list[Facts], cuts: list[int]
) -> None:
    rows = lake_rows_of(*facts)
    with tempfile.TemporaryDirectory() as folder:
        lake = EventLake(Path(folder))
        moments = in_batches(lake, rows, cuts)
        assert from_the_lake(lake).equals(roll_up(rows, PLAN))
        counted = [count_date(lake, DATE, PLAN, moments[0])]
        counted += [count_change(lake, DATE, PLAN, after, until) for after, until in pairwise(moments)]
        assert as_rollup(DATE, pl.concat(counted), lake.names(), PLAN).equals(roll_up(rows, PLAN))


def test_a_date_read_in_parts_gives_the_same_and_reads_no_more_at_once(
    tmp_path: Path, lake_rows_of: LakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = [{"id": f"{n % 40}", "revision": n % 3, "cpus": 1 + n % 5, "user": f"u{n % 7}"} for n in range(120)]
    rows = lake_rows_of(*facts)
    lake = EventLake(tmp_path)
    in_batches(lake, rows, [50, 60])
    whole = roll_up_date(lake, DATE, PLAN)
    monkeypatch.setattr(engine, "CHUNK_ROWS", 8)
    assert max(chunk.collect().height for chunk in lake.part(DATE).chunks(8)) <= 8
    assert sum(chunk.collect().height for chunk in lake.part(DATE).chunks(8)) == 120
    assert roll_up_date(lake, DATE, PLAN).equals(whole)
    assert whole.equals(roll_up(rows, PLAN))


@pytest.mark.parametrize("bits", [0, 1, 3])
def test_keys_that_share_a_hash_are_neither_dropped_nor_merged(
    tmp_path: Path, lake_rows_of: LakeRows, bits: int
) -> None:
    facts = [{"id": f"{n % 17}", "revision": n % 4, "cpus": 1 + n % 17, "user": f"u{n % 3}"} for n in range(60)]
    rows = lake_rows_of(*facts)
    collided = rows.with_columns(key_hash(rows, bits=bits))
    assert collided["key_hash"].n_unique() <= 2**bits
    lake = EventLake(tmp_path)
    moments = in_batches(lake, collided, [31])
    assert lake.scan().collect().sort("recorded_seq").equals(collided.with_columns(lake_batches(collided, 31)))
    assert roll_up_date(lake, DATE, PLAN).equals(roll_up(rows, PLAN))
    late = [count_date(lake, DATE, PLAN, moments[0]), count_change(lake, DATE, PLAN, moments[0])]
    assert as_rollup(DATE, pl.concat(late), lake.names(), PLAN).equals(roll_up(rows, PLAN))


def lake_batches(rows: pl.DataFrame, cut: int) -> pl.Series:
    return pl.Series("batch_seq", [1 if row < cut else 2 for row in range(rows.height)], dtype=pl.Int64)


def test_an_absurd_row_that_was_taken_back_stops_nothing(tmp_path: Path, lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of({"id": "1", "cpus": 2**60}, {"id": "1", "cpus": 2, "revision": 2}, {"id": "2"})
    lake = EventLake(tmp_path)
    in_batches(lake, rows, [])
    assert roll_up_date(lake, DATE, PLAN).filter(pl.col("resource") == "cpu")["quantity"].to_list() == [3600]


def test_an_absurd_row_that_counts_is_refused_by_name(tmp_path: Path, lake_rows_of: LakeRows) -> None:
    lake = EventLake(tmp_path)
    in_batches(lake, lake_rows_of({"id": "1", "cpus": 2**60}, {"id": "2"}), [])
    with pytest.raises(OverflowError, match=r"event '1' of 'slurm:hpc1' is the largest: .*amend or retract it"):
        roll_up_date(lake, DATE, PLAN)


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 29, 23), (10, 25, 25), (6, 1, 24)])
def test_the_hours_of_a_day_of_any_length_add_up(
    tmp_path: Path, lake_rows_of: LakeRows, month: int, day: int, hours: int
) -> None:
    begin = int(datetime(2026, month, day, tzinfo=UTC).timestamp()) - 30 * HOUR
    rows = lake_rows_of({"start_second": begin, "end_second": begin + 96 * HOUR, "cpus": 1, "cards": "a100:1000"})
    lake = EventLake(tmp_path)
    in_batches(lake, rows, [])
    plan = RollupPlan(zones=("Europe/Berlin",))
    (date,) = lake.dates()
    cpu = roll_up_date(lake, date, plan).filter(pl.col("resource") == "cpu")
    days = cpu.with_columns(length=(pl.col("span_end") - pl.col("span_start")).dt.total_hours())
    assert cpu["quantity"].sum() == 96 * HOUR
    assert hours in days["length"].to_list()
    hourly = roll_up_date(lake, date, plan.model_copy(update={"hourly": True}))
    by_resource = hourly.group_by("resource").agg(pl.col("quantity").sum()).sort("resource").rows()
    assert by_resource == [("card:a100", 96_000 * HOUR), ("cpu", 96 * HOUR), ("node", 96 * HOUR), ("wall", 96 * HOUR)]


def test_a_date_without_events_has_an_empty_rollup(tmp_path: Path) -> None:
    lake = EventLake(tmp_path)
    assert roll_up_date(lake, DATE, PLAN).equals(ROLLUP_SCHEMA.to_frame())
    assert count_change(lake, DATE, PLAN, after=0).equals(COUNTED_SCHEMA.to_frame())


def test_usage_without_users_is_the_sum_over_users(tmp_path: Path, lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of(*({"id": str(n), "user": f"u{n}", "account": f"a{n % 2}", "cards": "x:1"} for n in range(6)))
    lake = EventLake(tmp_path)
    in_batches(lake, rows, [])
    counted, names = coarser(count_date(lake, DATE, PLAN), lake.names(), "user")
    without = as_rollup(DATE, counted, names, PLAN)
    summed = (
        roll_up(rows, PLAN)
        .with_columns(user=pl.lit(""))
        .group_by([name for name in ROLLUP_SCHEMA if name not in {"quantity", "jobs"}], maintain_order=True)
        .agg(pl.col("quantity", "jobs").sum())
    )
    order = ["span_start", "account", "resource"]
    assert without.sort(order).equals(summed.select(list(ROLLUP_SCHEMA)).sort(order))
    assert LAKE_SCHEMA.names() == lake.scan().collect_schema().names()
