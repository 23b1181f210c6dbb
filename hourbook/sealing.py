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

import orjson
import polars as pl
from sqlalchemy import Engine
from sqlmodel import Session

from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.settling import REASON, settled_by, settled_by_group
from metering import store
from metering.events import LAKE_SCHEMA
from metering.identity import STATUSES, mark
from metering.lake import EventLake
from metering.sealing import hold_back

GROUP_EVENTS = 500_000
# Besides its own dates, a batch is compared with as many that received events last.
RECENT_DATES = 4
LEASE = "sealer"
LEASE_SECONDS = 120
LEASE_WAIT_SECONDS = 180.0
LEASE_PAUSE_SECONDS = 0.05
_AT_WORK: set[str] = set()  # who of this process seals at the moment, or is about to


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
    if not anything_waits(engine):
        return Sealed()
    with _only_sealer(engine) as renew:
        while group := _next_group(engine):
            renew()
            rows = store.group_events(group)
            held_back += _move(engine, lake, rows, group[-1].batch_seq, now)
            # A rival whose lease ran out may have brought only some of these there; the others still wait.
            sealed_batch = lake.sealed_batch()
            done = {batch.batch_seq: batch.events for batch in group if batch.batch_seq <= sealed_batch}
            settled = settled_by(settled_by_group(engine, lake, rows, done))
            resolved += run_write(engine, partial(_finish, done=done, settled=settled, now=now))
            crash_point("seal:after_commit")
            batches, events = batches + len(done), events + sum(done.values())
    return Sealed(batches, events, held_back, resolved)


def anything_waits(engine: Engine) -> bool:
    """Tell whether a batch was accepted that is not sealed yet."""
    with read_session(engine) as session:
        return store.anything_unsealed(session)


def _next_group(engine: Engine) -> list[store.InboxBatchRow]:
    with read_session(engine) as session:
        group = store.unsealed(session, GROUP_EVENTS)
        session.expunge_all()
        return group


def _move(engine: Engine, lake: EventLake, rows: pl.DataFrame, last_batch: int, now: datetime) -> int:
    """Bring a group of batches into the lake, but for what must be held back; return how many were."""
    # Batches that the lake holds already were judged before they went there.
    fresh = rows.filter(pl.col("batch_seq") > lake.sealed_batch())
    accepted, held = hold_back(fresh, known_events(lake, fresh))
    # Quarantine comes first: killed in between, the same decisions are made again and found recorded.
    opened = run_write(engine, lambda session: store.quarantine_held(session, held, now)) if held.height else 0
    crash_point("seal:before_lake")
    # It does nothing where a sealer whose lease ran out was first after all: the caller asks what is there.
    lake.append(accepted, last_batch)
    crash_point("seal:after_lake")
    return opened


def known_events(lake: EventLake, events: pl.DataFrame) -> pl.DataFrame:
    """Return what the lake holds under the keys of events, on their dates and the recent ones; hashes may collide.

    All other dates are compared later, by the check of all starts: what is read here must not grow with the lake.
    """
    if events.is_empty():
        return LAKE_SCHEMA.to_frame()
    own = events["start_date"].unique().to_list()
    held = lake.partitions().sort("recorded_seq", descending=True)["start_date"].to_list()
    recent = [date for date in held if date not in own][:RECENT_DATES]
    hashes = events["key_hash"].unique().implode()
    return lake.scan([*own, *recent]).filter(pl.col("key_hash").is_in(hashes)).collect()


def _finish(session: Session, *, done: Mapping[int, int], settled: Mapping[int, str], now: datetime) -> int:
    """Note that batches are in the lake, and resolve what it settled; return how many entries that were."""
    store.mark_sealed(session, done)
    resolved = store.resolve_entries(session, settled, REASON, now)
    crash_point("seal:before_commit")
    return resolved


@contextmanager
def _only_sealer(engine: Engine) -> Iterator[Callable[[], None]]:
    """Hold the sealer's lease, waiting for whoever has it; what is yielded renews it."""
    holder = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"

    def renew() -> None:
        # The machine's clock: a lease must run out in a home whose own clock stands still, too.
        expires_at = datetime.now(UTC) + timedelta(seconds=LEASE_SECONDS)
        run_write(engine, lambda session: store.take_lease(session, LEASE, holder, expires_at))

    deadline = time.monotonic() + LEASE_WAIT_SECONDS
    _AT_WORK.add(holder)
    try:
        while not run_write(engine, lambda session: _take(session, holder)):
            if time.monotonic() > deadline:
                raise SealerBusyError("another process has been sealing events for long; try again when it is done")
            time.sleep(LEASE_PAUSE_SECONDS)
        crash_point("seal:after_lease")
        yield renew
    finally:
        # First here: where the disk fails, the lease may stay as it is, and must not keep anyone from sealing later.
        _AT_WORK.discard(holder)
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
    # A container that starts anew often gives its server the number that the one before it had.
    if int(process) == os.getpid():
        return holder in _AT_WORK
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
    entries = store.held_entries(session)
    held: dict[int, Counter[str]] = {}
    for batch_seq, code, rows in entries.group_by("batch_seq", "code").len().iter_rows():
        held.setdefault(batch_seq, Counter())[code] += rows
    statuses = _statuses_by_batch(lake, entries["recorded_seq"])
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


def _statuses_by_batch(lake: EventLake, listed: pl.Series) -> dict[int, dict[str, int]]:
    """Count what became of the lake's rows, but for those of a wrong start, which quarantine lists."""
    counts: dict[int, dict[str, int]] = {}
    for date in lake.dates():  # the rows of an event that count share its start, so one date at a time is the truth
        marked = mark(lake.scan([date]).collect()).filter(~pl.col("recorded_seq").is_in(listed.implode()))
        for batch_seq, status, rows in marked.group_by("batch_seq", "status").len().iter_rows():
            of_batch = counts.setdefault(batch_seq, dict.fromkeys(STATUSES, 0))
            of_batch[status] += rows
    return counts
