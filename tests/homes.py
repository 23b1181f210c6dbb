"""Homes on every kind of database, made quickly: each is a copy of one that was made in earnest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from hourbook.database import create_home, open_home
from hourbook.settings import DATABASE_FILE, Home, Settings

from .postgresql import Server

# Makes a home at a path, with its clock fixed at an instant. Whoever opens that path afterwards, in this process or
# in another that inherits its environment, gets the same database; of several homes on PostgreSQL, the last one's.
NewHome = Callable[[Path, datetime], Home]

URL = "HOURBOOK_DATABASE_URL"
BOTH = ("sqlite", "postgresql")


@dataclass
class Templates:
    """One home per clock, made by `create_home` and copied for each test."""

    folder: Path
    made: dict[tuple[str, datetime], str] = field(default_factory=dict)

    def sqlite(self, clock: datetime) -> str:
        """Return the file of a home on SQLite."""
        path = self.folder / str(len(self.made))
        if ("sqlite", clock) not in self.made:
            create_home(path, clock, settings=Settings(database_url="")).close()
            self.made["sqlite", clock] = str(path / DATABASE_FILE)
        return self.made["sqlite", clock]

    def postgresql(self, clock: datetime, server: Server) -> str:
        """Return the database of a home on PostgreSQL."""
        path = self.folder / str(len(self.made))
        if ("postgresql", clock) not in self.made:
            name = server.new_database()
            create_home(path, clock, settings=Settings(database_url=server.url(name))).close()
            self.made["postgresql", clock] = name
        return self.made["postgresql", clock]


def homes_on_sqlite(templates: Templates, patch: pytest.MonkeyPatch, cleanup: ExitStack) -> NewHome:
    """Make homes whose database is a file in them."""
    patch.delenv(URL, raising=False)

    def new_home(path: Path, clock: datetime) -> Home:
        path.mkdir(parents=True)
        shutil.copy(templates.sqlite(clock), path / DATABASE_FILE)
        return _opened(path, cleanup)

    return new_home


def homes_on_postgresql(templates: Templates, patch: pytest.MonkeyPatch, cleanup: ExitStack, server: Server) -> NewHome:
    """Make homes whose database is one of a server's."""

    def new_home(path: Path, clock: datetime) -> Home:
        path.mkdir(parents=True)
        name = server.new_database(templates.postgresql(clock, server))
        cleanup.callback(server.drop, name)
        patch.setenv(URL, server.url(name))
        return _opened(path, cleanup)

    return new_home


def _opened(path: Path, cleanup: ExitStack) -> Home:
    home = open_home(path)
    cleanup.callback(home.close)
    return home
