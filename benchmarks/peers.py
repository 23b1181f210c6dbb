"""Run one peer over the lake's files, in a process of its own: `peers.py duckdb|duckdb_plain|chdb|floor_… FOLDER`.

Prints seconds and the process's peak memory as JSON, and leaves its usage and charges as Parquet files to compare.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import peer_sql
from benchmarks.sample_month import dates

THREADS = 2
FIRST_DAY, LAST_DAY = 20_758, 20_787  # 2026-11-01 and 2026-11-30, in days since 1970
Run = Callable[[str], object]


def duckdb_runner() -> Run:
    """Return what runs a statement in DuckDB."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"set threads = {THREADS}; set preserve_insertion_order = false")
    return lambda sql: connection.execute(sql.replace("{wide}", "hugeint"))


def chdb_runner() -> Run:
    """Return what runs a statement, written for DuckDB, in chDB."""
    from chdb.session import Session

    session = Session()
    session.query(f"set max_threads = {THREADS}, prefer_column_name_to_alias = 1, joined_subquery_requires_alias = 0")
    return lambda sql: [session.query(part) for part in _for_chdb(sql)]


def _for_chdb(sql: str) -> list[str]:
    sql = re.sub(r"read_parquet\('([^']*)'[^)]*\)", r"file('\1', 'Parquet')", sql)
    sql = re.sub(r"copy (\w+) to '([^']*)'.*", r"insert into function file('\2', 'Parquet') select * from \1", sql)
    sql = sql.replace("unnest(range(", "arrayJoin(range(").replace("{wide}", "Int128").replace("::int", "::Int64")
    sql = re.sub(r"split_part\(cards, ':', 2\)", "splitByChar(':', cards)[2]", sql)
    sql = sql.replace(
        "case when cards = '' then 0 else cast(", "case when cards = '' then 0 else toInt64OrZero("
    ).replace("[2] as bigint)", "[2])")
    sql = re.sub(r"(\([^()]*(?:\([^()]*\)[^()]*)*\)|\b\w+\b) // (\([^()]*\)|\w+)", r"intDiv(\1, \2)", sql)
    made = re.match(r"create (or replace temp )?table (\w+) as", sql)
    if made:
        name = made.group(2)
        query = sql[made.end() :]
        return [f"drop table if exists {name}", f"create table {name} engine = Memory as {query}"]
    return [f"{sql} engine = Memory"] if sql.startswith("create table") else [sql]


def polars_floor(events: str) -> None:
    """Only scan the columns and sum them by the same groups, in polars."""
    import polars as pl

    seconds = pl.col("end_second") - pl.col("start_second")
    day = (pl.col("start_second") + peer_sql.OFFSET) // peer_sql.DAY
    rows = pl.scan_parquet(f"{events}/*/*.parquet", hive_partitioning=True)
    sums = rows.group_by("start_date", "who_number", "cards_number", day.alias("d")).agg(
        cpu=(pl.col("cpus") * (seconds - pl.col("suspended_seconds"))).sum(),
        node=(pl.col("nodes") * seconds).sum(),
        wall=seconds.sum(),
        jobs=pl.len(),
    )
    sums.collect(engine="streaming")


def work(engine: str, folder: Path, run: Run) -> None:
    """Do the whole work of an engine."""
    events, names = str(folder / "lake" / "events"), str(folder / "lake" / "names")
    if engine == "floor_polars":
        polars_floor(events)
        return
    if engine.startswith("floor"):
        run(peer_sql.floor(events, "start_date, who_number, cards_number"))
        return
    if engine.endswith("plain"):
        run(peer_sql.plain(events))
    else:
        run(peer_sql.CREATE_ROLLUP)
        for date in dates():
            for statement in peer_sql.best(events, date):
                run(statement)
        run(peer_sql.name_rollup(names))
    run(peer_sql.usage(FIRST_DAY, LAST_DAY))
    run(peer_sql.charges(str(folder)))


def main() -> None:
    """Run the engine named on the command line."""
    engine, folder = sys.argv[1], Path(sys.argv[2])
    run = chdb_runner() if "chdb" in engine else duckdb_runner()
    begin = time.perf_counter()
    work(engine, folder, run)
    seconds = time.perf_counter() - begin
    cpu = time.process_time()
    if not engine.startswith("floor"):
        for table in ("usage", "charges"):
            (folder / f"{engine}-{table}.parquet").unlink(missing_ok=True)
            run(f"copy {table} to '{folder}/{engine}-{table}.parquet' (format parquet)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"engine": engine, "seconds": round(seconds, 2), "cpu": round(cpu, 2), "peak_mib": peak}))


if __name__ == "__main__":
    main()
