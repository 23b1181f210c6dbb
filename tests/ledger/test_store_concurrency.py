"""Many writers at once: no update is lost, and a lot never gives more than it holds."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from hourbook.audit import verify
from hourbook.database import read_session
from hourbook.settings import Home
from ledger.accounts import AccountKey
from ledger.store import InsufficientFundsError, posting, transactions
from tests.homes import NewHome

from .ledger_stories import (
    ARREARS,
    BANK,
    LOT,
    NOW,
    balance,
    charge,
    charge_of_nothing,
    posted,
    top_up,
    transaction,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home(new_home: NewHome, tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", NOW)


WRITER = """
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from hourbook.database import open_home, run_write
from ledger.accounts import AccountKey
from ledger.journal import transaction_from_movements
from ledger.store import post

name, count = sys.argv[2], int(sys.argv[3])
home = open_home(Path(sys.argv[1]))
for number in range(count):
    moved = {AccountKey("assets:bank"): 1, AccountKey("income:usage", detail=name): -1}
    made = transaction_from_movements("test", f"{name}:{number}", moved, effective_on=date(2026, 11, 3), narration="")
    run_write(home.engine, lambda session: post(session, made, datetime(2026, 11, 3, tzinfo=UTC)))
    print(number, flush=True)
"""


def test_no_update_of_a_hot_account_is_lost_between_threads_and_processes(home: Home) -> None:
    command = [sys.executable, "-c", WRITER, str(home.path)]
    others = [
        subprocess.Popen([*command, f"process-{n}", "30"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for n in range(2)
    ]

    def write(thread: int) -> None:
        for number in range(20):
            own = AccountKey("income:usage", detail=f"thread-{thread}")
            posted(home.engine, transaction(f"thread-{thread}:{number}", {BANK: 1, own: -1}))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    acknowledged = [process.communicate(timeout=60)[0].split() for process in others]
    assert [len(lines) for lines in acknowledged] == [30, 30]
    assert [process.returncode for process in others] == [0, 0]
    assert balance(home.engine, BANK) == 8 * 20 + 2 * 30
    with home.engine.connect() as connection:
        versions = connection.execute(
            text(
                "SELECT account_version FROM posting p JOIN ledger_account a ON a.id = p.account_id "
                "WHERE a.code = 'assets:bank' ORDER BY 1"
            )
        ).scalars()
        assert list(versions) == list(range(1, 221))
    assert verify(home.engine) == []


def test_what_was_acknowledged_survives_a_kill(home: Home) -> None:
    command = [sys.executable, "-c", WRITER, str(home.path), "killed", "100000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [next(writer.stdout) for _ in range(25)]
        writer.kill()
        # The last line may be torn, so only whole ones count.
        acknowledged += [line for line in writer.stdout if line.endswith("\n")]
    with read_session(home.engine) as session:
        stored = {each.transaction.business_key for each in transactions(session)}
    assert {f"killed:{int(line)}" for line in acknowledged} <= stored
    assert len(stored) - len(acknowledged) in {0, 1}
    assert verify(home.engine) == []


def withdraw_all_at_once(home: Home, tries: int) -> int:
    """Let many take one cent from one lot at the same time; return how many succeeded."""

    def withdraw(number: int) -> bool:
        try:
            posted(home.engine, charge(f"accrual:{number}", 1))
        except InsufficientFundsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(withdraw, range(tries)))


def test_of_many_charges_on_a_lot_exactly_as_many_succeed_as_it_holds(home: Home) -> None:
    top_up(home.engine, 25)
    assert withdraw_all_at_once(home, 60) == 25
    assert balance(home.engine, LOT) == 0
    assert verify(home.engine) == []


def test_without_the_floor_the_auditor_finds_the_lot_overdrawn(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    # A deliberately broken build: the two tests above must be able to fail.
    guarded = posting._move_of  # noqa: SLF001 - the part that is broken on purpose
    monkeypatch.setattr(posting, "_move_of", lambda leg, number: {**guarded(leg, number), "guard": 0})
    top_up(home.engine, 5)
    assert withdraw_all_at_once(home, 8) == 8
    assert {finding.check for finding in verify(home.engine)} == {"I5"}


def test_one_business_fact_sent_by_many_at_once_is_posted_once(home: Home) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: posted(home.engine, charge_of_nothing("same"))[0], range(50)))
    assert sum(not result.repeated for result in results) == 1
    assert len({(result.sequence, result.hash) for result in results}) == 1
    assert balance(home.engine, ARREARS) == 1
