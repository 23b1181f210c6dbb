"""Following accounting logs: what is new in them since the last poll goes through the inbox, as an import does.

Up to where each file was read stands in the database, committed together with what was read. That only saves work: read
again, from any place, everything is a duplicate and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from polars.exceptions import PolarsError
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.importing import OtherLog, accept_in, catalog_of, origin_of
from hourbook.log_files import LogReader, LogReadError, Mark, Piece, log_files, new_pieces, opened, state_of
from hourbook.refreshing import refresh
from hourbook.settings import Home
from metering import store as metering
from metering.clusters import Cluster
from metering.collectors.pieces import PIECE_BYTES, Cutting, shifted
from metering.collectors.registry import OptionsError
from metering.events import Collected
from metering.store import BatchReceipt, LogCursorRow

FOLLOWED_KINDS = ("pbs", "lsf", "sge", "uge", "swf", "csv")
# What may go wrong with one file, or for a while with the database; a poll tells it and goes on.
PASSING = (OSError, ValueError, PolarsError, SQLAlchemyError, RuntimeError)


@dataclass(frozen=True)
class FollowedLog:
    """A log that grows: how it is read, and in which files and folders it lies."""

    log: OtherLog
    paths: tuple[Path, ...]

    @property
    def source(self) -> str:
        """Under which name it is remembered up to where its files were read."""
        return f"{self.log.collector.name}:{self.log.cluster}"

    def cutting(self) -> Cutting:
        """Return how the log may be cut, or refuse a kind that can only be read whole."""
        cutting = self.log.collector.cutting_for(self.log.options)
        if cutting is None:
            raise OptionsError(
                f"{self.log.collector.name} read in this way cannot be followed, as only a whole file tells its "
                'records apart (repeats = "counted"?); use hourbook import log for finished files'
            )
        return cutting


@dataclass
class Polled:
    """What one poll found."""

    receipts: list[BatchReceipt] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    files: int = 0  # looked at, changed or not

    def add(self, other: Polled) -> None:
        """Add what another poll found."""
        self.receipts += other.receipts
        self.problems += other.problems
        self.files += other.files


def poll_log(home: Home, followed: FollowedLog) -> Polled:
    """Record what is new in the files of a log; what cannot be read is told, and tried again at the next poll."""
    cutting = followed.cutting()
    polled = Polled()
    with read_session(home.engine) as session:
        known = {cursor.path: cursor for cursor in metering.log_cursors(session, followed.source)}
        session.expunge_all()
    cluster = catalog_of(home).clusters.get(followed.log.cluster) or Cluster(name=followed.log.cluster)
    for path in _files(followed.paths, polled):
        polled.files += 1
        file = _File(home, followed, cluster, cutting, path)
        try:
            for receipt in file.poll(known):
                polled.receipts.append(receipt)
        except PASSING as error:
            if not path.exists():
                continue  # it was moved in this moment, and is found under its new name the next time
            problem = str(error) if str(path) in str(error) else f"{path}: {error}"
            polled.problems.append(problem)
            with suppress(SQLAlchemyError):  # where the database itself is the problem
                file.save(_mark(known.get(str(path))), problem=problem)
    return polled


def poll_and_refresh(home: Home, log: FollowedLog) -> Polled:
    """Look at a log once, and count what it had; a problem is told, not raised."""
    polled = Polled()
    try:
        polled.add(poll_log(home, log))
        if polled.receipts:
            refresh(home)
    except PASSING as error:
        polled.problems.append(str(error))
    return polled


def forget(home: Home, followed: FollowedLog) -> int:
    """Let a log be read from its start again; return how many files were known."""
    return run_write(home.engine, lambda session: metering.forget_log_cursors(session, followed.source))


def _files(paths: Iterable[Path], polled: Polled) -> Iterator[Path]:
    for path in paths:
        try:
            yield from log_files([path])
        except (LogReadError, OSError) as error:
            polled.problems.append(str(error))


@dataclass(frozen=True)
class _File:
    """One file of a log, to be read on."""

    home: Home
    followed: FollowedLog
    cluster: Cluster
    cutting: Cutting
    path: Path

    def poll(self, known: dict[str, LogCursorRow]) -> Iterator[BatchReceipt]:
        """Record what is new in the file since it, or the file that it was before, was read."""
        state = state_of(self.path)
        cursor = known.get(str(self.path))
        if cursor is not None and cursor.marks == state and not cursor.problem:
            return
        with opened(self.path) as reader:
            mark = _known_part(reader, [cursor, *known.values()] if cursor else list(known.values()))
            beginning = reader.read(0, PIECE_BYTES) if self.cutting.head != "none" else b""
            head = beginning[: self.cutting.head_length(beginning)]
            for piece in new_pieces(reader, mark, self.cutting):
                mark = piece.behind
                receipt = self._record(self._read(piece, head), piece)
                known[str(self.path)] = self._cursor(mark)
                if receipt is not None:
                    yield receipt
        known[str(self.path)] = self.save(mark, state=state)

    def save(self, mark: Mark, *, state: str = "", problem: str = "") -> LogCursorRow:
        """Note up to where the file was read; without its state it is looked at again."""
        cursor = self._cursor(mark, state=state, problem=problem)
        run_write(self.home.engine, lambda session: metering.save_log_cursor(session, cursor))
        return cursor

    def _read(self, piece: Piece, head: bytes) -> Collected | None:
        """Read a piece as part of its file; None where it holds nothing but blank lines."""
        said = self.followed.log
        if not piece.content.strip():
            return None
        first = piece.before.read_bytes == 0
        payload = piece.content if first else head + piece.content
        lines = 0 if first else piece.before.read_lines - head.count(b"\n")
        return shifted(
            said.collector.read(payload, cluster=self.cluster, timezone=said.zone, options=said.options), lines
        )

    def _record(self, collected: Collected | None, piece: Piece) -> BatchReceipt | None:
        """Commit what a piece says together with the cursor behind it."""
        kind, cursor = self.followed.log.collector.name, self._cursor(piece.behind)
        origin = origin_of(self.path) + (f" from line {piece.before.read_lines + 1}" if piece.before.read_lines else "")

        def work(session: Session) -> BatchReceipt | None:
            metering.save_log_cursor(session, cursor)
            receipt = None
            if collected is not None and collected.rows:
                receipt = accept_in(session, self.home, piece.content, collected, kind=kind, origin=origin)
            crash_point("collect:before_commit")
            return receipt

        receipt = run_write(self.home.engine, work)
        crash_point("collect:after_commit")
        return receipt

    def _cursor(self, mark: Mark, *, state: str = "", problem: str = "") -> LogCursorRow:
        return LogCursorRow(
            source=self.followed.source,
            path=str(self.path),
            marks=state,
            read_bytes=mark.read_bytes,
            read_lines=mark.read_lines,
            head_bytes=mark.head_bytes,
            head_digest=mark.head_digest,
            tail_digest=mark.tail_digest,
            problem=problem,
            read_at=self.home.now(),
        )


def _known_part(reader: LogReader, cursors: Iterable[LogCursorRow]) -> Mark:
    """Return up to where the file was read, under its own name or under the one that it had before."""
    marks = (_mark(cursor) for cursor in cursors if cursor.read_bytes)
    return next((mark for mark in marks if reader.is_read(mark)), Mark())


def _mark(cursor: LogCursorRow | None) -> Mark:
    if cursor is None:
        return Mark()
    return Mark(cursor.read_bytes, cursor.read_lines, cursor.head_bytes, cursor.head_digest, cursor.tail_digest)
