"""The event lake: append only, each batch exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import deltalake
import polars as pl
import pytest

from base.frames import FrameError
from metering.lake import EventLake

LakeRows = Callable[..., pl.DataFrame]
DAY = 86_400
NOON = 1_795_219_200  # 2026-11-21T12:00:00Z


@pytest.fixture
def lake(tmp_path: Path) -> EventLake:
    return EventLake(tmp_path)


def ids(frame: pl.LazyFrame) -> list[str]:
    return frame.collect().sort("recorded_seq")["id"].to_list()


def job(name: str, *, day: int = 0, batch: int = 1, seq: int = 1) -> dict[str, object]:
    start = NOON + day * DAY
    return {"id": name, "start_second": start, "end_second": start + 60, "batch_seq": batch, "recorded_seq": seq}


def test_an_empty_lake_holds_nothing(lake: EventLake) -> None:
    assert lake.scan().collect().is_empty()
    assert lake.dates() == []
    assert lake.sealed_batch() == 0


def test_what_was_appended_is_read_back_whole(lake: EventLake, lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of(job("a"), {**job("云|\n", day=1, seq=2), "cards": "a100:333", "evidence": '{"uid":1}'})
    assert lake.append(rows, 1)
    assert lake.scan().collect().sort("recorded_seq").equals(rows)
    assert lake.dates() == ["2026-11-21", "2026-11-22"]


def test_a_batch_that_is_there_already_is_not_appended_again(lake: EventLake, lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of(job("a"))
    assert lake.append(rows, 1)
    assert not lake.append(rows, 1)
    assert ids(lake.scan()) == ["a"]
    assert lake.sealed_batch() == 1


def test_of_a_group_of_batches_only_the_new_ones_are_appended(lake: EventLake, lake_rows_of: LakeRows) -> None:
    lake.append(lake_rows_of(job("a", batch=1)), 1)
    assert lake.append(lake_rows_of(job("a", batch=1), job("b", batch=2, seq=2)), 2)
    assert ids(lake.scan()) == ["a", "b"]


def test_a_batch_without_events_counts_as_sealed(lake: EventLake, lake_rows_of: LakeRows) -> None:
    assert lake.append(lake_rows_of(job("a")).clear(), 1)
    assert lake.sealed_batch() == 1


def test_of_two_sealers_at_once_one_appends(
    lake: EventLake, lake_rows_of: LakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = lake_rows_of(job("a"))
    write: Callable[..., None] = deltalake.write_deltalake
    rival = EventLake(lake.root)

    def write_second(*args: object, **kwargs: object) -> None:
        monkeypatch.setattr("metering.lake.write_deltalake", write)
        assert rival.append(rows, 1)
        write(*args, **kwargs)

    monkeypatch.setattr("metering.lake.write_deltalake", write_second)
    assert not lake.append(rows, 1)
    assert ids(lake.scan()) == ["a"]


def test_a_killed_append_leaves_no_trace(
    lake: EventLake, lake_rows_of: LakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("metering.lake.write_deltalake", killed)
        with pytest.raises(KeyboardInterrupt):
            lake.append(lake_rows_of(job("a")), 1)
    assert lake.sealed_batch() == 0
    assert lake.append(lake_rows_of(job("a")), 1)
    assert ids(lake.scan()) == ["a"]


def test_dates_and_moments_narrow_what_is_read(lake: EventLake, lake_rows_of: LakeRows) -> None:
    lake.append(lake_rows_of(job("a"), job("b", day=1, seq=2)), 1)
    lake.append(lake_rows_of(job("c", batch=2, seq=3)), 2)
    assert ids(lake.scan(["2026-11-21"])) == ["a", "c"]
    assert ids(lake.scan(["2026-11-21"], as_of=2)) == ["a"]
    assert ids(lake.scan(as_of=2)) == ["a", "b"]
    assert ids(lake.scan([])) == []
    assert ids(lake.scan(as_of=0)) == []


def test_partitions_say_how_far_they_reach(lake: EventLake, lake_rows_of: LakeRows) -> None:
    lake.append(lake_rows_of(job("a"), {**job("b", seq=2), "end_second": NOON + 5 * DAY}), 1)
    lake.append(lake_rows_of(job("c", batch=2, seq=3)), 2)
    assert lake.partitions().rows() == [("2026-11-21", 3, 3, NOON + 5 * DAY)]


def test_after_compaction_and_vacuum_nothing_is_lost_and_the_past_is_still_there(
    lake: EventLake, lake_rows_of: LakeRows
) -> None:
    for number in range(1, 21):
        lake.append(lake_rows_of(job(f"j{number}", day=number % 2, batch=number, seq=number)), number)
    before = lake.scan().collect().sort("recorded_seq")
    partitions = lake.partitions()
    lake.compact()
    assert len(lake.vacuum(keep_hours=0)) == 20
    assert lake.scan().collect().sort("recorded_seq").equals(before)
    assert lake.partitions().equals(partitions)
    assert ids(lake.scan(as_of=7)) == [f"j{number}" for number in range(1, 8)]
    assert lake.sealed_batch() == 20
    assert not lake.append(lake_rows_of(job("j20", batch=20, seq=20)), 20)


def test_a_frame_that_is_no_lake_row_is_refused(lake: EventLake, lake_rows_of: LakeRows) -> None:
    with pytest.raises(FrameError, match="recorded_seq"):
        lake.append(lake_rows_of(job("a")).drop("recorded_seq"), 1)


def test_of_two_writers_with_new_names_both_keep_theirs(
    lake: EventLake, lake_rows_of: LakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Callable[..., None] = deltalake.write_deltalake
    rival = EventLake(lake.root)

    def write_second(*args: object, **kwargs: object) -> None:
        monkeypatch.setattr("metering.lake.write_deltalake", write)
        assert rival.append(lake_rows_of({**job("b", batch=1), "user": "bob", "cards": "x:1"}), 1)
        write(*args, **kwargs)

    monkeypatch.setattr("metering.lake.write_deltalake", write_second)
    mine = lake_rows_of({**job("a", batch=2, seq=2), "user": "alice", "cards": "y:1"})
    assert not lake.append(mine, 2)  # the rival's events came first, its names too
    assert lake.append(mine, 2)
    assert ids(lake.scan()) == ["b", "a"]
    assert sorted(lake.names().who["user"]) == ["alice", "bob"]
    assert sorted(lake.names().cards) == ["x:1", "y:1"]
    assert named(lake) == {"a": ("alice", "y:1"), "b": ("bob", "x:1")}


def named(lake: EventLake) -> dict[str, tuple[str, str]]:
    """What the numbers of each event stand for."""
    names = lake.names()
    rows = pl.concat([lake.part(date).scan().collect() for date in lake.dates()])
    numbers = rows.select("id", "who_number", "cards_number").iter_rows()
    return {event: (names.who["user"][who], names.cards[cards]) for event, who, cards in numbers}


def test_names_are_numbered_once_however_often_they_occur(lake: EventLake, lake_rows_of: LakeRows) -> None:
    for number in range(1, 6):
        lake.append(lake_rows_of({**job(f"j{number}", batch=number, seq=number), "user": f"u{number % 2}"}), number)
    assert lake.names().who.height == 2
    assert named(EventLake(lake.root)) == {f"j{number}": (f"u{number % 2}", "") for number in range(1, 6)}


def test_only_dates_in_many_files_are_compacted(lake: EventLake, lake_rows_of: LakeRows) -> None:
    for number in range(1, 9):
        lake.append(lake_rows_of({**job(f"j{number}", batch=number, seq=number), "user": f"u{number}"}), number)
    lake.append(lake_rows_of(job("other", day=1, batch=9, seq=9)), 9)
    before, names = lake.scan().collect().sort("recorded_seq"), named(lake)
    assert lake.compact_if_needed(most_files=8) == []
    assert lake.compact_if_needed(most_files=4) == ["2026-11-21"]
    assert lake.part("2026-11-21").files.height == 1
    assert lake.compact_if_needed(most_files=4) == []
    assert lake.scan().collect().sort("recorded_seq").equals(before)
    assert named(EventLake(lake.root)) == names


@pytest.mark.slow
def test_a_year_of_small_batches_stays_fast_to_read(lake: EventLake, lake_rows_of: LakeRows) -> None:
    for number in range(1, 2001):
        lake.append(lake_rows_of({**job(f"j{number}", day=number % 30, batch=number, seq=number)}), number)
    before = lake.scan().collect().sort("recorded_seq")
    assert len(lake.compact_if_needed()) == 30
    begin = time.perf_counter()
    after = EventLake(lake.root).scan().collect()
    assert time.perf_counter() - begin < 2
    assert lake.part("2026-11-21").files.height == 1
    assert after.sort("recorded_seq").equals(before)
