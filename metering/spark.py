"""Counting dates on a Spark cluster. The only module that knows pyspark.

A date is one task. Workers open the lake themselves and send back only what they counted, as bytes in Arrow's format:
nothing is converted on the way, and what is kept has the same bytes as what one machine counts. No event passes
through the driver.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import polars as pl
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException

from metering.cells import COUNTED_SCHEMA
from metering.engine import count_date
from metering.lake import EventLake
from metering.object_store import Place, place_of
from metering.plan import RollupPlan

APP = "hourbook rollup"
# Each is a job of one task that waits in Spark's own queue, so that every core has work until the last date.
JOBS_AT_ONCE = 64
# How the line begins, in a report of many, that says what went wrong.
TELLING = ("polars.", "Caused by:", "OSError", "MemoryError")


class SparkRollupError(RuntimeError):
    """A cluster cannot count; the message says which date or setting, and what to do."""


@dataclass(frozen=True)
class Task:
    """One date to count, as a worker needs to know it."""

    place: str
    plan: str  # as JSON
    date: str
    as_of: int
    versions: tuple[str, ...]


@contextmanager
def spark_cluster(master: str) -> Iterator[SparkContext]:
    """Connect to a cluster: `spark://host:7077`, `yarn`, `k8s://…`, or `local[2]` for trying."""
    if master.startswith("sc://"):
        raise SparkRollupError(
            f"{master}: Spark Connect takes no functions of one's own; name the cluster's master itself"
        )
    settings = SparkConf().setAppName(APP).setMaster(master)
    settings.set("spark.executorEnv.POLARS_MAX_THREADS", "1")  # a task has one core
    settings.set("spark.ui.showConsoleProgress", "false")
    settings.set("spark.python.worker.reuse", "true")
    if master.startswith("local"):
        settings.setIfMissing("spark.ui.enabled", "false")
        settings.setIfMissing("spark.driver.host", "127.0.0.1")
        settings.setIfMissing("spark.driver.bindAddress", "127.0.0.1")
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        context = SparkContext(conf=settings)
    except (PySparkException, Py4JError, OSError) as error:
        raise SparkRollupError(
            f"Spark cannot be started with master {master}: {_reason(error)}; it needs Java 17 (JAVA_HOME) and a "
            "master that answers"
        ) from error
    context.setLogLevel("ERROR")
    try:
        yield context
    finally:
        context.stop()


def count_on_spark(
    cluster: SparkContext, place: Place, plan: RollupPlan, dates: Mapping[str, int]
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Count dates, each as of a recorded number, and return each as soon as it is done: COUNTED_SCHEMA."""
    where = str(place.absolute()) if isinstance(place, Path) else str(place)
    tasks = [Task(where, plan.model_dump_json(), date, as_of, _versions()) for date, as_of in dates.items()]
    with ThreadPoolExecutor(max(1, min(JOBS_AT_ONCE, len(tasks)))) as pool:
        counts = {pool.submit(_counted, cluster, task): task.date for task in tasks}
        try:
            for count in as_completed(counts):
                yield counts[count], _result(count, counts[count])
        finally:
            # What is still to be done when one fails, or nobody asks any further, is done in vain.
            pool.shutdown(wait=False, cancel_futures=True)
            cluster.cancelAllJobs()


def _counted(cluster: SparkContext, task: Task) -> bytes:
    (packed,) = cluster.parallelize([task], 1).map(_count).collect()
    return bytes(packed)


def _count(task: Task) -> bytes:
    """Count a date; this runs on a worker."""
    if task.versions != _versions():
        raise SparkRollupError(
            f"this worker has versions {_versions()}, the driver {task.versions}; install the same on both"
        )
    lake = EventLake(place_of(task.place))
    if isinstance(lake.root, Path) and not lake.root.is_dir():
        raise SparkRollupError(f"this worker cannot see the lake at {task.place}; share that folder, or use s3://")
    _refuse_older(lake, task)
    counted = count_date(lake, task.date, RollupPlan.model_validate_json(task.plan), task.as_of)
    packed = io.BytesIO()
    counted.write_ipc(packed, compression="zstd")
    return packed.getvalue()


def _refuse_older(lake: EventLake, task: Task) -> None:
    """Refuse a lake that does not hold what the driver saw: a copy, or a folder that is shared with delay."""
    files = lake.part(task.date, task.as_of).files
    held = max(files["recorded_seq"].to_list(), default=0)
    if held < task.as_of:
        raise SparkRollupError(
            f"the lake at {task.place}, as this worker sees it, holds the date up to event {held}, not {task.as_of}"
        )


def _result(count: Future[bytes], date: str) -> pl.DataFrame:
    try:
        return pl.read_ipc(io.BytesIO(count.result())).cast(COUNTED_SCHEMA)
    except (PySparkException, Py4JError) as error:
        raise SparkRollupError(
            f"{date} was not counted: {_reason(error)}; what was counted before it is kept, so run it again"
        ) from error


def _versions() -> tuple[str, ...]:
    return tuple(f"{name} {version(name)}" for name in ("hourbook", "polars"))


def _reason(error: Exception) -> str:
    """Return the line of a worker's or the JVM's report that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [
        line for line in lines if line.startswith(("metering.", "polars.", "Caused by:", "OSError", "MemoryError"))
    ]
    return (named or lines or [type(error).__name__])[0]
