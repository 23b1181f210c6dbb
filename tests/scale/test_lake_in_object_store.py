"""A lake in an object store keeps what a lake in a folder keeps, with several writers at once, too."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.pool import Pool

import obstore
import polars as pl
import pytest

from metering.lake import EventLake
from metering.object_store import ObjectStoreError, StorePath, place_of
from tests.metering.test_lake import (
    job,
    test_a_batch_that_is_there_already_is_not_appended_again,
    test_a_batch_without_events_counts_as_sealed,
    test_a_killed_append_leaves_no_trace,
    test_after_compaction_and_vacuum_nothing_is_lost_and_the_past_is_still_there,
    test_an_empty_lake_holds_nothing,
    test_dates_and_moments_narrow_what_is_read,
    test_of_a_group_of_batches_only_the_new_ones_are_appended,
    test_of_two_sealers_at_once_one_appends,
    test_partitions_say_how_far_they_reach,
    test_what_was_appended_is_read_back_whole,
)
from tests.object_store import ObjectStore

# The stories of a lake in a folder, told again with the `lake` below.
__all__ = [
    "test_a_batch_that_is_there_already_is_not_appended_again",
    "test_a_batch_without_events_counts_as_sealed",
    "test_a_killed_append_leaves_no_trace",
    "test_after_compaction_and_vacuum_nothing_is_lost_and_the_past_is_still_there",
    "test_an_empty_lake_holds_nothing",
    "test_dates_and_moments_narrow_what_is_read",
    "test_of_a_group_of_batches_only_the_new_ones_are_appended",
    "test_of_two_sealers_at_once_one_appends",
    "test_partitions_say_how_far_they_reach",
    "test_what_was_appended_is_read_back_whole",
]

LakeRows = Callable[..., pl.DataFrame]
WRITERS, BATCHES = 3, 12


@pytest.fixture
def lake(place: Callable[[], str]) -> EventLake:
    return EventLake(StorePath(place()))


def seal_all(url: str, rows: pl.DataFrame) -> list[int]:
    """Append every batch that is not there, as a sealer does that believes itself alone; return those it appended."""
    lake = EventLake(StorePath(url))
    mine = []
    for number in range(1, BATCHES + 1):
        while lake.sealed_batch() < number:
            if lake.append(rows.filter(pl.col("batch_seq") <= number), number):
                mine.append(number)
    return mine


def test_several_processes_that_append_at_once_record_every_batch_once(
    place: Callable[[], str], lake_rows_of: LakeRows
) -> None:
    url = place()
    rows = lake_rows_of(*(job(f"j{number}", batch=number, seq=number) for number in range(1, BATCHES + 1)))
    EventLake(StorePath(url)).dates()  # makes the table
    with multiprocessing.get_context("spawn").Pool(WRITERS) as pool:
        appended = run_all(pool, url, rows)
    held = EventLake(StorePath(url)).scan().collect().sort("recorded_seq")
    assert held.equals(rows)
    assert sorted(number for mine in appended for number in mine) == list(range(1, BATCHES + 1))


def run_all(pool: Pool, url: str, rows: pl.DataFrame) -> list[list[int]]:
    return pool.starmap(seal_all, [(url, rows)] * WRITERS)


def test_a_store_that_overwrites_in_spite_of_the_condition_is_refused(
    place: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put

    def put_anyway(store: object, name: str, content: bytes, **_condition: object) -> object:
        return put(store, name, content)  # type: ignore[arg-type]

    monkeypatch.setattr(obstore, "put", put_anyway)
    with pytest.raises(ObjectStoreError, match="overwrites an object"):
        EventLake(StorePath(place())).dates()


def test_a_store_that_does_not_know_us_is_named_with_what_to_check(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of somebody else")
    with pytest.raises(ObjectStoreError, match=r"cannot be used: The request signature.*check AWS_ACCESS_KEY_ID"):
        EventLake(StorePath(object_store.new_place())).dates()


@pytest.mark.parametrize("text", ["s3://", "s3:///", "gs://bucket/lake", "http://localhost/lake"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ObjectStoreError, match="write a folder, or s3://bucket/prefix"):
        place_of(text)


def test_a_place_is_a_folder_or_a_prefix() -> None:
    assert str(place_of("/data/lake")) == "/data/lake"
    assert place_of("s3://bucket/some/lake/") == StorePath("s3://bucket/some/lake")
    assert place_of("s3://bucket/lake") / "events" == StorePath("s3://bucket/lake/events")
