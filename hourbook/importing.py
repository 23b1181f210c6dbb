"""Import files of usage: collect, record durably in the inbox, seal."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import BaseModel
from sqlmodel import Session

from hourbook import facts
from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.gathering import OverloadedError
from hourbook.refreshing import Progress, Refreshed, refresh
from hourbook.runaways import capped
from hourbook.settings import Home
from metering import store as metering
from metering.cloud_events import read_events
from metering.clusters import Cluster
from metering.collectors.common import LogFileError
from metering.collectors.registry import Collector
from metering.collectors.slurm_json import read_slurm_file
from metering.collectors.slurm_layout import SacctFileError
from metering.events import Collected
from metering.identity import mark
from metering.lake import EventLake
from metering.store import BatchReceipt, IncomingBatch
from pricing.catalog import Catalog

FORMAT_OF_SUFFIX: dict[str, Literal["json", "jsonl", "parquet"]] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}

GZIP_MAGIC = b"\x1f\x8b"
ORIGIN_PARTS = 2  # D1_early/sacct.psv.gz


class EventFileError(ValueError):
    """A file of events that is refused as a whole; the message says why and what to do."""


@dataclass(frozen=True)
class Imported:
    """What came of importing files."""

    receipts: tuple[BatchReceipt, ...]
    refreshed: Refreshed
    undescribed: tuple[str, ...] = ()  # clusters that are not described yet and got defaults


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
    """Import what `sacct -P` or `sacct --json` writes, file by file in the order given.

    A file that is imported again does no harm: all its rows are duplicates. `once` passes it over altogether.
    """
    known = catalog_of(home).clusters.get(log.cluster)
    cluster = known or Cluster(name=log.cluster)

    def read(payload: bytes) -> Collected:
        return read_slurm_file(payload, cluster=cluster, timezone=log.zone, columns=log.columns)

    seen = _digests(home) if once else frozenset()
    collected = list(_read_all(files, read, progress, step=f"read {log.cluster}", seen=seen))
    return _accept_all(home, collected, "slurm", progress, undescribed=() if known else (log.cluster,))


@dataclass(frozen=True)
class OtherLog:
    """A log of another kind than Slurm's: who reads it, whose it is, and what the files themselves do not say."""

    collector: Collector
    cluster: str
    zone: ZoneInfo | None = None
    options: BaseModel | None = None


def import_log(
    home: Home, files: Sequence[Path], log: OtherLog, *, progress: Progress = lambda _step, _done, _all: None
) -> Imported:
    """Import logs of any kind that a collector reads, file by file in the order given."""
    known = catalog_of(home).clusters.get(log.cluster)
    cluster = known or Cluster(name=log.cluster)

    def read(payload: bytes) -> Collected:
        return log.collector.read(payload, cluster=cluster, timezone=log.zone, options=log.options)

    collected = list(_read_all(files, read, progress, step=f"read {log.cluster}"))
    return _accept_all(home, collected, log.collector.name, progress, undescribed=() if known else (log.cluster,))


def _read_all(
    files: Sequence[Path],
    read: Callable[[bytes], Collected],
    progress: Progress,
    *,
    step: str,
    seen: frozenset[str] = frozenset(),
) -> Iterator[tuple[Path, bytes, Collected]]:
    """Read every file that was not seen before; callers read all before the first is recorded.

    So a file that must be refused leaves nothing half done.
    """
    for done, file in enumerate(files, start=1):
        payload = file.read_bytes()
        if hashlib.sha256(payload).hexdigest() not in seen:
            with _naming(file):
                rows = read(payload)
            yield file, payload, rows
        progress(step, done, len(files))


def import_events(
    home: Home, files: Sequence[Path], *, progress: Progress = lambda _step, _done, _all: None
) -> Imported:
    """Import CloudEvents from JSON, JSON lines or Parquet files, plain or gzip, told apart by their names."""
    # All are read before the first is recorded, so that a file that must be refused leaves nothing half done.
    collected = []
    for done, file in enumerate(files, start=1):
        payload = file.read_bytes()
        form = FORMAT_OF_SUFFIX.get(Path(file.name.lower().removesuffix(".gz")).suffix, "json")
        collected.append((file, payload, read_events(unpacked(file, payload), format=form, now=home.now())))
        progress("read", done, len(files))
    seen = {name for _, _, rows in collected for name in rows.events["cluster"].unique()}
    undescribed = tuple(sorted(seen - catalog_of(home).clusters.keys()))
    return _accept_all(home, collected, "cloud_events", progress, undescribed=undescribed)


def origin_of(file: Path) -> str:
    """Name a file so that equal names in several folders can be told apart: by the last parts of where it lies."""
    return "/".join(file.resolve().parts[-ORIGIN_PARTS:]).lstrip("/")


def row_counts(home: Home, receipts: Sequence[BatchReceipt]) -> list[dict[str, str | int]]:
    """Return what became of the rows of files just imported; in each, `rows` is the sum of all that follows it."""
    statuses = _statuses(EventLake(home.lake), [receipt.batch_seq for receipt in receipts])
    return [_row_count(receipt, statuses.get(receipt.batch_seq, {})) for receipt in receipts]


def _row_count(receipt: BatchReceipt, statuses: Mapping[str, int]) -> dict[str, str | int]:
    no_usage, refused = sum(receipt.no_usage.values()), sum(receipt.quarantined.values())
    # An event that contradicts what is known never came into the lake: the sealer put it into quarantine.
    held_back = receipt.events - sum(statuses.values())
    counts: dict[str, str | int] = {"file": receipt.origin, "rows": receipt.rows}
    counts |= {status: statuses.get(status, 0) for status in ("kept", "duplicate", "superseded")}
    # Rows of one revision with other facts: a rule of the facts decides which counts, and these are listed.
    counts["conflicting"] = sum(statuses.get(status, 0) for status in ("conflict", "conflicting_final"))
    return {**counts, "no_usage": no_usage, "quarantined": refused + held_back}


def _statuses(lake: EventLake, batches: Sequence[int]) -> dict[int, dict[str, int]]:
    """Return how many events of each batch have each status, judged by all that the lake holds now."""
    mine = pl.col("batch_seq").is_in(batches)
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    touched = lake.scan().filter(mine).select(pl.col("start_date").unique()).collect()["start_date"]
    for date in touched:  # an event never changes its start, so one date at a time is the whole truth
        marked = mark(lake.scan([date]).collect()).filter(mine)
        for batch, status, rows in marked.group_by("batch_seq", "status").len().iter_rows():
            counts[batch][status] = counts[batch].get(status, 0) + rows
    return counts


def catalog_of(home: Home) -> Catalog:
    """Return the configuration as it stands."""
    with read_session(home.engine) as session:
        return Catalog.from_facts(facts.as_of(session))


def accept_in(
    session: Session, home: Home, payload: bytes, collected: Collected, *, kind: str, origin: str
) -> BatchReceipt:
    """Record what was collected from a payload, for the caller to commit; runaways count up to their cap."""
    digest = hashlib.sha256(payload).hexdigest()
    collected = replace(collected, events=capped(session, collected.events))
    return metering.accept(session, collected, origin, digest, home.now(), kind=kind)


def accept_payload(home: Home, payload: bytes, collected: Collected, *, kind: str, origin: str) -> BatchReceipt:
    """Record what was collected from a payload; it is on disk when this returns."""

    def work(session: Session) -> BatchReceipt:
        receipt = accept_in(session, home, payload, collected, kind=kind, origin=origin)
        crash_point("inbox:before_commit")
        return receipt

    receipt = run_write(home.engine, work)
    crash_point("inbox:after_commit")
    return receipt


def accept_batches(home: Home, batches: Sequence[IncomingBatch], *, most_unsealed: int) -> list[BatchReceipt]:
    """Record batches in one commit; they are on disk when this returns. Refused while too much waits for the sealer."""

    def work(session: Session) -> list[BatchReceipt]:
        waiting = metering.waiting_events(session)
        if waiting >= most_unsealed:
            raise OverloadedError(f"{waiting:,} events wait to be counted; send the same again later")
        receipts = metering.accept_batches(session, batches, home.now())
        crash_point("inbox:before_commit")
        return receipts

    receipts = run_write(home.engine, work)
    crash_point("inbox:after_commit")
    return receipts


def _digests(home: Home) -> frozenset[str]:
    with read_session(home.engine) as session:
        return frozenset(batch.digest for batch in metering.inbox_batches(session))


def _accept_all(
    home: Home,
    collected: Sequence[tuple[Path, bytes, Collected]],
    kind: str,
    progress: Progress,
    *,
    undescribed: tuple[str, ...],
) -> Imported:
    receipts = [
        accept_payload(home, payload, rows, kind=kind, origin=origin_of(file)) for file, payload, rows in collected
    ]
    return Imported(tuple(receipts), refresh(home, progress), undescribed)


def unpacked(file: Path, payload: bytes) -> bytes:
    """Return the bytes of a file, plain or gzip."""
    if not payload.startswith(GZIP_MAGIC):
        return payload
    try:
        return gzip.decompress(payload)
    except (OSError, EOFError, zlib.error) as error:
        raise EventFileError(f"{file}: the gzip file cannot be unpacked ({error}); transfer it again") from error


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Let the refusal of a file say which one it is."""
    try:
        yield
    except (SacctFileError, LogFileError) as error:
        raise type(error)(f"{file}: {error}") from error
