"""Collecting Slurm by the server itself, where it can run sacct or reach slurmrestd.

How far was asked stands in the database, committed together with what was recorded. That only saves work: asked again,
from any moment on, everything is a duplicate and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import orjson
import polars as pl
from sqlmodel import Session

from hourbook.collecting import Polled
from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.importing import accept_in
from hourbook.settings import Home
from hourbook.slurm_logs import SlurmText, UnknownClusterError, described_cluster, read_slurm_text
from hourbook.slurm_node.asking import CollectError, Slurm, Window, header, longest_limit, rows_of, stamp
from hourbook.slurm_node.hours import statements
from hourbook.slurm_node.spool import PART_BYTES, new_delimiter
from hourbook.slurm_node.windows import SETTLING, Rhythm, due_windows, lookback_for, sweep_is_due
from hourbook.slurm_rest import ask_slurmrestd
from metering import store as metering
from metering.clusters import Cluster
from metering.collectors.common import LogFileError
from metering.collectors.slurm_json import read_sacct_json
from metering.collectors.slurm_layout import SacctFileError
from metering.completeness import Statement
from metering.events import USAGE_FACTS, Collected
from metering.slurm_source import SlurmAccess
from metering.store import BatchReceipt, LogCursorRow

MOST_REMEMBERED = 500_000
STATED_BY = "collected here"


@dataclass
class Recorded:
    """Which rows were recorded since the last sweep, so that what overlaps is not recorded at every turn."""

    keys: set[str] = field(default_factory=set)

    def new_of(self, collected: Collected, running_seconds: int) -> Collected:
        """Return what was collected without events that were recorded; of running ones, but for their growth."""
        grown = pl.when("ended").then("revision").otherwise(pl.col("revision") // running_seconds)
        facts = [name for name in USAGE_FACTS if name != "end_second"]
        keys = collected.events.select(pl.concat_str("id", grown, *facts, separator="\0"))["id"]
        new = pl.Series([key not in self.keys for key in keys], dtype=pl.Boolean)
        known = len(new) - int(new.sum())
        if len(self.keys) > MOST_REMEMBERED:
            self.keys.clear()
        self.keys.update(keys.filter(new))
        unchanged = {"unchanged": known} if known else {}
        return replace(collected, events=collected.events.filter(new), no_usage={**collected.no_usage, **unchanged})


@lru_cache(maxsize=64)
def _recorded_of(home: Path, source: str) -> Recorded:  # noqa: ARG001 - one for each home and source
    return Recorded()


def poll_slurm(home: Home, name: str, access: SlurmAccess) -> Polled:
    """Ask for what is due of a cluster and record it; what is in the way is told, and asked for again the next time."""
    polled = Polled(files=1)
    try:
        poll = _Poll(home, described_cluster(home, name), access)
    except UnknownClusterError as error:
        polled.problems.append(str(error))
        return polled
    try:
        polled.receipts.extend(poll.turn(int(home.now().timestamp())))
    except (CollectError, SacctFileError, LogFileError, OSError) as error:
        polled.problems.append(str(error))
        poll.save(problem=str(error))
    return polled


@dataclass
class _Poll:
    """One turn over a cluster."""

    home: Home
    cluster: Cluster
    access: SlurmAccess
    state: dict[str, int] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Under which name it is remembered how far was asked."""
        return f"slurm:{self.cluster.name}"

    @property
    def slurm(self) -> Slurm:
        return Slurm(self.cluster.name, self.access.programs, self.access.timeout_seconds)

    @property
    def recorded(self) -> Recorded:
        return _recorded_of(self.home.path, self.source)

    def turn(self, now: int) -> Iterator[BatchReceipt]:
        """Ask for each window that is due; yield what was recorded."""
        self.state = self._remembered()
        said = Rhythm(self.access.overlap_seconds, sweep_every=self.access.sweep_seconds)
        sweep = sweep_is_due(self.state, now, said)
        if sweep:
            self.recorded.keys.clear()
        for window in due_windows(self.state, now, replace(said, lookback=self._lookback(sweep=sweep))):
            yield from self._window(window, now)
        if sweep:
            self.state["swept_at"] = now
            self.save()

    def _lookback(self, *, sweep: bool) -> int:
        if self.access.lookback_seconds is not None:
            return self.access.lookback_seconds
        return lookback_for(longest_limit(self.slurm) if sweep and not self.access.url else None)

    def _window(self, window: Window, now: int) -> Iterator[BatchReceipt]:
        ended: dict[str, tuple[int, int]] = {}
        for payload, collected in self._answers(window):
            rows = collected.events.filter("ended").select("id", "revision", "end_second")
            for event_id, revision, end in rows.iter_rows():
                ended[event_id] = max(ended.get(event_id, (0, 0)), (revision, end))
            new = self.recorded.new_of(collected, self.access.running_seconds)
            if new.events.height or new.rejected:
                yield self._record(payload, new, window)
        settled = (window[0], min(window[1], now - SETTLING))
        self.state["pulled_until"] = max(window[1], self.state.get("pulled_until", 0))
        self.save(statements(self.cluster.name, settled, ended))

    def _answers(self, window: Window) -> Iterator[tuple[bytes, Collected]]:
        if self.access.url:
            payload = ask_slurmrestd(self.access, self.cluster.name, *window)
            yield payload, read_sacct_json(payload, cluster=self.cluster)
            return
        delimiter = new_delimiter()
        for payload in _parts(rows_of(self.slurm, window, delimiter), header(delimiter)):
            yield payload, read_slurm_text(self.cluster, payload, SlurmText(delimiter))

    def _record(self, payload: bytes, collected: Collected, window: Window) -> BatchReceipt:
        origin = f"{self.access.url or 'sacct'} {stamp(window[0])} to {stamp(window[1])}"

        def work(session: Session) -> BatchReceipt:
            receipt = accept_in(session, self.home, payload, collected, kind="slurm", origin=origin)
            crash_point("collect:before_commit")
            return receipt

        receipt = run_write(self.home.engine, work)
        crash_point("collect:after_commit")
        return receipt

    def save(self, said: list[dict[str, object]] | None = None, *, problem: str = "") -> None:
        """Note how far was asked, and what was seen of the hours, in one commit."""
        found = [Statement.model_validate(one) for one in said or ()]

        def work(session: Session) -> None:
            metering.add_statements(session, found, STATED_BY, self.home.now())
            metering.save_log_cursor(session, self._cursor(problem))

        run_write(self.home.engine, work)

    def _cursor(self, problem: str) -> LogCursorRow:
        return LogCursorRow(
            source=self.source,
            path=self.access.url or "sacct",
            marks="",
            read_bytes=0,
            read_lines=0,
            head_bytes=0,
            head_digest="",
            tail_digest="",
            position=orjson.dumps(self.state).decode(),
            problem=problem,
            read_at=self.home.now(),
        )

    def _remembered(self) -> dict[str, int]:
        with read_session(self.home.engine) as session:
            for cursor in metering.log_cursors(session, self.source):
                if cursor.path == (self.access.url or "sacct"):
                    found: dict[str, int] = orjson.loads(cursor.position or b"{}")
                    return found
        return {}


def _parts(rows: Iterator[bytes], head: bytes) -> Iterator[bytes]:
    """Join rows to payloads of a length that is quickly read."""
    held, size = [head], 0
    for row in rows:
        held.append(row)
        size += len(row)
        if size > PART_BYTES:
            yield b"".join(held)
            held, size = [head], 0
    if size:
        yield b"".join(held)
