"""What every kind of database must offer before money is kept in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

WRITES = "hourbook_write"  # the execution option by which a session says that it writes
BUSY_TIMEOUT_MS = 10_000  # how long a writer waits for the one before it
POOL_SIZE = 16


class DatabaseUnsafeError(RuntimeError):
    """The database would not keep what it acknowledged, so Hourbook refuses to run on it."""


class Outage(StrEnum):
    """Why a database cannot be used for a while, in words that finish "the database cannot be used: …"."""

    full = "its disk is full"
    read_only = "it cannot be written to"
    failing = "its disk reports errors"
    unreachable = "its server cannot be reached"


class DatabaseKind(Protocol):
    """One kind of database: how its sessions begin, and how to tell whether it keeps what it acknowledged.

    A transaction that begins with the option `WRITES` is the only writer from its first moment; any other sees one
    unchanging state and cannot write.
    """

    def make_engine(self, url: str) -> Engine:
        """Make an engine whose transactions begin as described."""

    def turn(self, engine: Engine) -> AbstractContextManager[None]:
        """Wait until it is a writer's turn, in the order of asking, and hold it to the end of the block."""

    def weaknesses(self, connection: Connection) -> list[str]:
        """Name the settings and tables with which it could lose or spoil what it acknowledged."""

    def damage(self, connection: Connection) -> Iterator[str]:
        """Say what is broken in the database itself."""

    def missing_guards(self, connection: Connection, tables: Iterable[str]) -> list[str]:
        """Name the triggers that should protect append-only tables and do not."""

    def is_busy(self, error: OperationalError) -> bool:
        """Tell whether a failure means no more than that the same work may be tried again."""

    def outage(self, error: DBAPIError) -> Outage | None:
        """Tell whether the machine below failed, not the work: it may be done again once that is mended."""
