"""Sealing: accepted batches go from the inbox to the lake, in order and exactly once, whatever interrupts it.

Events that contradict what is known go to quarantine first, then the batch to the lake, then the inbox forgets that it
waits. Each step can be done again without effect, so a sealer that was killed between two of them simply starts over.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import orjson
import polars as pl
from sqlalchemy import Engine
from sqlmodel import Session

from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from metering import store
from metering.events import LAKE_SCHEMA
from metering.identity import STATUSES, key_hash, mark, winners
from metering.lake import EventLake
from metering.sealing import IDENTITY_COLLISION, SEALER_CODES, hold_back

GROUP_EVENTS = 500_000
LEASE = "sealer"
LEASE_SECONDS = 120
LEASE_WAIT_SECONDS = 180.0
LEASE_PAUSE_SECONDS = 0.05


class SealerBusyError(RuntimeError):
    """Another process seals, and did not finish in time."""


@dataclass(frozen=True)
class Sealed:
    """What one run of the sealer did."""

    batches: int = 0
    events: int = 0
    held_back: int = 0
    resolved: int = 0


def seal(engine: Engine, lake: EventLake, now: datetime) -> Sealed:
    """Move every accepted batch to the lake, and resolve the quarantine entries whose events are known by now."""
    batches = events = held_back = resolved = 0
    if not _anything_waits(engine):
        return Sealed()
    with _only_sealer(engine) as renew:
        while group := _next_group(engine):
            renew()
            rows = pl.concat([store.batch_events(batch) for batch in group])
            held_back += _move(engine, lake, rows, group[-1].batch_seq, now)
            # A rival whose lease ran out may have brought only some of these there; the others still wait.
            done = [batch for batch in group if batch.batch_seq <= lake.sealed_batch()]
            settled = settled_entries(engine, lake)
            resolved += run_write(engine, partial(_finish, done=done, settled=settled, now=now))
            crash_point("seal:after_commit")
            batches, events = batches + len(done), events + sum(batch.events for batch in done)
    return Sealed(batches, events, held_back, resolved)


def _anything_waits(engine: Engine) -> bool:
    return bool(_next_group(engine, most_events=0))


def _next_group(engine: Engine, most_events: int = GROUP_EVENTS) -> list[store.InboxBatchRow]:
    with read_session(engine) as session:
        group = store.unsealed(session, most_events)
        session.expunge_all()
        return group


def _move(engine: Engine, lake: EventLake, rows: pl.DataFrame, last_batch: int, now: datetime) -> int:
    """Bring a group of batches into the lake, but for what must be held back; return how many were."""
    # Batches that the lake holds already were judged before they went there.
    fresh = rows.filter(pl.col("batch_seq") > lake.sealed_batch())
    accepted, held = hold_back(fresh, known_events(lake, fresh["key_hash"]))
    # Quarantine comes first: killed in between, the same decisions are made again and found recorded.
    opened = run_write(engine, lambda session: store.quarantine_held(session, held, now)) if held.height else 0
    crash_point("seal:before_lake")
    # It does nothing where a sealer whose lease ran out was first after all: the caller asks what is there.
    lake.append(accepted, last_batch)
    crash_point("seal:after_lake")
    return opened


def known_events(lake: EventLake, key_hashes: pl.Series) -> pl.DataFrame:
    """Return what the lake holds, in any partition, under these key hashes; other keys may share a hash."""
    if key_hashes.is_empty():
        return LAKE_SCHEMA.to_frame()
    return lake.scan().filter(pl.col("key_hash").is_in(key_hashes.unique().implode())).collect()


def _finish(session: Session, *, done: Sequence[store.InboxBatchRow], settled: Mapping[str, str], now: datetime) -> int:
    """Note that batches are in the lake, and resolve what it settled; return how many entries that were."""
    store.mark_sealed(session, [batch.batch_seq for batch in done])
    entries = [store.quarantine_entry(session, entry_id) for entry_id in settled]
    still_open = [entry for entry in entries if entry.status == "open"]
    for entry in still_open:
        reason = "a readable row of the event is kept"
        store.close_entry(session, entry, "resolved", now, resolved_by=settled[entry.id], reason=reason)
    session.flush()
    crash_point("seal:before_commit")
    return len(still_open)


def settled_entries(engine: Engine, lake: EventLake) -> dict[str, str]:
    """Return the open quarantine entries that what the lake holds has settled, each with the event that did.

    A row that could not be read is settled by a row of the same event recorded after it, or by any that says how the
    event ended. An event that was held back is settled only by a later word of its source, and two database rows
    under one id only by a person: they may be two attempts.
    """
    with read_session(engine) as session:
        entries = [entry for entry in store.quarantine(session, status="open") if entry.event_id and entry.source]
        session.expunge_all()
    if not entries:
        return {}
    wanted = pl.DataFrame({"source": [e.source for e in entries], "id": [e.event_id for e in entries]})
    known = winners(known_events(lake, key_hash(wanted)))
    latest = {(row["source"], row["id"]): row for row in known.iter_rows(named=True)}
    settled = {}
    for entry in entries:
        row = latest.get((entry.source, entry.event_id))
        if row is not None and _settles(row, entry):
            settled[entry.id] = f"event {entry.event_id} of {entry.source}, recorded as {row['recorded_seq']}"
    return settled


def _settles(row: Mapping[str, Any], entry: store.QuarantineRow) -> bool:
    """Tell whether the winning row of an event answers what an entry left open."""
    if entry.code == IDENTITY_COLLISION:
        return False
    later = bool(row["batch_seq"] > entry.batch_seq)
    # A row that could not be read might have been a later word than a running one known before.
    return later or (bool(row["ended"]) and entry.code not in SEALER_CODES)


@contextmanager
def _only_sealer(engine: Engine) -> Iterator[Callable[[], None]]:
    """Hold the sealer's lease, waiting for whoever has it; what is yielded renews it."""
    holder = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"

    def renew() -> None:
        # The machine's clock: a lease must run out in a home whose own clock stands still, too.
        expires_at = datetime.now(UTC) + timedelta(seconds=LEASE_SECONDS)
        run_write(engine, lambda session: store.take_lease(session, LEASE, holder, expires_at))

    deadline = time.monotonic() + LEASE_WAIT_SECONDS
    while not run_write(engine, lambda session: _take(session, holder)):
        if time.monotonic() > deadline:
            raise SealerBusyError("another process has been sealing events for long; try again when it is done")
        time.sleep(LEASE_PAUSE_SECONDS)
    crash_point("seal:after_lease")
    try:
        yield renew
    finally:
        run_write(engine, lambda session: store.release_lease(session, LEASE, holder))


def _take(session: Session, holder: str) -> bool:
    now = datetime.now(UTC)
    other = store.lease_holder(session, LEASE, now)
    if other and _is_alive(other):
        return False
    store.take_lease(session, LEASE, holder, now + timedelta(seconds=LEASE_SECONDS))
    return True


def _is_alive(holder: str) -> bool:
    """Tell whether a holder may still be at work; a process of this machine that is gone is not."""
    host, process, _ = holder.rsplit(" ", 2)
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True)
class BatchAccount:
    """Where the logical rows of one file went. `rows` is the sum of all the others, or something was lost."""

    batch_seq: int
    origin: str
    rows: int
    statuses: Mapping[str, int]  # kept duplicate superseded conflict conflicting_final
    no_usage: Mapping[str, int]  # reason -> rows
    quarantined: Mapping[str, int]  # code -> rows, whatever became of their entries
    repeated: int  # of the quarantined: rows that stood in quarantine before
    waiting: int  # events that are not sealed yet

    @property
    def accounted(self) -> int:
        """Rows whose whereabouts are known."""
        parts = (self.statuses, self.no_usage, self.quarantined)
        return sum(sum(part.values()) for part in parts) + self.waiting


def usage_accounting(session: Session, lake: EventLake) -> list[BatchAccount]:
    """Account for every row that ever came in, file by file, judged by all that the lake holds now."""
    sealed = lake.sealed_batch()
    statuses = _statuses_by_batch(lake)
    held: dict[int, Counter[str]] = {}
    for entry in store.quarantine(session):
        if entry.recorded_seq is not None:
            held.setdefault(entry.batch_seq, Counter())[entry.code] += 1
    accounts = []
    for batch in store.inbox_batches(session):
        codes = Counter(orjson.loads(batch.rejected)) + held.get(batch.batch_seq, Counter())
        account = BatchAccount(
            batch_seq=batch.batch_seq,
            origin=batch.origin,
            rows=batch.logical_rows,
            statuses=statuses.get(batch.batch_seq, {}),
            no_usage=orjson.loads(batch.no_usage),
            quarantined=dict(sorted(codes.items())),
            repeated=batch.repeated,
            waiting=batch.events if batch.batch_seq > sealed else 0,
        )
        accounts.append(account)
    return accounts


def total_account(accounts: Sequence[BatchAccount]) -> BatchAccount:
    """Add up the accounts of several files."""

    def added(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
        return dict(sorted(sum((Counter(part) for part in parts), Counter[str]()).items()))

    return BatchAccount(
        batch_seq=0,
        origin="total",
        rows=sum(account.rows for account in accounts),
        statuses=added(account.statuses for account in accounts),
        no_usage=added(account.no_usage for account in accounts),
        quarantined=added(account.quarantined for account in accounts),
        repeated=sum(account.repeated for account in accounts),
        waiting=sum(account.waiting for account in accounts),
    )


def _statuses_by_batch(lake: EventLake) -> dict[int, dict[str, int]]:
    counts: dict[int, dict[str, int]] = {}
    for date in lake.dates():  # an event never changes its start, so one date at a time is the whole truth
        marked = mark(lake.scan([date]).collect()).group_by("batch_seq", "status").len()
        for batch_seq, status, rows in marked.iter_rows():
            of_batch = counts.setdefault(batch_seq, dict.fromkeys(STATUSES, 0))
            of_batch[status] += rows
    return counts
