"""Usage events to tell stories with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl
import pytest

from metering.events import EVENT_SCHEMA, LAKE_SCHEMA
from metering.sealing import recorded

MIDNIGHT_IN_SHANGHAI = 1_795_276_800  # 2026-11-22T00:00:00+08:00

_ORDINARY = {
    "source": "slurm:hpc1",
    "id": "4711:1795276800",
    "revision": 1,
    "revision_derived": True,
    "cluster": "hpc1",
    "partition": "cpu",
    "qos": "normal",
    "account": "grp_condmat",
    "user": "sl_alice",
    "job": "relax",
    "state": "COMPLETED",
    "start_second": MIDNIGHT_IN_SHANGHAI,
    "end_second": MIDNIGHT_IN_SHANGHAI + 600,
    "ended": True,
    "suspended_seconds": 0,
    "cpus": 4,
    "nodes": 1,
    "memory_bytes": 0,
    "cards": "",
    "counters": "",
    "evidence": "{}",
}


def _events(*facts: Mapping[str, object]) -> pl.DataFrame:
    return pl.DataFrame([{**_ORDINARY, **fact} for fact in facts], schema=EVENT_SCHEMA, orient="row")


def _lake_rows(*facts: Mapping[str, object]) -> pl.DataFrame:
    events = _events(*({k: v for k, v in fact.items() if k in EVENT_SCHEMA} for fact in facts))
    rows = recorded(events, first_seq=1, batch_seq=1)
    given = {name: [fact.get(name) for fact in facts] for name in ("recorded_seq", "batch_seq")}
    stated = [pl.coalesce(pl.Series(name, values, dtype=pl.Int64), name).alias(name) for name, values in given.items()]
    return rows.with_columns(stated).select(list(LAKE_SCHEMA))


@pytest.fixture(scope="session")
def events_of() -> Callable[..., pl.DataFrame]:
    """Collected events, each an ordinary one but for the facts given."""
    return _events


@pytest.fixture(scope="session")
def lake_rows_of() -> Callable[..., pl.DataFrame]:
    """Lake rows, each an ordinary one but for the facts given, recorded in the order given."""
    return _lake_rows
