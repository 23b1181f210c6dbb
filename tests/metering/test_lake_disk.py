"""What a power cut leaves of the lake: the last version is whole or taken back, and nothing before it is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from metering import lake_disk
from metering.lake import EventLake

LakeRows = Callable[..., pl.DataFrame]


def job(number: int) -> dict[str, object]:
    return {"id": f"job-{number}", "batch_seq": number, "recorded_seq": number}


def lake_of(folder: Path, rows: LakeRows, batches: int) -> EventLake:
    lake = EventLake(folder)
    for number in range(1, batches + 1):
        assert lake.append(rows(job(number)), number)
    return lake


def after_power_cut(folder: Path, copy: Path) -> EventLake:
    """The lake as a machine finds it that starts again: under a name that this process has not looked at."""
    shutil.copytree(folder, copy)
    return EventLake(copy)


def last_commit(folder: Path, table: str = "events") -> Path:
    return max((folder / table / "_delta_log").glob("0*.json"))


def last_file(folder: Path) -> Path:
    return max((folder / "events").glob("start_date=*/*.parquet"), key=lambda path: path.stat().st_mtime_ns)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def full_of_holes(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("harm", [empty, cut_short, full_of_holes, Path.unlink])
def test_a_last_version_whose_data_never_reached_the_disk_is_taken_back_and_can_be_written_again(
    harm: Callable[[Path], None], tmp_path: Path, lake_rows_of: LakeRows
) -> None:
    lake_of(tmp_path / "lake", lake_rows_of, 3)
    harm(last_file(tmp_path / "lake"))
    lake = after_power_cut(tmp_path / "lake", tmp_path / "copy")
    assert lake.sealed_batch() == 2
    assert lake.append(lake_rows_of(job(3)), 3)
    assert sorted(lake.scan().collect()["id"]) == ["job-1", "job-2", "job-3"]


@pytest.mark.parametrize("harm", [empty, cut_short, full_of_holes])
@pytest.mark.parametrize("table", ["events", "names"])
def test_a_last_version_that_cannot_be_read_is_taken_back(
    harm: Callable[[Path], None], table: str, tmp_path: Path, lake_rows_of: LakeRows
) -> None:
    lake_of(tmp_path / "lake", lake_rows_of, 2)
    harm(last_commit(tmp_path / "lake", table))
    lake = after_power_cut(tmp_path / "lake", tmp_path / "copy")
    lake.append(lake_rows_of(job(2)), 2)
    assert sorted(lake.scan().collect()["id"]) == ["job-1", "job-2"]


@pytest.mark.parametrize("harm", [empty, cut_short, full_of_holes])
def test_a_checkpoint_that_never_reached_the_disk_does_not_keep_the_lake_from_being_read(
    harm: Callable[[Path], None], tmp_path: Path, lake_rows_of: LakeRows
) -> None:
    lake_of(tmp_path / "lake", lake_rows_of, 3).compact()
    log = tmp_path / "lake" / "events" / "_delta_log"
    for checkpoint in log.glob("*.checkpoint*.parquet"):
        harm(checkpoint)
    lake = after_power_cut(tmp_path / "lake", tmp_path / "copy")
    assert sorted(lake.scan().collect()["id"]) == ["job-1", "job-2", "job-3"]


def test_a_whole_lake_is_left_as_it_is(tmp_path: Path, lake_rows_of: LakeRows) -> None:
    lake_of(tmp_path / "lake", lake_rows_of, 3)
    lake = after_power_cut(tmp_path / "lake", tmp_path / "copy")
    assert lake_disk.mend(tmp_path / "copy" / "events") == []
    assert lake.sealed_batch() == 3


def test_a_version_that_could_not_be_forced_is_forced_before_anyone_says_that_it_is_there(
    tmp_path: Path, lake_rows_of: LakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = lake_of(tmp_path / "lake", lake_rows_of, 1)
    forced, fsync = set[str](), lake_disk._fsync  # noqa: SLF001

    def fails(path: Path) -> None:
        if path.suffix == ".parquet":
            raise OSError(5, os.strerror(5), str(path))
        fsync(path)

    def counts(path: Path) -> None:
        fsync(path)
        forced.add(path.name)

    monkeypatch.setattr(lake_disk, "_fsync", fails)
    with pytest.raises(OSError, match="Input/output"):
        lake.append(lake_rows_of(job(2)), 2)
    monkeypatch.setattr(lake_disk, "_fsync", counts)
    # The version is there, so nothing is appended; and what could not be forced was written anew, and is forced now.
    assert not lake.append(lake_rows_of(job(2)), 2)
    name = last_file(tmp_path / "lake").name
    assert {name, f".{name}.anew", last_commit(tmp_path / "lake").name} <= forced
    assert sorted(lake.scan().collect()["id"]) == ["job-1", "job-2"]
