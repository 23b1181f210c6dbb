"""Import files of usage: collect, record durably in the inbox, seal."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from sqlmodel import Session

from hourbook import facts
from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.refreshing import Progress, Refreshed, refresh
from hourbook.settings import Home
from metering import store as metering
from metering.cloud_events import read_events
from metering.clusters import Cluster
from metering.collectors.slurm import read_sacct
from metering.events import Collected
from metering.store import BatchReceipt
from pricing.catalog import Catalog

FORMAT_OF_SUFFIX: dict[str, Literal["json", "jsonl", "parquet"]] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Imported:
    """What came of importing files."""

    receipts: tuple[BatchReceipt, ...]
    refreshed: Refreshed
    described: bool  # False: the cluster is not described yet and got defaults


@dataclass(frozen=True)
class SlurmLog:
    """Whose log it is, and what the files themselves do not say."""

    cluster: str
    zone: ZoneInfo | None = None  # of times written without one
    columns: tuple[str, ...] | None = None  # where the files have no header line


def import_slurm(
    home: Home,
    files: Sequence[Path],
    log: SlurmLog,
    *,
    once: bool = False,
    progress: Progress = lambda _step, _done, _all: None,
) -> Imported:
    """Import `sacct -P` output, file by file in the order given.

    A file that is imported again does no harm: all its rows are duplicates. `once` passes it over altogether.
    """
    known = catalog_of(home).clusters.get(log.cluster)
    described = known or Cluster(name=log.cluster)
    # All are read before the first is recorded, so that a file that must be refused leaves nothing half done.
    known_files = _digests(home) if once else frozenset()
    collected = []
    for done, file in enumerate(files, start=1):
        payload = file.read_bytes()
        if hashlib.sha256(payload).hexdigest() not in known_files:
            rows = read_sacct(payload, cluster=described, timezone=log.zone, columns=log.columns)
            collected.append((file, payload, rows))
        progress(f"read {log.cluster}", done, len(files))
    return _accept_all(home, collected, "slurm", progress, described=known is not None)


def import_events(
    home: Home, files: Sequence[Path], *, progress: Progress = lambda _step, _done, _all: None
) -> Imported:
    """Import CloudEvents from JSON, JSON lines or Parquet files, told apart by their names."""
    # All are read before the first is recorded, so that a file that must be refused leaves nothing half done.
    collected = []
    for done, file in enumerate(files, start=1):
        payload = file.read_bytes()
        form = FORMAT_OF_SUFFIX.get(file.suffix.lower(), "json")
        collected.append((file, payload, read_events(payload, format=form, now=home.now())))
        progress("read", done, len(files))
    return _accept_all(home, collected, "cloud_events", progress, described=True)


def catalog_of(home: Home) -> Catalog:
    """Return the configuration as it stands."""
    with read_session(home.engine) as session:
        return Catalog.from_facts(facts.as_of(session))


def accept_payload(home: Home, payload: bytes, collected: Collected, *, kind: str, origin: str) -> BatchReceipt:
    """Record what was collected from a payload; it is on disk when this returns."""
    digest = hashlib.sha256(payload).hexdigest()

    def work(session: Session) -> BatchReceipt:
        receipt = metering.accept(session, collected, origin, digest, home.now(), kind=kind)
        crash_point("inbox:before_commit")
        return receipt

    receipt = run_write(home.engine, work)
    crash_point("inbox:after_commit")
    return receipt


def _digests(home: Home) -> frozenset[str]:
    with read_session(home.engine) as session:
        return frozenset(batch.digest for batch in metering.inbox_batches(session))


def _accept_all(
    home: Home,
    collected: Sequence[tuple[Path, bytes, Collected]],
    kind: str,
    progress: Progress,
    *,
    described: bool,
) -> Imported:
    receipts = [accept_payload(home, payload, rows, kind=kind, origin=file.name) for file, payload, rows in collected]
    return Imported(tuple(receipts), refresh(home, progress), described)
