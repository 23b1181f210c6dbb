"""Power is cut in the middle of usage, sealing and money: the database holds what was acknowledged, and is whole."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import apsw
import orjson
import pytest

from hourbook.accruing import accrue_open_months
from hourbook.applying import apply_files
from hourbook.database import create_home
from hourbook.importing import accept_payload
from hourbook.receiving import TopUp, receive
from hourbook.refreshing import refresh
from hourbook.settings import DATABASE_FILE, Home, Settings
from metering.cloud_events import read_events
from tests.hourbook.small_operator import FACTS

from .disk_model import Disk
from .load import CUSTOMER, event
from .recorded_sql import COMMIT, Replay, Shim, Statement, fingerprint, recording, transactions

NOW = datetime.fromisoformat("2026-11-25T10:00:00+08:00")
CUTS = 150
FAILURES = 200
RUNS = 20  # in the n-th of these, every try fails whose number is n, and n more than a multiple of this
ILL = 3  # so many tries in a row fail before the disk is mended
MOST_CUTS = 12  # in one run, each at a failure
ROUNDS = 32
SEED = 20_261_125

pytestmark = pytest.mark.endurance


@dataclass(frozen=True)
class Story:
    """What an engine sent, from which state on, and the state after each writing transaction."""

    base: Path
    sent: list[Statement]
    states: list[str]


def work(home: Home) -> None:
    """Usage, sealing, receipts and accrual, one after the other, as a server would have them."""
    number = 0
    for turn in range(ROUNDS):
        for size in (1, 20):
            events = [event(f"job-{number + one}", number=number + one) for one in range(size)]
            number += size
            payload = orjson.dumps(events)
            collected = read_events(payload, format="json", now=home.now())
            accept_payload(home, payload, collected, kind="cloud_events", origin=f"{turn}:{size}")
        receive(home, TopUp(CUSTOMER, 1000 + turn, f"bank-{turn}", date(2026, 11, 20)))
        if turn % 8 == 7:
            accrue_open_months(home)
        elif turn % 2:
            refresh(home)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    tmp_path = tmp_path_factory.mktemp("story")
    home = create_home(tmp_path / "home", NOW, settings=Settings(database_url=""))
    facts = tmp_path / "operator.toml"
    facts.write_text(FACTS.format(zone="Asia/Shanghai"), encoding="utf-8")
    apply_files(home, [facts])
    base = tmp_path / "base.sqlite"
    with closing(sqlite3.connect(home.path / DATABASE_FILE)) as connection:
        connection.execute(f"VACUUM INTO '{base}'")
    with closing(sqlite3.connect(base)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    with recording(home.engine) as sent:
        work(home)
    with closing(sqlite3.connect(home.path / DATABASE_FILE)) as connection:
        end = fingerprint(connection)
    home.close()
    states = states_of(base, sent, tmp_path / "plain")
    assert states[-1] == end, "replayed, the statements must come to what they came to first"
    return Story(base, sent, states)


def states_of(base: Path, sent: list[Statement], folder: Path) -> list[str]:
    """Return the fingerprint before the first and after each writing transaction."""
    folder.mkdir()
    file = folder / DATABASE_FILE
    shutil.copy(base, file)
    replay = Replay(file)
    with closing(sqlite3.connect(file)) as reader:
        states = [fingerprint(reader)]
        for transaction in transactions(sent):
            for statement in transaction:
                replay.send(statement)
            states.append(fingerprint(reader))
    replay.close()
    return states


def replayed(story: Story, folder: Path, synchronous: str) -> tuple[Shim, list[int]]:
    """Send everything again, over a disk that writes down its steps; say after which step each commit was told."""
    folder.mkdir()
    shutil.copy(story.base, folder / DATABASE_FILE)
    shim = Shim(folder)
    replay = Replay(folder / DATABASE_FILE, shim.name, synchronous)
    writing: set[int] = set()
    told = []
    for statement in story.sent:
        replay.send(statement)
        if statement.sql == "BEGIN IMMEDIATE":
            writing.add(statement.connection)
        if statement.sql == COMMIT and statement.connection in writing:
            writing.discard(statement.connection)
            told.append(len(shim.steps))
    replay.close()
    assert len(told) == len(story.states) - 1
    return shim, told


def state_after(files: dict[str, bytes], folder: Path) -> str:
    """Start from what a cut left, as a server would; return the state, having looked for damage."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return fingerprint(connection)


def cut_at(story: Story, shim: Shim, told: list[int], folder: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Cut the power many times: after how many commits, the state that is left, and those that may be."""
    chance = random.Random(SEED)  # noqa: S311 - a run that can be repeated
    disk = Disk.holding({DATABASE_FILE: story.base.read_bytes()})
    moments = sorted(chance.randint(1, told[-1]) for _ in range(CUTS))
    done = 0
    for moment in moments:
        for step in shim.steps[done:moment]:
            disk.do(step)
        done = moment
        commits = sum(step <= moment for step in told)
        left = state_after(disk.after_cut(chance), folder)
        # What was not acknowledged yet may be there, but only whole.
        yield commits, left, story.states[commits : commits + 2]


def test_full_loses_nothing_in_150_power_cuts_and_normal_does(story: Story, tmp_path: Path) -> None:
    print(f"{len(story.states)} commits, {len(story.sent)} statements")  # noqa: T201
    shim, told = replayed(story, tmp_path / "full", "FULL")
    for commits, left, allowed in cut_at(story, shim, told, tmp_path / "left"):
        assert left in allowed, f"after {commits} commits the power cut left state {story.states.index(left)}"
    shim, told = replayed(story, tmp_path / "normal", "NORMAL")
    lost = sum(left not in allowed for _, left, allowed in cut_at(story, shim, told, tmp_path / "left"))
    assert lost > CUTS / 10, "the control must lose some, or the disk of this test forgets nothing"


@dataclass
class Illness:
    """Fails some tries to do one kind of thing: the first, and so on at equal distances, each time a few in a row."""

    kind: str
    first: int
    tries: int = 0
    failed: set[int] = field(default_factory=set)

    def __call__(self, kind: str, _path: str) -> type[apsw.Error] | None:
        """Say how a try ends."""
        if kind != self.kind:
            return None
        self.tries += 1
        if self.tries < self.first or (self.tries - self.first) % RUNS >= ILL:
            return None
        self.failed.add(self.tries)
        return apsw.FullError if kind == "write" else apsw.IOError


def through_illness(story: Story, folder: Path, illness: Illness) -> tuple[Shim, list[tuple[int, int]], str]:
    """Send every transaction until it is told as committed.

    Returns what the disk did; for each failure at which step it was and how many commits had been told; the end state.
    """
    folder.mkdir()
    shutil.copy(story.base, folder / DATABASE_FILE)
    shim = Shim(folder)
    replay = Replay(folder / DATABASE_FILE, shim.name)
    replay.connect({statement.connection for statement in story.sent})
    shim.fails = illness
    failures = []
    for told, transaction in enumerate(transactions(story.sent)):
        before = len(illness.failed)
        while not committed(replay, transaction):
            failures.append((len(shim.steps), told))
            before = len(illness.failed)
            # What was told as failed may be done: a checkpoint after it was what failed. Whoever repeats it finds it.
            if replay.state(transaction[0].connection, shim) == story.states[told + 1]:
                break
        if len(illness.failed) > before:  # of a checkpoint after the commit: that is told as done, and rightly
            failures.append((len(shim.steps), told + 1))
    shim.fails = lambda _kind, _path: None
    replay.close()
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection:
        return shim, failures, fingerprint(connection)


def committed(replay: Replay, transaction: list[Statement]) -> bool:
    """Do one transaction; where SQLite says no, undo it and say so."""
    try:
        for statement in transaction:
            replay.send(statement)
    except (apsw.IOError, apsw.FullError):
        replay.undo(transaction[0].connection)
        return False
    return True


@pytest.mark.parametrize("kind", ["sync", "write"])
def test_nothing_is_acknowledged_that_a_failing_disk_did_not_take(kind: str, story: Story, tmp_path: Path) -> None:
    failed: set[int] = set()
    for first in range(1, RUNS + 1):
        illness = Illness(kind, first)
        shim, failures, end = through_illness(story, tmp_path / f"ill-{first}", illness)
        failed |= illness.failed
        assert end == story.states[-1], "once the disk works again, everything is done, and once"
        disk, done, chance = Disk.holding({DATABASE_FILE: story.base.read_bytes()}), 0, random.Random(first)  # noqa: S311
        for step, told in failures[:MOST_CUTS]:
            for each in shim.steps[done:step]:
                disk.do(each)
            done = step
            left = state_after(disk.after_cut(chance), tmp_path / "left")
            assert left in story.states[told : told + 2], f"a {kind} failed after {told} commits (run {first})"
    assert failed >= set(range(1, FAILURES + 1)), "each of the first two hundred must have failed once"
