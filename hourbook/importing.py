"""Import files of usage: collect, record durably in the inbox, seal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlmodel import Session

from hourbook import facts
from hourbook.database import read_session, run_write
from hourbook.refreshing import Progress, Refreshed, refresh
from hourbook.settings import Home
from metering import store as metering
from metering.clusters import Cluster
from metering.collectors.slurm import read_sacct
from metering.events import Collected
from metering.store import BatchReceipt
from pricing.catalog import Catalog


@dataclass(frozen=True)
class Imported:
    """What came of importing files."""

    receipts: tuple[BatchReceipt, ...]
    refreshed: Refreshed
    described: bool  # False: the cluster is not described yet and got defaults


def import_slurm(
    home: Home,
    files: Sequence[Path],
    *,
    cluster: str,
    zone: ZoneInfo | None = None,
    columns: Sequence[str] | None = None,
    progress: Progress = lambda _step, _done, _all: None,
) -> Imported:
    """Import `sacct -P` output, file by file in the order given; each file is durable before the next is read."""
    known = catalog_of(home).clusters.get(cluster)
    described = known or Cluster(name=cluster)

    def collect(payload: bytes) -> Collected:
        return read_sacct(payload, cluster=described, timezone=zone, columns=columns)

    return _import(home, files, "slurm", collect, progress, described=known is not None)


def catalog_of(home: Home) -> Catalog:
    """Return the configuration as it stands."""
    with read_session(home.engine) as session:
        return Catalog.from_facts(facts.as_of(session))


def accept_payload(home: Home, payload: bytes, collected: Collected, *, kind: str, origin: str) -> BatchReceipt:
    """Record what was collected from a payload; it is on disk when this returns."""
    digest = hashlib.sha256(payload).hexdigest()

    def work(session: Session) -> BatchReceipt:
        return metering.accept(session, collected, origin, digest, home.now(), kind=kind)

    return run_write(home.engine, work)


def _import(
    home: Home,
    files: Sequence[Path],
    kind: str,
    collect: Callable[[bytes], Collected],
    progress: Progress,
    *,
    described: bool,
) -> Imported:
    # All are read before the first is recorded, so that a file that must be refused leaves nothing half done.
    collected = []
    for done, file in enumerate(files, start=1):
        payload = file.read_bytes()
        collected.append((file, payload, collect(payload)))
        progress("read", done, len(files))
    receipts = [accept_payload(home, payload, rows, kind=kind, origin=file.name) for file, payload, rows in collected]
    return Imported(tuple(receipts), refresh(home, progress), described)
