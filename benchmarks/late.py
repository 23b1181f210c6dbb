"""How long it takes until a month is right again after 1% of its events came late: `late.py --events 10000000`.

Two stories: one cluster was cut off for three days and tells of them now; or every day gets a few events more. The
full time is that of rolling the month up and charging it once. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import ours
from benchmarks.sample_month import DATES, batch
from hourbook.settings import Home
from metering.lake import EventLake
from metering.sealing import recorded

CUT_OFF_DAYS = range(10, 13)
CLUSTER = "c03"
SEED_CUT_OFF, SEED_SPREAD = 1, 2


def main() -> None:
    """Roll a month up, let events come late, and see how long each takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="a month made by close.py --folder, which is changed by this")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="hourbook-late-"))
    try:
        if not (folder / "lake").exists():
            ours.fill(folder, given.events)
        print(json.dumps(figures(folder, given.events)))
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


def figures(folder: Path, events: int) -> dict[str, Any]:
    """Return the figures of the last line."""
    with ours.opened(folder, afresh=True) as home:
        rolled_up, charged = timed(lambda: ours.roll_up(home)), timed(lambda: ours.charges(home))
        found: dict[str, Any] = {"events": events, "full_seconds": round(rolled_up + charged, 2)}
        found["full_rollup_seconds"] = round(rolled_up, 2)
        for name, late in (("one_cluster", cut_off(events // 100)), ("spread", spread(events // 100))):
            come_late(home, late)
            again, charged = timed(lambda: ours.roll_up(home)), timed(lambda: ours.charges(home))
            found[f"{name}_rollup_seconds"] = round(again, 2)
            found[f"{name}_charges_seconds"] = round(charged, 2)
            found[f"{name}_share"] = round(again / rolled_up, 4)
        late_charges, late_usage = ours.charges(home), ours.usage(home)
    with ours.opened(folder, afresh=True) as home:
        ours.roll_up(home)
        found["identical"] = late_charges.equals(ours.charges(home)) and late_usage.equals(ours.usage(home))
    return found


def cut_off(events: int) -> Iterator[pl.DataFrame]:
    """Tell of one cluster's jobs on three days."""
    each = events // len(CUT_OFF_DAYS)
    for day in CUT_OFF_DAYS:
        many = batch(day, day * 100 * each, day * 100 * each + 20 * each, SEED_CUT_OFF)
        yield many.filter(pl.col("cluster") == CLUSTER).head(each)


def spread(events: int) -> Iterator[pl.DataFrame]:
    """Tell of a few more jobs on every day."""
    for day in range(DATES):
        yield batch(day, events * day // DATES, events * (day + 1) // DATES, SEED_SPREAD)


def come_late(home: Home, late: Iterator[pl.DataFrame]) -> None:
    """Append events as the next batch."""
    lake = EventLake(home.lake)
    rows = pl.concat(late)
    first_seq, batch_seq = int(lake.partitions()["recorded_seq"].max()) + 1, lake.sealed_batch() + 1  # type: ignore[arg-type]
    lake.append(recorded(rows, first_seq=first_seq, batch_seq=batch_seq), batch_seq)


def timed(work: Callable[[], object]) -> float:
    """Do something and return its seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
