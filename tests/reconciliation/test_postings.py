"""Supplier cost in the ledger: accrued, reversed, billed and paid; what is left is the bill."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from ledger.accounts import AccountKey
from reconciliation.match import ContractCost
from reconciliation.postings import accrual_key, accrue, book_bill, pay, reverse

COST = ContractCost("CG-1", "centre", "cpu2", "by_use", 10_600, Fraction(6, 100))
EXPENSE = AccountKey("expenses:cost", detail="cpu2")
VAT = AccountKey("assets:input_vat", detail="CG-1")
PAYABLE = AccountKey("liabilities:supplier_payable", detail="CG-1")
ACCRUAL = AccountKey("liabilities:supplier_accrual", detail="CG-1")


def test_the_month_end_accrues_cost_net_of_vat() -> None:
    assert accrue(COST, "CNY") == {EXPENSE: 10_000, ACCRUAL: -10_000}
    assert accrual_key("2026-11", "CG-1") == "supplier-accrual:2026-11:CG-1"


def test_a_bill_with_special_fapiao_separates_input_vat() -> None:
    assert book_bill(COST, 10_600, special_fapiao=True, currency="CNY") == {EXPENSE: 10_000, VAT: 600, PAYABLE: -10_600}


def test_a_bill_without_one_is_cost_in_full() -> None:
    assert book_bill(COST, 10_600, special_fapiao=False, currency="CNY") == {EXPENSE: 10_600, PAYABLE: -10_600}


def test_accrual_reversal_bill_and_payment_leave_cost_vat_and_the_bank() -> None:
    accrued = accrue(COST, "CNY")
    balances: Counter[AccountKey] = Counter()
    for movements in (
        accrued,
        reverse(accrued),
        book_bill(COST, 10_706, special_fapiao=True, currency="CNY"),
        pay("CG-1", 10_706, currency="CNY"),
    ):
        assert sum(movements.values()) == 0
        balances.update(movements)

    left = {account: minor for account, minor in balances.items() if minor}
    assert left == {EXPENSE: 10_100, VAT: 606, AccountKey("assets:bank"): -10_706}


def test_nothing_to_accrue_moves_nothing() -> None:
    assert accrue(ContractCost("CG-1", "centre", "cpu2", "by_use", 0, Fraction(0)), "CNY") == {}
