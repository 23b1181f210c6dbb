"""Accrual posts what was derived beside other writers, unless something it depends on changed meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hourbook.accruing import TRIES_BESIDE_OTHERS, Accrued, accrue_open_months
from hourbook.applying import apply_files
from hourbook.auditing import audit
from hourbook.database import create_home, read_session, write_session
from hourbook.demo import CLOCK, SAMPLE
from hourbook.deriving import derive
from hourbook.importing import SlurmLog, import_slurm
from hourbook.receiving import TopUp, receive
from hourbook.settings import Home
from ledger import store as ledger

CUSTOMER = "u-beichen-physics"
REAL = SAMPLE / "hpc1" / "D9_final_all" / "sacct-epoch-name-last.psv.gz"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = create_home(tmp_path / "home", CLOCK)
    apply_files(home, [SAMPLE / "facts"])
    import_slurm(home, [REAL], SlurmLog("hpc1"))
    return home


def top_up(home: Home, reference: str) -> None:
    receive(home, TopUp(CUSTOMER, 10_000, reference, CLOCK.date()))


def revenue(home: Home) -> int:
    with read_session(home.engine) as session:
        return -sum(amount for key, amount in ledger.balances(session).items() if key.code == "income:usage")


def test_accruing_again_without_news_posts_nothing(home: Home) -> None:
    assert accrue_open_months(home).transactions > 0
    before = revenue(home)
    assert accrue_open_months(home).transactions == 0
    assert revenue(home) == before > 0


def test_others_may_write_while_charges_are_derived(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    wrote = threading.Event()

    def slowly(*arguments: object) -> object:
        if not wrote.is_set():
            wrote.set()
            # Were the database locked for the sums, this would wait for them and fail.
            with write_session(home.engine):
                pass
        return derive(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("hourbook.accruing.derive", slowly)
    assert accrue_open_months(home).transactions > 0
    assert wrote.is_set()


def test_a_receipt_that_comes_between_is_taken_into_account(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []

    def interrupted(*arguments: object) -> object:
        derived = derive(*arguments)  # type: ignore[arg-type]
        times.append(1)
        if len(times) == 1:
            top_up(home, "bank 1")
        return derived

    monkeypatch.setattr("hourbook.accruing.derive", interrupted)
    accrue_open_months(home)
    assert len(times) == 2, "what was derived before the receipt must not be posted"
    assert not audit(home).findings


def test_news_without_end_are_charged_all_the_same(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []

    def always_interrupted(*arguments: object) -> object:
        derived = derive(*arguments)  # type: ignore[arg-type]
        times.append(1)
        if len(times) <= TRIES_BESIDE_OTHERS:
            top_up(home, f"bank {len(times)}")
        return derived

    monkeypatch.setattr("hourbook.accruing.derive", always_interrupted)
    accrued: Accrued = accrue_open_months(home)
    assert accrued.transactions > 0
    assert not audit(home).findings
