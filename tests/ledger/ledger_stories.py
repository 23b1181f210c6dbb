"""Accounts and transactions that the tests of the ledger's tables tell their stories with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime

from sqlalchemy import Engine

from hourbook.database import read_session, write_session
from ledger.accounts import AccountKey
from ledger.journal import Transaction, transaction_from_movements
from ledger.store import Posted, balances, post

NOW = datetime(2026, 11, 3, 2, 0, tzinfo=UTC)
DAY = date(2026, 11, 3)
BANK = AccountKey("assets:bank")
REVENUE = AccountKey("income:usage", detail="core-hour|hpc1")
ARREARS = AccountKey("assets:receivable:arrears", "u-north", detail="HT-1")
LOT = AccountKey("liabilities:contract", "u-north", detail="lot-1")


def transaction(key: str, moved: Mapping[AccountKey, int], kind: str = "test", **metadata: str | int) -> Transaction:
    return transaction_from_movements(kind, key, moved, effective_on=DAY, narration="a story", metadata=metadata)


def posted(engine: Engine, *wanted: Transaction) -> list[Posted]:
    with write_session(engine) as session:
        return [post(session, each, NOW) for each in wanted]


def top_up(engine: Engine, amount: int = 100) -> None:
    posted(engine, transaction("receipt:1", {BANK: amount, LOT: -amount}, "receipt"))


def charge(key: str, amount: int) -> Transaction:
    return transaction(key, {LOT: amount, REVENUE: -amount}, "accrual", period="2026-11")


def balance(engine: Engine, account: AccountKey) -> int:
    with read_session(engine) as session:
        return balances(session)[account]


def charge_of_nothing(key: str) -> Transaction:
    return transaction(key, {ARREARS: 1, REVENUE: -1})
