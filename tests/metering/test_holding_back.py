"""Events that contradict what is known: held back by what was recorded before them, and by nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime

import orjson
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.identity import AMENDED, STRUCK, STRUCK_STATE, mark
from metering.sealing import CLUSTER_CHANGED, CONFLICT, IDENTITY_COLLISION, START_CHANGED, hold_back

LakeRows = Callable[..., pl.DataFrame]
START = 1_795_276_800
Facts = dict[str, object]

ROW = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b"]),
        "revision": st.integers(0, 2),
        "revision_derived": st.sampled_from([False, False, True]),
        "start_second": st.sampled_from([START, START + 86_400]),
        "end_second": st.just(START + 90_000),
        "cluster": st.sampled_from(["hpc1", "hpc1", "hpc2"]),
        "cpus": st.integers(1, 2),
        "evidence": st.sampled_from(["{}", '{"db_index":"7"}', '{"db_index":8}']),
    }
)


def codes(held: pl.DataFrame) -> list[tuple[int, str]]:
    return [(seq, code) for seq, code in held.select("recorded_seq", "code").iter_rows()]


def one_by_one(rows: list[Facts]) -> list[tuple[int, str]]:
    """The rule in plain Python: each row against those that were let in before it."""
    held: list[tuple[int, str]] = []
    starts: dict[object, object] = {}
    clusters: dict[object, object] = {}
    database_rows: dict[object, object] = {}
    usage: dict[tuple[object, object], object] = {}
    for seq, row in enumerate(rows, start=1):
        key, place = row["id"], (row["id"], row["revision"])
        database_row = {"{}": None}.get(str(row["evidence"]), str(row["evidence"])[12:].strip('"}'))
        if starts.get(key, row["start_second"]) != row["start_second"]:
            held.append((seq, START_CHANGED))
        elif clusters.get(key, row["cluster"]) != row["cluster"]:
            held.append((seq, CLUSTER_CHANGED))
        elif database_row and database_rows.get(key, database_row) != database_row:
            held.append((seq, IDENTITY_COLLISION))
        elif not row["revision_derived"] and usage.get(place, row["cpus"]) != row["cpus"]:
            held.append((seq, CONFLICT))
        else:
            starts.setdefault(key, row["start_second"])
            clusters.setdefault(key, row["cluster"])
            usage.setdefault(place, row["cpus"])
            if database_row:
                database_rows.setdefault(key, database_row)
    return held


def in_groups(rows: pl.DataFrame, sizes: list[int]) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
    """Seal the rows group by group."""
    lake, held = rows.clear(), []
    for size in sizes:
        group, rows = rows.head(size), rows.slice(size)
        accepted, back = hold_back(group, lake)
        lake = pl.concat([lake, accepted])
        held += codes(back)
    return lake, held


@given(st.lists(ROW, max_size=10), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_however_batches_are_grouped_the_same_events_are_held_back(
    lake_rows_of: LakeRows, facts: list[Facts], choose: random.Random
) -> None:
    rows = lake_rows_of(*facts)
    sizes = [choose.randint(1, 4) for _ in range(len(facts))]
    lake, held = in_groups(rows, sizes)
    assert held == one_by_one(facts)
    assert lake.height + len(held) == rows.height
    # Only where log rows stand beside rows that state their revision can two that disagree both be let in.
    if not rows["revision_derived"].any():
        assert mark(lake).filter(pl.col("status") == "conflict").is_empty()


def test_a_sealer_that_starts_over_decides_the_same(lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of({"id": "a"}, {"id": "a", "start_second": START + 5})
    accepted, held = hold_back(rows, rows.clear())
    again, held_again = hold_back(rows, accepted)
    assert codes(held) == codes(held_again) == [(2, START_CHANGED)]
    assert again.equals(accepted)


def test_the_message_says_what_was_known_before(lake_rows_of: LakeRows) -> None:
    _, held = hold_back(
        lake_rows_of({"evidence": '{"db_index":"7"}'}, {"evidence": '{"db_index":"8"}'}), lake_rows_of().clear()
    )
    assert "comes from database row 8, an earlier one of the same id from row 7" in held["message"].item()


def test_a_log_row_with_other_facts_is_not_held_back(lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of({"cpus": 1}, {"cpus": 2})
    accepted, held = hold_back(rows, rows.clear())
    assert held.is_empty()
    assert accepted.equals(rows)


def test_the_cluster_of_an_event_stays_the_one_recorded_first(lake_rows_of: LakeRows) -> None:
    moved: Facts = {"cluster": "hpc2", "revision": 2}
    assert held_of(lake_rows_of, {}, moved, {"revision": 3}) == [(2, CLUSTER_CHANGED)]
    assert held_of(lake_rows_of, {}, {**WORD, "cluster": "hpc2"}) == [(2, CLUSTER_CHANGED)]
    assert held_of(lake_rows_of, {}, {**moved, "id": "another"}) == []
    _, held = hold_back(lake_rows_of(moved), lake_rows_of({}))
    assert "is said to be of cluster hpc2, but was recorded before as of hpc1; find out" in held["message"].item()


def capped(at: int, stated: int) -> Facts:
    """A running attempt that states an end, counted until another."""
    said = {"time_limit_seconds": 60, "runaway": {"stated_end_second": START + stated}}
    return {**RUNNING, "end_second": START + at, "evidence": orjson.dumps(said).decode()}


RUNNING: Facts = {"revision_derived": False, "ended": False, "state": "RUNNING", "end_second": START + 500}


def test_what_was_stated_is_compared_and_not_where_it_was_capped(lake_rows_of: LakeRows) -> None:
    assert held_of(lake_rows_of, capped(100, 500), capped(70, 500), capped(200, 500), RUNNING) == []
    assert held_of(lake_rows_of, RUNNING, capped(100, 500)) == []
    assert held_of(lake_rows_of, capped(100, 500), capped(100, 501)) == [(2, CONFLICT)]
    # Who ended was not capped: its end is its end, whatever stands beside it.
    ended = {**capped(100, 500), "ended": True}
    assert held_of(lake_rows_of, ended, {**ended, "end_second": START + 70}) == [(2, CONFLICT)]


# The operator's words, and strikes

WORD = {"revision": AMENDED + 1, "revision_derived": False, "evidence": '{"by":"finance","reason":"outage"}'}
STRIKE = {
    "revision": STRUCK,
    "revision_derived": False,
    "state": STRUCK_STATE,
    "cpus": 0,
    "start_second": START + 86_400,
    "evidence": f'{{"start_second":{START}}}',
}


def held_of(lake_rows_of: LakeRows, *facts: Facts) -> list[tuple[int, str]]:
    rows = lake_rows_of(*facts)
    together = codes(hold_back(rows, rows.clear())[1])
    assert in_groups(rows, [1] * rows.height)[1] == together
    return together


def test_a_word_of_the_operator_contradicts_no_row_of_the_source(lake_rows_of: LakeRows) -> None:
    row = {"revision_derived": False, "evidence": '{"db_index":"7"}'}
    assert held_of(lake_rows_of, row, {**WORD, "cpus": 99, "evidence": '{"db_index":"8"}'}) == []
    assert held_of(lake_rows_of, {**WORD, "evidence": '{"db_index":"8"}'}, row) == []


def test_a_word_must_keep_the_start_of_the_event(lake_rows_of: LakeRows) -> None:
    assert held_of(lake_rows_of, {}, {**WORD, "start_second": START + 60}) == [(2, START_CHANGED)]


def test_two_words_of_one_number_are_a_conflict(lake_rows_of: LakeRows) -> None:
    assert held_of(lake_rows_of, {}, {**WORD, "cpus": 7}, {**WORD, "cpus": 9}, {**WORD, "cpus": 7}) == [(3, CONFLICT)]


def test_a_strike_always_passes_and_what_starts_there_is_held_back_from_then_on(lake_rows_of: LakeRows) -> None:
    wrong = {"start_second": START + 86_400, "end_second": START + 90_000}
    rows = lake_rows_of({}, wrong, STRIKE, {**wrong, "revision": 2}, {"revision": 2}, {**wrong, "id": "another"})
    # As where the wrong row came in while its partition alone was looked at.
    in_lake = rows[1]
    accepted, held = hold_back(rows[2:], in_lake)
    assert codes(held) == [(4, START_CHANGED)]
    assert accepted["recorded_seq"].to_list() == [3, 5, 6]
    before = datetime.fromtimestamp(START, UTC)
    assert f"recorded before as starting at {before:%Y-%m-%dT%H:%M:%SZ};" in held["message"].item()


def test_a_row_that_was_held_back_decides_nothing_about_later_ones(lake_rows_of: LakeRows) -> None:
    stated: Facts = {"revision_derived": False}
    refused = {**stated, "cpus": 9, "evidence": '{"db_index":"7"}'}
    later = {**stated, "revision": 2, "evidence": '{"db_index":"8"}'}
    assert held_of(lake_rows_of, stated, refused, later) == [(2, CONFLICT)]
