"""Counting a month on a Spark cluster of 1 and of 2 worker processes: `spark.py --events 20000000`.

The workers read the lake themselves, each with one core, and the driver only collects. Efficiency is the share of the
ideal half that 2 workers take of the time of 1. What they count is compared, byte by byte, with what this process
counts by itself. The last line is a JSON object. Needs the extra `spark` and Java 17.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from benchmarks import ours, sample_catalog
from metering.engine import count_date
from metering.lake import EventLake
from metering.plan import RollupPlan
from metering.spark import count_on_spark, spark_cluster

WORKER_MIB = 2048


def main() -> None:
    """Make the month, count it on both clusters and here, compare, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--folder", type=Path, help="where a month was made before, or is kept; else it is deleted")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="hourbook-spark-"))
    try:
        if not (folder / "lake").exists():
            ours.fill(folder, given.events)
        print(json.dumps({"events": given.events, **figures(EventLake(folder / "lake"))}))
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


def figures(lake: EventLake) -> dict[str, float | bool]:
    """Count with 1 worker, with 2, and here."""
    plan = sample_catalog.catalog().rollup_plan()
    held = lake.partitions().sort("rows", descending=True).select("start_date", "recorded_seq")
    dates = dict(held.iter_rows())
    one, of_one = on_spark(lake, plan, dates, workers=1)
    two, of_two = on_spark(lake, plan, dates, workers=2)
    begin = time.perf_counter()
    here = {date: packed(count_date(lake, date, plan, seq)) for date, seq in dates.items()}
    local = time.perf_counter() - begin
    return {
        "dates": len(dates),
        "one_worker_seconds": round(one, 2),
        "two_workers_seconds": round(two, 2),
        "efficiency": round(one / (2 * two), 3),
        "local_seconds": round(local, 2),
        "identical": of_one == of_two == here,
    }


def on_spark(lake: EventLake, plan: RollupPlan, dates: dict[str, int], workers: int) -> tuple[float, dict[str, bytes]]:
    """Count all dates on a cluster whose workers have started; return the seconds and what each date came to."""
    with spark_cluster(f"local-cluster[{workers},1,{WORKER_MIB}]") as cluster:
        list(count_on_spark(cluster, lake.root, plan, dict(list(dates.items())[-2 * workers :])))
        begin = time.perf_counter()
        counted = dict(count_on_spark(cluster, lake.root, plan, dates))
        seconds = time.perf_counter() - begin
    print(f"{workers} worker(s): {seconds:.2f} s", file=sys.stderr)
    return seconds, {date: packed(rows) for date, rows in counted.items()}


def packed(rows: pl.DataFrame) -> bytes:
    """Return what would be written into the file that is kept."""
    written = io.BytesIO()
    rows.write_parquet(written)
    return written.getvalue()


if __name__ == "__main__":
    main()
