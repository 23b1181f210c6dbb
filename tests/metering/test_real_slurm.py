"""A real Slurm cluster, dumped again and again while its jobs ran, against Slurm's own sreport."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from metering.clusters import Cluster
from metering.collectors.slurm import read_sacct
from metering.events import Collected
from metering.identity import mark
from metering.plan import RollupPlan
from metering.rollup import roll_up
from metering.sealing import hold_back, recorded

pytestmark = pytest.mark.shared

SHANGHAI = ZoneInfo("Asia/Shanghai")
PLAN = RollupPlan(zones=("Asia/Shanghai",), hourly=True)
HPC1 = Cluster(name="hpc1", timezone="Asia/Shanghai")
CLEAN = "clean"
LATEST = ("D9_final_all", "D9_final_hour04", CLEAN)

Cell = tuple[str, str, str, str]  # hour, account, user, resource

# sreport − ours, as data/README.md lists and explains them: suspended time and resized jobs.
DIFFERENCES: dict[Cell, int] = {
    ("04", "grp_condmat", "sl_bob", "cpu"): 64,
    ("05", "grp_condmat", "sl_bob", "cpu"): -64,
    ("04", "acme_rd", "sl_dave", "cpu"): 4,
    ("05", "acme_rd", "sl_dave", "cpu"): 21,
    ("04", "acme_rd", "sl_dave", "node"): 2,
    ("05", "acme_rd", "sl_dave", "node"): 3,
    ("05", "grp_condmat", "sl_alice", "cpu"): 24,
    ("05", "grp_condmat", "sl_alice", "node"): 8,
    # A maintenance reservation, which no job ran in.
    ("04", "root", "root", "cpu"): 1120,
    ("05", "root", "root", "cpu"): 1760,
}


@pytest.fixture(scope="module")
def collected(shared_data: Path) -> dict[str, Collected]:
    """What the collector made of each of the ten folders and of the clean file."""
    dumps = shared_data / "slurm" / "dumps"
    files = {folder.name: folder / "sacct.psv" for folder in sorted(dumps.glob("D*"))}
    files[CLEAN] = dumps / "D9_final_all" / "sacct-epoch-name-last.psv"
    assert len(files) == 11
    return {name: read_sacct(path.read_bytes(), cluster=HPC1) for name, path in files.items()}


def imported(collected: dict[str, Collected], names: list[str]) -> pl.DataFrame:
    """Lake rows of some files, imported one after the other."""
    rows: list[pl.DataFrame] = []
    first_seq = 1
    for number, name in enumerate(names, start=1):
        events = collected[name].events
        rows.append(recorded(events, first_seq=first_seq, batch_seq=number))
        first_seq += events.height
    accepted, held = hold_back(pl.concat(rows), rows[0].clear())
    assert held.is_empty()
    return accepted


def cells(rollup: pl.DataFrame) -> pl.DataFrame:
    return rollup.drop("start_date").sort(pl.all())


def total(rollup: pl.DataFrame, resource: str) -> int:
    return int(rollup.filter(pl.col("resource").str.starts_with(resource))["quantity"].sum())


def test_the_clean_file_alone_is_the_truth(collected: dict[str, Collected]) -> None:
    rollup = roll_up(imported(collected, [CLEAN]), PLAN)
    assert total(rollup, "cpu") == 22_054
    assert rollup["jobs"].sum() == 290
    assert collected[CLEAN].rows == 294


@pytest.mark.parametrize("seed", range(50))
def test_any_files_in_any_order_with_the_clean_one_give_the_same_hours(
    collected: dict[str, Collected], seed: int
) -> None:
    choose = random.Random(seed)  # noqa: S311
    others = [name for name in collected if name != CLEAN]
    names = [CLEAN, *choose.sample(others, choose.randint(1, len(others)))]
    choose.shuffle(names)
    truth = roll_up(imported(collected, [CLEAN]), PLAN)
    assert cells(roll_up(imported(collected, names), PLAN)).equals(cells(truth))


def test_without_the_last_dumps_the_latest_version_seen_of_each_job_counts(collected: dict[str, Collected]) -> None:
    names = [name for name in collected if name not in LATEST]
    latest: dict[str, dict[str, Any]] = {}
    for name in names:
        for event in collected[name].events.iter_rows(named=True):
            known = latest.get(event["id"])
            if known is None or event["revision"] > known["revision"]:
                latest[event["id"]] = event
    cpu_seconds = sum(
        event["cpus"] * (event["end_second"] - event["start_second"] - event["suspended_seconds"])
        for event in latest.values()
    )
    for seed in range(5):
        shuffled = random.Random(seed).sample(names, len(names))  # noqa: S311
        rollup = roll_up(imported(collected, shuffled), PLAN)
        assert total(rollup, "cpu") == cpu_seconds
    assert cpu_seconds != 22_054


def test_every_row_of_every_file_is_accounted_for(collected: dict[str, Collected]) -> None:
    names = list(collected)
    statuses = mark(imported(collected, names)).group_by("batch_seq").len()
    events = dict(statuses.iter_rows())
    for number, name in enumerate(names, start=1):
        file = collected[name]
        assert file.rows == events[number] + len(file.rejected) + sum(file.no_usage.values())


def sreport(shared_data: Path) -> dict[Cell, int]:
    """Slurm's own seconds by hour, account and login."""
    used: dict[Cell, int] = {}
    names = {"cpu": "cpu", "gres/gpu": "card", "node": "node"}
    for hour in ("04", "05"):
        path = shared_data / "slurm" / "sreport" / f"hour{hour}_final" / "AccountUtilizationByUser.hpc1.seconds.psv"
        for line in path.read_text().splitlines():
            fields = line.split("|")
            if len(fields) == 6 and fields[2] not in {"", "Login"} and fields[4] in names and int(fields[5]):
                used[hour, fields[1], fields[2], names[fields[4]]] = int(fields[5])
    return used


def ours(rollup: pl.DataFrame) -> dict[Cell, int]:
    used: dict[Cell, int] = defaultdict(int)
    for row in rollup.iter_rows(named=True):
        resource = row["resource"].partition(":")[0]
        if resource in {"cpu", "node", "card"} and row["quantity"]:
            seconds = row["quantity"] // 1000 if resource == "card" else row["quantity"]
            hour = row["span_start"].astimezone(SHANGHAI).strftime("%H")
            used[hour, row["account"], row["user"], resource] += seconds
    return dict(used)


def test_hours_accounts_and_users_equal_sreport_but_for_the_known_differences(
    shared_data: Path, collected: dict[str, Collected]
) -> None:
    mine = ours(roll_up(imported(collected, list(collected)), PLAN))
    theirs = sreport(shared_data)
    differences = {cell: theirs.get(cell, 0) - mine.get(cell, 0) for cell in {*mine, *theirs}}
    assert {cell: seconds for cell, seconds in differences.items() if seconds} == DIFFERENCES
    assert len(theirs) > 30
