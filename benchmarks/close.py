"""From raw events to charges, against DuckDB, chDB and a floor, on the same files: `close.py --events 100000000`.

Every engine runs in a process of its own, one after the other. Results are compared to the last unit. The last line
is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import ours, sample_catalog
from benchmarks.sample_month import ACCOUNTS

PEERS = ("duckdb", "duckdb_plain", "chdb")
FLOORS = ("floor_duckdb", "floor_chdb", "floor_polars")


def main() -> None:
    """Make the month, let every engine do the work, compare, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where a month was made before, or is kept; else it is deleted")
    parser.add_argument("--step", choices=["fill", "ours", "close"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(step(given.step, given.folder, given.events)))
        return
    folder = given.folder or Path(tempfile.mkdtemp(prefix="hourbook-close-"))
    try:
        print(json.dumps(figures(folder, given.events)))
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


def figures(folder: Path, events: int) -> dict[str, Any]:
    """Run every engine and return the figures of the last line."""
    if not (folder / "lake").exists():
        run("close", "--step", "fill", "--folder", str(folder), "--events", str(events))
    tables(folder)
    mine = run("close", "--step", "ours", "--folder", str(folder))
    close = run("close", "--step", "close", "--folder", str(folder))
    peers = {name: run("peers", name, str(folder)) for name in PEERS}
    floors = {name: run("peers", name, str(folder)) for name in FLOORS}
    seconds, floor = mine["seconds"], min(found["seconds"] for found in floors.values())
    return {
        "events": events,
        "seconds": seconds,
        "peak_mib": max(mine["peak_mib"], close["peak_mib"]),
        "rollup_seconds": mine["rollup_seconds"],
        "close_seconds": close["seconds"],
        **{f"{name}_seconds": found["seconds"] for name, found in peers.items()},
        **{f"{name}_peak_mib": found["peak_mib"] for name, found in peers.items()},
        "floor_seconds": floor,
        **{f"{name}_seconds": found["seconds"] for name, found in floors.items()},
        **{f"vs_{name}": round(found["seconds"] / seconds, 2) for name, found in peers.items()},
        "vs_floor": round(seconds / floor, 2),
        "close_vs_duckdb": round(peers["duckdb"]["seconds"] / close["seconds"], 1),
        "identical": all(same(folder, name) for name in PEERS),
    }


def run(script: str, *arguments: str) -> dict[str, Any]:
    """Run one step in a process of its own and return its last line."""
    command = [sys.executable, "-m", f"benchmarks.{script}", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    line = done.stdout.strip().splitlines()[-1]
    print(line, file=sys.stderr)
    found: dict[str, Any] = json.loads(line)
    return found


def step(name: str, folder: Path, events: int) -> dict[str, Any]:
    """Do one step of ours: fill the lake, roll up and charge, or charge from rollups."""
    begin = time.perf_counter()
    rolled_up = begin
    if name == "fill":
        ours.fill(folder, events)
    else:
        with ours.opened(folder, afresh=name == "ours") as home:
            begin = time.perf_counter()
            ours.roll_up(home)
            rolled_up = time.perf_counter()
            charged = ours.charges(home)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if name == "ours":
        charged.write_parquet(folder / "ours-charges.parquet")
        with ours.opened(folder) as home:
            ours.usage(home).write_parquet(folder / "ours-usage.parquet")
    seconds = {"seconds": round(done - begin, 2), "rollup_seconds": round(rolled_up - begin, 2)}
    return {"engine": name, **seconds, "peak_mib": peak}


def tables(folder: Path) -> None:
    """Write the catalog's owners and prices as the peers read them."""
    owners = [(f"grp_{n:04}", f"u{sample_catalog.customer_of(n):04}") for n in range(ACCOUNTS)]
    pl.DataFrame(owners, schema=["account", "customer"], orient="row").write_parquet(folder / "owners.parquet")
    prices = [(cluster, partition, sku, int(price * 100)) for cluster, partition, sku, price in sample_catalog.skus()]
    columns = ["cluster", "partition", "sku", "cents"]
    pl.DataFrame(prices, schema=columns, orient="row").write_parquet(folder / "prices.parquet")


def same(folder: Path, engine: str) -> bool:
    """Tell whether an engine found the same usage and the same charges, row by row."""
    return all(
        in_order(folder / f"ours-{table}.parquet").equals(in_order(folder / f"{engine}-{table}.parquet"))
        for table in ("usage", "charges")
    )


def in_order(path: Path) -> pl.DataFrame:
    """Read a result in one form: columns by name, integers of 64 bits, rows sorted."""
    frame = pl.read_parquet(path)
    texts = [pl.col(name).cast(pl.String) for name, kind in frame.schema.items() if not kind.is_integer()]
    rows = frame.with_columns(pl.col(pl.Int64, pl.Int128, pl.UInt64, pl.Int32).cast(pl.Int64), *texts)
    return rows.select(sorted(rows.columns)).sort(sorted(rows.columns))


if __name__ == "__main__":
    main()
