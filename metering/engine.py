"""The rollup of one date, read from the lake: a pure function of the date's recorded events and the plan.

It is what one machine runs date by date, and what workers of a cluster run, each for its own dates. Numbers are read
of all events; text only of the few that another row may replace. A date of any size is read in parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import polars as pl

from metering.cells import COUNTED_SCHEMA, NARROW, Cells, Cube, naming_largest, together
from metering.contested import CONTESTED, losers, repeated
from metering.identity import AMENDED
from metering.lake import DatePart, EventLake
from metering.names import Names
from metering.plan import RollupPlan
from metering.rollup import as_rollup

# So many rows are looked at together: some hundred MiB.
CHUNK_ROWS = 4_000_000


def roll_up_date(lake: EventLake, date: str, plan: RollupPlan, as_of: int | None = None) -> pl.DataFrame:
    """Return the rollup of the events that start on a UTC date, as they were recorded by `as_of` (now without)."""
    return as_rollup(date, count_date(lake, date, plan, as_of), lake.names(), plan)


def count_date(lake: EventLake, date: str, plan: RollupPlan, as_of: int | None = None) -> pl.DataFrame:
    """Return what the rollup of a date is written out from: COUNTED_SCHEMA, in numbers of the lake's dictionaries."""
    part = lake.part(date, as_of)
    if part.files.is_empty():
        return COUNTED_SCHEMA.to_frame()
    names = lake.names()
    with naming_largest(part.scan()):
        return _count(part, Cube.of(date, plan, names, part.last_second), names).counted()


def _count(part: DatePart, cube: Cube, names: Names) -> Cells:
    """Count every row, then take off those that do not count."""
    columns = _narrow(part)
    wanted = _always_contested(part)
    counted = []
    for chunk in part.chunks(CHUNK_ROWS):
        rows = chunk.select(columns).collect()
        counted.append(cube.add_up(rows))
        empty = rows.filter((pl.col("cpus") == 0) & (pl.col("nodes") == 0))
        wanted.append(empty["key_hash"])
    wanted.append(_repeated(part))
    hashes = pl.concat(wanted).unique()
    evidence_of = partial(_evidence, part)
    for some in _in_parts(hashes):
        contested = _contested(part, some)
        counted.append(cube.add_up(losers(contested, names, evidence_of).select(columns), sign=-1))
    return together(counted)


def _narrow(part: DatePart) -> list[str]:
    return ["key_hash", *NARROW, *(["counters"] if part.has_counters else [])]


def _repeated(part: DatePart) -> pl.Series:
    """Return the key hashes that occur more than once, looking at so many at a time as fit in memory with ease."""
    hashes = part.scan().select("key_hash")
    slices = -(-part.rows // (2 * CHUNK_ROWS))
    if slices == 1:
        return repeated(hashes.collect()["key_hash"])
    parts = [hashes.filter(pl.col("key_hash") % slices == number) for number in range(1 - slices, slices)]
    return pl.concat([repeated(some.collect(engine="streaming")["key_hash"]) for some in parts])


def _always_contested(part: DatePart) -> list[pl.Series]:
    """Return the hashes of events that the operator spoke about: even one told once may not count."""
    if part.latest_revision < AMENDED:
        return []
    spoken = part.scan().filter(pl.col("revision") >= AMENDED).select("key_hash")
    return [spoken.collect()["key_hash"]]


def _contested(part: DatePart, hashes: pl.Series) -> pl.DataFrame:
    rows = part.scan().filter(pl.col("key_hash").is_in(hashes.implode()))
    return rows.select(*NARROW, *CONTESTED).collect()


def _evidence(part: DatePart, numbers: pl.Series) -> pl.DataFrame:
    rows = part.scan().filter(pl.col("recorded_seq").is_in(numbers.implode()))
    return rows.select("recorded_seq", "evidence").collect()


def _in_parts(hashes: pl.Series) -> Iterator[pl.Series]:
    for begin in range(0, hashes.len(), CHUNK_ROWS // 4):
        yield hashes.slice(begin, CHUNK_ROWS // 4)


def count_change(lake: EventLake, date: str, plan: RollupPlan, after: int, as_of: int | None = None) -> pl.DataFrame:
    """Return by how much what was recorded later than `after` changes a date's count: COUNTED_SCHEMA, signed.

    Added to what was counted as of `after` it gives what is counted by `as_of`. Of the events recorded before, only
    those are read about which something new was said.
    """
    part = lake.part(date, as_of)
    old, new = part.split(after)
    if new.files.is_empty():
        return COUNTED_SCHEMA.to_frame()
    names = lake.names()
    cube = Cube.of(date, plan, names, part.last_second)
    columns = _narrow(part)
    late = new.scan().select(*NARROW, *CONTESTED).collect()
    told_before = _contested(old, _shared(old, late["key_hash"]))
    empty = late.filter((pl.col("cpus") == 0) & (pl.col("nodes") == 0) | (pl.col("revision") >= AMENDED))
    hashes = pl.concat([told_before["key_hash"], repeated(late["key_hash"]), empty["key_hash"]]).unique()
    contested = pl.concat([told_before, late.filter(pl.col("key_hash").is_in(hashes.implode()))])
    evidence_of = partial(_evidence, part)
    with naming_largest(late.lazy()):
        changes = [
            cube.add_up(late.select(columns)),
            cube.add_up(losers(contested, names, evidence_of).select(columns), sign=-1),
            cube.add_up(losers(told_before, names, evidence_of).select(columns)),
        ]
        return together(changes).counted()


def _shared(old: DatePart, hashes: pl.Series) -> pl.Series:
    """Return which of some key hashes a part holds."""
    wanted = hashes.unique()
    held = old.scan().select(pl.col("key_hash").filter(pl.col("key_hash").is_in(wanted.implode())))
    return held.collect()["key_hash"].unique()
