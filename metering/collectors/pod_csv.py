"""A list of pods as CSV: name, cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec, qos, pod_phase and three times."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from metering.collectors.common import LogFileError, number
from metering.collectors.csv_table import read_table
from metering.collectors.pods import PODS_SCHEMA
from metering.collectors.quantities import SHARES

COLUMNS = (
    *("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "qos", "pod_phase"),
    *("creation_time", "deletion_time", "scheduled_time"),
)
_COUNTS = ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "creation_time")
_TIMES = ("deletion_time", "scheduled_time")


def read_pod_list(body: bytes, unix_start_time: int) -> tuple[pl.DataFrame, Callable[[int], bytes]]:
    """Read a list of pods, whose times count in seconds from an instant, and the bytes of each row by its line."""
    table = read_table(body)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise LogFileError(f"the list of pods has no column {', '.join(missing)}; is it another kind of CSV file?")
    cells = table.rows.rename({f"c:{name}": name for name in table.columns})
    deleted, scheduled = (number(pl.col(name)) + unix_start_time for name in _TIMES)
    rows = cells.select(
        "line",
        # One name may be given again to a later pod.
        id=pl.format("{}:{}", "name", number(pl.col("creation_time")) + unix_start_time),
        job=pl.col("name"),
        name=pl.col("name"),
        qos=pl.col("qos"),
        phase=pl.col("pod_phase"),
        start_second=scheduled,
        finished=deleted,
        last_told=scheduled,
        deleted=deleted.is_not_null(),
        times_gone=pl.lit(0, pl.Int64),
        time_limit_seconds=pl.lit(None, pl.Int64),
        resources=_resources(),
        # Several models are what a pod would take, not what it got.
        kind=pl.when(pl.col("gpu_spec").str.contains("|", literal=True)).then(pl.lit("")).otherwise("gpu_spec"),
        broken=pl.when(_unread()).then(pl.lit("a number of this row cannot be read; export it again")),
    )
    ragged = [
        {"line": line, "broken": f"row has {found} fields, the header {len(table.columns)}; export it again"}
        for line, found in table.ragged.items()
    ]
    rows = pl.concat([rows, pl.DataFrame(ragged, schema_overrides={"line": pl.Int64})], how="diagonal").sort("line")
    empty = {name: pl.lit("") for name, kind in PODS_SCHEMA.items() if kind == pl.String() and name != "id"}
    rows = rows.with_columns(default.alias(name) for name, default in empty.items() if name not in rows.columns)
    rows = rows.with_columns(pl.col(name).fill_null(default) for name, default in empty.items())
    rows = rows.with_columns(pl.col("deleted").fill_null(value=False), pl.col("times_gone").fill_null(0)).select(
        list(PODS_SCHEMA)
    )
    return rows, table.raw


def _unread() -> pl.Expr:
    counts = [number(pl.col(name)).is_null() for name in _COUNTS]
    times = [(pl.col(name) != "") & number(pl.col(name)).is_null() for name in _TIMES]
    return pl.any_horizontal(*counts, *times)


def _resources() -> pl.Expr:
    """Write what a pod asks for as JSON of quantities, as a dump's pods have it."""
    shares = (number(pl.col("num_gpu")) * number(pl.col("gpu_milli"))).cast(pl.String)
    cards = pl.when(number(pl.col("num_gpu")) > 0).then(shares).otherwise(pl.lit("0"))
    parts = {"cpu": pl.format("{}m", "cpu_milli"), "gpu": pl.col("num_gpu"), "memory": pl.format("{}Mi", "memory_mib")}
    return pl.struct(part.alias(name) for name, part in {**parts, SHARES: cards}.items()).struct.json_encode()
