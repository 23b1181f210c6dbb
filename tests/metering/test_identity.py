"""Which row of an event counts."""

from __future__ import annotations

import random
from collections.abc import Callable

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.events import USAGE_FACTS
from metering.identity import key_hash, mark, winners

LakeRows = Callable[..., pl.DataFrame]
START = 1_795_276_800

FACT = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b", "c"]),
        "source": st.sampled_from(["slurm:hpc1", "slurm:hpc2"]),
        "revision": st.integers(0, 2),
        "end_second": st.integers(START, START + 2),
        "account": st.sampled_from(["grp", "grp_two"]),
        "cpus": st.integers(1, 12),
    }
)


def statuses(rows: pl.DataFrame) -> list[str]:
    return mark(rows).sort("recorded_seq")["status"].to_list()


def winning_facts(rows: pl.DataFrame) -> pl.DataFrame:
    columns = ["source", "id", "revision", *USAGE_FACTS]
    return winners(rows).select(columns).sort(columns)


def test_an_event_that_is_alone_is_kept(lake_rows_of: LakeRows) -> None:
    assert statuses(lake_rows_of({})) == ["kept"]


def test_the_same_row_again_changes_nothing(lake_rows_of: LakeRows) -> None:
    assert statuses(lake_rows_of({}, {"job": "renamed", "evidence": '{"uid":1}'})) == ["kept", "duplicate"]


def test_a_running_job_that_grew_replaces_what_was_known_of_it(lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of({"revision": 10}, {"revision": 20}, {"revision": 10})
    assert statuses(rows) == ["superseded", "kept", "duplicate"]


def test_an_old_row_that_arrives_late_does_not_win(lake_rows_of: LakeRows) -> None:
    assert statuses(lake_rows_of({"revision": 20}, {"revision": 10})) == ["kept", "superseded"]


def test_of_two_final_log_rows_the_one_that_ends_later_counts_and_the_other_is_listed(lake_rows_of: LakeRows) -> None:
    short, long = {"end_second": START + 5}, {"end_second": START + 6}
    assert statuses(lake_rows_of(short, long)) == ["conflicting_final", "kept"]
    assert statuses(lake_rows_of(long, short, short)) == ["kept", "conflicting_final", "duplicate"]


def test_of_two_final_log_rows_that_end_together_the_greater_facts_count(lake_rows_of: LakeRows) -> None:
    forwards = lake_rows_of({"account": "grp_a"}, {"account": "grp_b"})
    backwards = lake_rows_of({"account": "grp_b"}, {"account": "grp_a"})
    assert winning_facts(forwards).equals(winning_facts(backwards))


def test_an_event_that_states_its_revision_stays_as_first_recorded(lake_rows_of: LakeRows) -> None:
    stated = {"revision_derived": False}
    rows = lake_rows_of({**stated, "cpus": 4}, {**stated, "cpus": 99}, {**stated, "cpus": 99})
    assert statuses(rows) == ["kept", "conflict", "duplicate"]


def test_the_same_id_from_another_source_is_another_event(lake_rows_of: LakeRows) -> None:
    assert statuses(lake_rows_of({"source": "slurm:hpc1"}, {"source": "slurm:hpc2"})) == ["kept", "kept"]


def test_text_that_runs_together_is_not_taken_for_the_same_facts(lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of({"account": "ab", "user": "c"}, {"account": "a", "user": "bc"})
    assert sorted(statuses(rows)) == ["conflicting_final", "kept"]


def test_a_hash_is_the_same_for_ever(lake_rows_of: LakeRows) -> None:
    # The lake holds these numbers: another hash for an old key would count the event twice.
    rows = lake_rows_of({"source": "slurm:hpc1", "id": "4711:1795294603"}, {"source": "云", "id": "é"}, {"id": ""})
    assert key_hash(rows).to_list() == [1383920368858393945, 6795681080389761626, 553819775644981229]


@given(st.lists(FACT, max_size=12), st.integers(0, 6))
@settings(max_examples=80, deadline=None)
def test_a_forced_collision_of_hashes_neither_drops_nor_merges_an_event(
    lake_rows_of: LakeRows, facts: list[dict[str, object]], bits: int
) -> None:
    rows = lake_rows_of(*facts)
    collided = rows.with_columns(key_hash(rows, bits=bits))
    assert mark(collided)["status"].to_list() == mark(rows)["status"].to_list()
    assert winners(rows).height == rows.n_unique(["source", "id"])


@given(st.lists(FACT, min_size=1, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=120, deadline=None)
def test_order_and_repetition_of_the_rows_do_not_change_which_facts_win(
    lake_rows_of: LakeRows, facts: list[dict[str, object]], shuffle: random.Random
) -> None:
    again = facts + [fact for fact in facts if shuffle.random() < 0.5]
    shuffle.shuffle(again)
    assert winning_facts(lake_rows_of(*facts)).equals(winning_facts(lake_rows_of(*again)))


@given(st.lists(FACT, min_size=1, max_size=12), st.booleans())
@settings(max_examples=80, deadline=None)
def test_every_row_is_accounted_for_and_each_event_kept_once(
    lake_rows_of: LakeRows, facts: list[dict[str, object]], derived: bool
) -> None:
    rows = mark(lake_rows_of(*({**fact, "revision_derived": derived} for fact in facts)))
    kept = rows.filter(pl.col("status") == "kept")
    assert rows["status"].null_count() == 0
    assert kept.height == kept.n_unique(["source", "id"]) == rows.n_unique(["source", "id"])
    assert rows.filter(pl.col("status") == ("conflict" if derived else "conflicting_final")).is_empty()


@given(st.text(max_size=40), st.lists(st.text(max_size=40), max_size=5))
def test_the_hash_of_an_event_does_not_depend_on_the_ids_beside_it(event_id: str, others: list[str]) -> None:
    alone = key_hash(pl.DataFrame({"source": ["s"], "id": [event_id]}))
    beside = key_hash(pl.DataFrame({"source": ["s"] * (len(others) + 1), "id": [event_id, *others]}))
    assert alone[0] == beside[0]


def test_a_revision_that_arrives_beside_longer_ids_replaces_the_earlier(lake_rows_of: LakeRows) -> None:
    first = lake_rows_of({"id": "job-7", "revision": 1})
    later = lake_rows_of({"id": "job-7", "revision": 2}, {"id": "a-much-longer-id-than-eight-bytes"})
    kept = winners(pl.concat([first, later])).filter(pl.col("id") == "job-7")
    assert kept["revision"].to_list() == [2]
