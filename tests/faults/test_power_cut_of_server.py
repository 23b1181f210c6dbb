"""Power is cut under a real server: the home that the disk is left with holds all acknowledged usage, once.

Needs a C compiler for the disk between the server and the system; without one only the database and the lake are cut,
each by itself (test_power_cut.py, tests/metering/test_lake_disk.py).
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hourbook.database import open_home
from hourbook.settings import DATABASE_FILE, Home
from tests.homes import NewHome

from .disk_model import Disk
from .disk_shim import COMPILER, DiskShim
from .load import Said, running
from .served_home import NOW, Site, new_seed, site
from .stored import lost_and_doubled

CUTS = int(os.environ.get("HOURBOOK_TEST_CUTS", "30"))
LOAD_SECONDS = 10  # at least, and on a slow machine until there are as many
LEAST_VERSIONS = 20  # of the lake

pytestmark = [pytest.mark.endurance, pytest.mark.parametrize("new_home", ["sqlite"], indirect=True)]


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a home that no process has open, the log of its database written back."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite-shm")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if not path.name.endswith("-shm")}


def under_load(here: Site) -> None:
    server = here.start()
    here.wait(server)
    enough = time.monotonic() + LOAD_SECONDS
    with running(here.senders()):
        while time.monotonic() < enough or versions(here.home) < LEAST_VERSIONS:
            time.sleep(0.1)
            assert time.monotonic() < enough + 20 * LOAD_SECONDS, "the server does nothing"
    server.kill()


def versions(home: Home) -> int:
    return sum(1 for _ in home.path.rglob("_delta_log/*.json"))


def after_cut(files: dict[str, bytes], folder: Path, said: Said) -> list[str]:
    """Start again from what is left; say what is wrong with it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection:
        damage = [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
    home = open_home(folder)
    try:
        return damage + lost_and_doubled(home, said)
    except Exception as error:  # noqa: BLE001 - a home that cannot be used again is as bad as one that lost something
        return [*damage, f"{type(error).__name__}: {error}"]
    finally:
        home.close()


def wrong_after_cuts(home: Home, folder: Path, broken: str = "") -> Iterator[list[str]]:
    """Run a server on a disk that writes everything down; say what is wrong after each of many power cuts."""
    around = folder / "around"
    around.mkdir()
    shim = DiskShim.compiled(home.path, around)
    seed = new_seed()
    with site(home, around, seed, broken=broken, environment=shim.environment) as here:
        home.engine.dispose()
        before = files_of(home.path)
        under_load(here)
    steps = shim.steps()
    commits = sum(step.to.endswith(".json") and "_delta_log" in step.to for _, step in steps)
    print(f"{len(steps)} steps, {commits} versions of the lake, {len(here.said.acknowledged)} acknowledged")  # noqa: T201
    chance = random.Random(seed)  # noqa: S311 - printed
    disk, done = Disk.holding(before), 0
    for number, cut in enumerate(sorted(chance.randint(1, len(steps)) for _ in range(CUTS))):
        for _, step in steps[done:cut]:
            disk.do(step)
        done = cut
        told = {key: at for key, at in here.said.acknowledged.items() if at <= steps[cut - 1][0]}
        yield after_cut(disk.after_cut(chance), folder / f"left-{number}", Said(here.said.sent, told))


if COMPILER:

    @pytest.mark.timeout(1200)
    def test_no_power_cut_takes_what_a_server_acknowledged(new_home: NewHome, tmp_path: Path) -> None:
        for number, wrong in enumerate(wrong_after_cuts(new_home(tmp_path / "home", NOW), tmp_path)):
            assert wrong == [], f"cut {number}"

    @pytest.mark.timeout(1200)
    def test_a_lake_that_is_never_forced_to_disk_is_caught(new_home: NewHome, tmp_path: Path) -> None:
        home = new_home(tmp_path / "home", NOW)
        assert any(wrong_after_cuts(home, tmp_path, "never_force")), "the disk of this test forgets nothing"
