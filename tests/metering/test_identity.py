"""Which row of an event counts."""

from __future__ import annotations

import random
from collections.abc import Callable

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.events import USAGE_FACTS
from metering.identity import AMENDED, REVERTED, STRUCK, STRUCK_STATE, key_hash, mark, winners

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


def capped(at: int, stated: int) -> dict[str, object]:
    """A running attempt that states an end, counted until another."""
    evidence = f'{{"time_limit_seconds":1,"runaway":{{"stated_end_second":{START + stated}}}}}'
    return {"ended": False, "end_second": START + at, "evidence": evidence}


@pytest.mark.parametrize("derived", [False, True])
def test_of_rows_that_differ_only_by_their_cap_the_first_recorded_counts(lake_rows_of: LakeRows, derived: bool) -> None:
    uncapped: dict[str, object] = {"ended": False, "end_second": START + 90}
    for told in ([capped(20, 90), capped(10, 90), uncapped], [uncapped, capped(10, 90), capped(20, 90)]):
        rows = lake_rows_of(*({**row, "revision_derived": derived} for row in told))
        assert statuses(rows) == ["kept", "duplicate", "duplicate"]


def test_of_two_log_rows_that_were_capped_the_one_that_stated_a_later_end_counts(lake_rows_of: LakeRows) -> None:
    assert statuses(lake_rows_of(capped(20, 80), capped(10, 90))) == ["conflicting_final", "kept"]
    assert statuses(lake_rows_of(capped(10, 90), capped(20, 80))) == ["kept", "conflicting_final"]


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


# The operator's words, and strikes


def word(number: int, **facts: object) -> dict[str, object]:
    return {"revision": AMENDED + number, "revision_derived": False, **facts}


def revert(number: int) -> dict[str, object]:
    return word(number, state=REVERTED, cpus=0, nodes=0)


STRIKE: dict[str, object] = {"revision": STRUCK, "state": STRUCK_STATE, "cpus": 0, "nodes": 0}
LATER = {"revision": 20, "end_second": START + 60}


def test_the_highest_word_counts_whatever_the_source_says_later(lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of({}, word(1, cpus=7), word(2, cpus=8), LATER)
    assert statuses(rows) == ["superseded", "superseded", "kept", "superseded"]


def test_a_revert_takes_all_words_back_so_that_the_source_counts_again_also_later(lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of({}, word(1, cpus=7), word(2, cpus=8), revert(3))
    assert statuses(rows) == ["kept", "reverted", "reverted", "reverted"]
    rows = lake_rows_of({}, word(1, cpus=7), revert(2), LATER)
    assert statuses(rows) == ["superseded", "reverted", "reverted", "kept"]


def test_a_word_after_a_revert_counts(lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of({}, word(1, cpus=7), revert(2), word(3, cpus=9))
    assert statuses(rows) == ["superseded", "reverted", "reverted", "kept"]


def test_usage_that_only_the_operator_knew_of_is_nothing_once_it_is_reverted(lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of(word(1, cpus=7), revert(2))
    assert statuses(rows) == ["reverted", "reverted"]
    assert winners(rows).is_empty()
    assert winners(lake_rows_of(revert(2))).is_empty()


def test_of_two_words_of_one_number_the_first_recorded_stays(lake_rows_of: LakeRows) -> None:
    derived = {"revision_derived": True}
    rows = lake_rows_of({}, word(1, cpus=7), word(1, cpus=9), word(1, cpus=7, end_second=START + 999, **derived))
    assert statuses(rows) == ["superseded", "kept", "conflict", "conflict"]


def test_in_the_partition_of_a_strike_nothing_of_the_event_counts(lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of({}, word(1), STRIKE, LATER, {"id": "another"})
    assert statuses(rows) == ["struck", "struck", "struck", "struck", "kept"]


def test_a_strike_leaves_the_event_alone_where_it_belongs(lake_rows_of: LakeRows) -> None:
    day_later = {"start_second": START + 86_400, "end_second": START + 90_000}
    rows = lake_rows_of({}, day_later, {**STRIKE, **day_later}, LATER)
    assert statuses(rows) == ["superseded", "struck", "struck", "kept"]


WORD_OR_ROW = st.one_of(
    st.fixed_dictionaries({"revision": st.integers(0, 2), "end_second": st.integers(START, START + 3)}),
    st.fixed_dictionaries(
        {"revision": st.integers(AMENDED + 1, AMENDED + 4), "end_second": st.integers(START, START + 3)}
    ),
    st.integers(AMENDED + 1, AMENDED + 4).map(lambda revision: {**revert(0), "revision": revision}),
    st.just(STRIKE),
)


def the_one_that_counts(rows: list[dict[str, object]], derived: bool) -> dict[str, object] | None:
    """The rule in plain Python, for the rows of one event in order of record."""
    numbers = [int(str(row["revision"])) for row in rows]
    if STRUCK in numbers:
        return None
    back_to = max((n for n, row in zip(numbers, rows, strict=True) if row.get("state") == REVERTED), default=0)
    left = [(n, row) for n, row in zip(numbers, rows, strict=True) if n < AMENDED or n > back_to]
    if not left:
        return None
    top = [row for n, row in left if n == max(number for number, _ in left)]
    by_log = derived and int(str(top[0]["revision"])) < AMENDED
    return max(top, key=lambda row: int(str(row["end_second"]))) if by_log else top[0]


@given(st.lists(WORD_OR_ROW, min_size=1, max_size=9), st.booleans(), st.integers(0, 64))
@settings(max_examples=100, deadline=None)
def test_words_and_strikes_in_any_order_follow_the_rule(
    lake_rows_of: LakeRows, facts: list[dict[str, object]], derived: bool, bits: int
) -> None:
    given_rows = [{"cpus": 1, **fact, "revision_derived": derived} for fact in facts]
    for row in given_rows:
        row.setdefault("end_second", START)
    rows = lake_rows_of(*given_rows, {"id": "another"})
    rows = rows.with_columns(key_hash(rows, bits=bits))
    marked = mark(rows).sort("recorded_seq")
    counts = winners(rows).filter(pl.col("id") != "another")
    expected = the_one_that_counts(given_rows, derived)
    facts_of = ["revision", "end_second", "cpus"]
    assert counts.select(facts_of).rows() == ([tuple(expected[name] for name in facts_of)] if expected else [])
    assert (marked["status"] == "kept").sum() == counts.height + 1
    assert marked["status"].null_count() == 0
    struck = marked.filter(pl.col("id") != "another")["status"] == "struck"
    assert struck.all() if STRUCK in rows["revision"].to_list() else not struck.any()
