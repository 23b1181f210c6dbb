"""A production log of real Slurm accounting against the tables that Open XDMoD made of it."""

from __future__ import annotations

import csv
import gzip
import random
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from metering.clusters import Cluster
from metering.collectors.slurm import read_sacct
from metering.identity import mark
from metering.plan import RollupPlan
from metering.rollup import roll_up
from metering.sealing import recorded
from metering.usage import hours

pytestmark = pytest.mark.shared

UTC = ZoneInfo("UTC")
PLAN = RollupPlan(zones=("UTC",))
COLUMNS = (
    "JobID JobIDRaw Cluster Partition QOS Account Group GID User UID Submit Eligible Start End Elapsed ExitCode State "
    "NNodes NCPUS ReqCPUS ReqMem ReqTRES AllocTRES Timelimit NodeList JobName"
)
TABLES = {
    "core_hours": "total_cpu_hours",
    "card_hours": "total_gpu_hours",
    "node_hours": "total_node_hours",
    "wall_hours": "total_wallduration_hours",
    "jobs": "job_count",
}
Day = dict[str, Decimal]


@pytest.fixture(scope="module")
def log_lines(shared_data: Path) -> list[bytes]:
    lines = gzip.decompress((shared_data / "xdmod" / "phillips.log.gz").read_bytes()).split(b"\n")
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def expected(shared_data: Path) -> dict[str, Day]:
    """Open XDMoD's figures by day."""
    days: dict[str, Day] = {}
    for ours, theirs in TABLES.items():
        with (shared_data / "xdmod" / "expected" / f"{theirs}.csv").open() as file:
            for row in csv.DictReader(file):
                days.setdefault(row["day"], {})[ours] = Decimal(row["phillips"])
    return days


def imported(files: list[list[bytes]]) -> pl.DataFrame:
    """Lake rows of several files, imported one after the other."""
    rows: list[pl.DataFrame] = []
    for number, lines in enumerate(files, start=1):
        log = b"\n".join(lines) + b"\n"
        collected = read_sacct(log, cluster=Cluster(name="phillips"), timezone=UTC, columns=COLUMNS.split())
        assert collected.rows == len(lines)
        assert not collected.rejected
        first_seq = sum(part.height for part in rows) + 1
        rows.append(recorded(collected.events, first_seq=first_seq, batch_seq=number))
    return pl.concat(rows)


def by_day(rows: pl.DataFrame) -> dict[str, Day]:
    table = hours(roll_up(rows, PLAN), ["day", "cluster"], zone=UTC)
    assert table["cluster"].unique().to_list() == ["phillips"]
    return {row["day"]: {name: _four(row[name]) for name in TABLES} for row in table.iter_rows(named=True)}


def _four(value: str | int) -> Decimal:
    return Decimal(value).quantize(Decimal("0.0001"), ROUND_HALF_UP)


def test_every_day_equals_open_xdmod(log_lines: list[bytes], expected: dict[str, Day]) -> None:
    assert by_day(imported([log_lines])) == expected


def test_rows_that_never_ran_are_counted_as_such(log_lines: list[bytes]) -> None:
    log = b"\n".join(log_lines)
    collected = read_sacct(log, cluster=Cluster(name="phillips"), timezone=UTC, columns=COLUMNS.split())
    assert dict(collected.no_usage) == {"never_started": 239}
    assert collected.rows == 4285


def test_imported_twice_counts_once(log_lines: list[bytes], expected: dict[str, Day]) -> None:
    rows = imported([log_lines, log_lines])
    assert by_day(rows) == expected
    counted = mark(rows).group_by("batch_seq", "status").len().sort("batch_seq")
    assert counted.rows() == [(1, "kept", 4046), (2, "duplicate", 4046)]


def test_shuffled_it_is_the_same(log_lines: list[bytes], expected: dict[str, Day]) -> None:
    shuffled = random.Random(7).sample(log_lines, len(log_lines))  # noqa: S311
    assert by_day(imported([shuffled])) == expected


@pytest.mark.parametrize("seed", range(3))
def test_cut_into_seven_overlapping_files_in_any_order_it_is_the_same(
    log_lines: list[bytes], expected: dict[str, Day], seed: int
) -> None:
    step = len(log_lines) // 7
    files = [log_lines[max(0, i * step - 200) : (i + 1) * step + 200 if i < 6 else None] for i in range(7)]
    random.Random(seed).shuffle(files)  # noqa: S311
    assert by_day(imported(files)) == expected


def test_one_job_moved_by_a_day_moves_exactly_its_hours(log_lines: list[bytes], expected: dict[str, Day]) -> None:
    state, start, end, cpus, elapsed = 16, 12, 13, 18, 14
    fields = next(
        row
        for row in (line.decode().split("|") for line in log_lines)
        if row[start].startswith("2016-12-30T")
        and row[end].startswith("2016-12-30T")
        and row[elapsed] > "00:10:00"
        and row[state] == "COMPLETED"
        and "gpu" not in row[22]
    )
    original = "|".join(fields)
    moved = "|".join(
        f.replace("2016-12-30T", "2016-12-31T") if i in {10, 11, 12, 13} else f for i, f in enumerate(fields)
    )
    lines = [moved.encode() if line == original.encode() else line for line in log_lines]
    hour, minute, second = (int(part) for part in fields[elapsed].split(":"))
    core_hours = Decimal(int(fields[cpus]) * (hour * 3600 + minute * 60 + second)) / 3600
    days = by_day(imported([lines]))
    tolerance = Decimal("0.0001")
    assert abs(expected["2016-12-30"]["core_hours"] - core_hours - days["2016-12-30"]["core_hours"]) <= tolerance
    assert abs(expected["2016-12-31"]["core_hours"] + core_hours - days["2016-12-31"]["core_hours"]) <= tolerance
    assert days["2016-12-30"]["jobs"] == expected["2016-12-30"]["jobs"] - 1
    assert days["2016-12-31"]["jobs"] == expected["2016-12-31"]["jobs"] + 1
    unmoved = set(expected) - {"2016-12-30", "2016-12-31"}
    assert {day: days[day] for day in unmoved} == {day: expected[day] for day in unmoved}
