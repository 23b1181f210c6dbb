"""The dumps of a real cluster, through inbox, lake and quarantine: every row of every file is accounted for."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from hourbook.database import create_home, read_session, run_write
from hourbook.rollups import Window, read_rollup, roll_up_dirty
from hourbook.sealing import seal, total_account, usage_accounting
from metering import store
from metering.clusters import Cluster
from metering.collectors.slurm import read_sacct
from metering.lake import EventLake
from metering.plan import RollupPlan

pytestmark = pytest.mark.shared

NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)
DAY = datetime(2026, 11, 21, 16, tzinfo=UTC)
PLAN = RollupPlan(zones=("Asia/Shanghai",))
HPC1 = Cluster(name="hpc1", timezone="Asia/Shanghai")
BROKEN_ROWS = 7


def files_of(shared_data: Path) -> list[Path]:
    dumps = shared_data / "slurm" / "dumps"
    return [
        *(folder / "sacct.psv" for folder in sorted(dumps.glob("D*"))),
        dumps / "D9_final_all" / "sacct-epoch-name-last.psv",
    ]


@pytest.mark.parametrize("order", ["as delivered", "clean first", "shuffled"])
def test_ten_dumps_and_the_clean_file_end_in_the_truth_with_nothing_open(
    shared_data: Path, tmp_path: Path, order: str
) -> None:
    files = files_of(shared_data)
    if order == "clean first":
        files.reverse()
    elif order == "shuffled":
        random.Random(3).shuffle(files)  # noqa: S311
    home = create_home(tmp_path / "home", NOW)
    lake = EventLake(home.lake)
    for number, path in enumerate(files):
        payload = path.read_bytes()
        collected = read_sacct(payload, cluster=HPC1)
        digest = hashlib.sha256(payload).hexdigest()
        accept = partial(
            store.accept, collected=collected, origin=str(path), payload_digest=digest, now=NOW, kind="slurm"
        )
        receipt = run_write(home.engine, accept)
        assert receipt.rows == receipt.events + sum(receipt.no_usage.values()) + sum(receipt.quarantined.values())
        if number % 3 == 0:
            seal(home.engine, lake, NOW)
    seal(home.engine, lake, NOW)
    roll_up_dirty(home.engine, lake, PLAN, NOW)
    with read_session(home.engine) as session:
        accounts = usage_accounting(session, lake)
        statuses = [entry.status for entry in store.quarantine(session)]
        usage = read_rollup(session, lake, PLAN, Window(DAY, DAY + timedelta(days=1)))
    assert [account.accounted for account in accounts] == [account.rows for account in accounts]
    total = total_account(accounts)
    assert (total.rows, total.statuses["kept"], total.waiting) == (2050, 290, 0)
    assert statuses == ["resolved"] * BROKEN_ROWS
    assert total.repeated == total.quarantined["broken_row"] - BROKEN_ROWS
    assert usage.filter(pl.col("resource") == "cpu")["quantity"].sum() == 22_054
    assert usage["jobs"].sum() == 290
    home.close()
