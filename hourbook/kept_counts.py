"""What was counted of each date, kept in files beside the lake: a whole count and the differences that came later.

They are a cache: a file that is missing is counted again. SQL says which files are in force.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import polars as pl
from sqlalchemy import Engine
from sqlmodel import Session

from hourbook.crash import crash_point
from hourbook.database import run_write
from metering import store
from metering.cells import COUNTED_SCHEMA
from metering.lake import EventLake
from metering.object_store import Place

# So many differences are kept apart before they are put together with what they belong to.
MOST_CHANGES = 8


def read_counted(lake: EventLake, kept: store.RollupPartitionRow) -> pl.DataFrame | None:
    """Return what is kept of a date, its differences as rows of their own; None where a file is gone."""
    try:
        parts = [pl.read_parquet(str(_folder(lake) / file), schema=COUNTED_SCHEMA) for file in kept.files]
    except FileNotFoundError:
        return None
    return pl.concat(parts)


def keep_whole(
    engine: Engine, lake: EventLake, number: int, date: str, *, counted: pl.DataFrame, recorded_seq: int
) -> None:
    """Keep what was counted of all a date's events up to a recorded number."""
    file = f"{number}/{date}-{recorded_seq}-{secrets.token_hex(2)}.parquet"
    _write(counted, _folder(lake) / file)

    def register(session: Session) -> list[str]:
        unneeded = store.register_partition(session, date, number, recorded_seq=recorded_seq, file=file)
        session.flush()
        crash_point("rollup:before_commit")
        return unneeded

    unneeded = run_write(engine, register)
    crash_point("rollup:after_commit")
    for name in unneeded:
        (_folder(lake) / name).unlink(missing_ok=True)


def keep_change(
    engine: Engine, lake: EventLake, kept: store.RollupPartitionRow, *, counted: pl.DataFrame, recorded_seq: int
) -> None:
    """Keep by how much events recorded later, up to a number, change what is kept of a date."""
    if len(kept.files) > MOST_CHANGES:
        before = read_counted(lake, kept)
        if before is not None:
            whole = _added_up(pl.concat([before, counted]))
            keep_whole(engine, lake, kept.plan_number, kept.start_date, counted=whole, recorded_seq=recorded_seq)
        return
    after, date, number = kept.recorded_seq, kept.start_date, kept.plan_number
    file = f"{number}/{date}-{after}-{recorded_seq}-{secrets.token_hex(2)}.parquet"
    _write(counted, _folder(lake) / file)

    def register(session: Session) -> bool:
        done = store.register_change(session, date, number, after=after, recorded_seq=recorded_seq, file=file)
        session.flush()
        crash_point("rollup:before_commit")
        return done

    if not run_write(engine, register):
        (_folder(lake) / file).unlink(missing_ok=True)
    crash_point("rollup:after_commit")


def _added_up(counted: pl.DataFrame) -> pl.DataFrame:
    numbers = ("cpu", "node", "wall", "jobs", "total")
    keys = [column for column in COUNTED_SCHEMA if column not in numbers]
    sums = counted.group_by(keys).agg(pl.col(numbers).sum())
    return sums.filter(pl.any_horizontal(pl.col(numbers) != 0)).select(list(COUNTED_SCHEMA))


def _write(counted: pl.DataFrame, path: Place) -> None:
    """Write a file that is there whole or not at all."""
    if not isinstance(path, Path):
        counted.write_parquet(str(path))  # an object appears when it is complete
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with unfinished.open("wb") as file:
        counted.write_parquet(file, compression="lz4")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _folder(lake: EventLake) -> Place:
    return lake.root / "rollup"
