"""Three months in a chain: arrears, receipts, payments, and statements that follow on from each other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest

from hourbook.documents import PaymentRefusedError, pay

from .month_stories import Operator, Run


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    made = Operator(tmp_path)
    yield made
    made.home.close()


def test_an_empty_wallet_never_stops_accrual_and_the_next_top_up_settles_what_stands(operator: Operator) -> None:
    operator.top_up("u-pre", "3.00", "r1", "2026-11-01")
    operator.used(Run("job", "physics", "2026-11-03T08:00", core_hours=50))
    assert operator.balance("u-pre").arrears_minor == 200
    operator.top_up("u-pre", "10.00", "r2", "2026-11-10")
    balance = operator.balance("u-pre")
    assert (balance.arrears_minor, balance.paid_minor) == (0, 800)
    operator.at("2026-12-02T10:00")
    operator.close("2026-11")
    wallet = operator.wallet("2026-11", "u-pre")
    assert (wallet.arrears_new_minor, wallet.arrears_settled_minor, wallet.arrears_closing_minor) == (200, 200, 0)
    assert (wallet.drawn_minor, wallet.settled_arrears_minor, wallet.closing_minor) == (300, 200, 800)
    # All VAT is due: on what was drawn by the draw, on the arrears by the receipt that settled them.
    assert operator.booked("u-pre")["liabilities:vat_payable"] == -(17 + 11)


def test_a_top_up_of_the_next_month_settles_the_arrears_of_this_one(operator: Operator) -> None:
    operator.used(Run("job", "physics", "2026-11-03T08:00", core_hours=50))
    operator.at("2026-12-02T10:00")
    operator.close("2026-11")
    assert operator.wallet("2026-11", "u-pre").arrears_closing_minor == 500
    operator.top_up("u-pre", "8.00", "r1", "2026-12-02")
    assert operator.balance("u-pre").arrears_minor == 0
    operator.at("2027-01-02T10:00")
    operator.close("2026-12")
    wallet = operator.wallet("2026-12", "u-pre")
    assert (wallet.arrears_opening_minor, wallet.arrears_settled_minor, wallet.arrears_closing_minor) == (500, 500, 0)
    assert (wallet.opening_minor, wallet.drawn_minor, wallet.closing_minor) == (0, 0, 300)
    assert [receipt.amount_minor for receipt in wallet.receipts] == [800]


def test_a_receipt_entered_after_the_close_stands_on_the_next_statement(operator: Operator) -> None:
    operator.used(Run("job", "physics", "2026-11-03T08:00", core_hours=50))
    operator.at("2026-12-02T10:00")
    operator.close("2026-11")
    operator.top_up("u-pre", "8.00", "r1", "2026-11-28")
    operator.at("2027-01-02T10:00")
    operator.close("2026-12")
    wallet = operator.wallet("2026-12", "u-pre")
    assert [receipt.amount_minor for receipt in wallet.receipts] == [800]
    assert (wallet.opening_minor, wallet.arrears_settled_minor, wallet.closing_minor) == (0, 500, 300)


@pytest.fixture(scope="module")
def three_months(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Usage of all customers, on time and late, with receipts between."""
    operator = Operator(tmp_path_factory.mktemp("three-months"))
    operator.top_up("u-pre", "4.00", "r1", "2026-10-05")
    operator.used(
        Run("o1", "physics", "2026-10-06T08:00", core_hours=33),
        Run("o2", "bio", "2026-10-06T08:00", core_hours=70),
        Run("o3", "own", "2026-10-06T08:00", core_hours=41),
        Run("o4", "dev", "2026-10-07T08:00", card_hours=9),
        Run("o5", "llm", "2026-10-08T08:00", card_hours=7),
    )
    operator.at("2026-11-02T10:00")
    operator.close("2026-10")
    operator.top_up("u-pre", "2.22", "r2", "2026-11-02", project="chem")
    operator.at("2026-12-02T10:00")
    operator.used(
        Run("o1", "physics", "2026-10-06T08:00", core_hours=21, revision=2),
        Run("late", "chem", "2026-10-30T23:30", core_hours=13),
        Run("n1", "chem", "2026-11-20T08:00", core_hours=17),
        Run("n2", "bio", "2026-11-20T08:00", core_hours=55),
        Run("n4", "dev", "2026-11-07T08:00", card_hours=5),
    )
    operator.close("2026-11")
    operator.top_up("c-both", "90.00", "r3", "2026-12-01")
    operator.at("2027-01-02T10:00")
    operator.used(
        Run("o5", "llm", "2026-10-08T08:00", card_hours=3, revision=2),
        Run("o2", "bio", "2026-10-06T08:00", core_hours=64, revision=2),
        Run("d1", "physics", "2026-12-20T08:00", core_hours=19),
    )
    operator.close("2026-12")
    return operator


def test_statements_follow_on_and_the_ledger_is_the_sum_of_the_documents(three_months: Operator) -> None:
    operator = three_months
    for customer in ("u-pre", "u-pack", "p-grant", "c-both"):
        wallets = [one.wallet for one in operator.documents(customer=customer) if one.wallet]
        for before, after in pairwise(wallets):
            assert after.opening_minor == before.closing_minor
            assert after.arrears_opening_minor == before.arrears_closing_minor
            assert [pack.opening for pack in after.packs] == [pack.closing for pack in before.packs]
        assert wallets[-1].closing_minor == operator.balance(customer).paid_minor
        assert wallets[-1].arrears_closing_minor == operator.balance(customer).arrears_minor
    booked, issued = operator.booked(), operator.documents()
    given = sum(group.net_minor for one in issued for group in one.tax if group.rate == "0")
    assert -booked["income:usage"] == sum(one.net_minor for one in issued) - given
    assert booked["assets:receivable:billed"] == sum(one.total_minor for one in issued if one.kind == "invoice")
    assert "assets:receivable:unbilled" not in booked
    assert operator.rebuilt() == []


def test_the_tax_of_every_line_lies_beside_its_own(three_months: Operator) -> None:
    for document in three_months.documents():
        assert sum(line.tax_minor for line in document.lines) == document.tax_minor
        for line in document.lines:
            # 6% are included, rounded with its lot's other draws; a grant carries none.
            if "grant" not in line.parts:
                assert abs(106 * line.tax_minor - 6 * line.amount_minor) < 2 * 106


def test_an_invoice_is_paid_in_parts_and_the_last_closes_its_tax(operator: Operator) -> None:
    operator.used(Run("job", "llm", "2026-11-03T08:00", card_hours=10))
    operator.at("2026-12-02T10:00")
    operator.close("2026-11")
    invoice = operator.document("2026-11", "c-line", "invoice")
    assert (invoice.total_minor, invoice.tax_minor) == (8000, 453)
    pending = []
    for number, amount in enumerate((1, 3333, 4666)):
        assert pay(operator.home, invoice.number, amount, reference=f"p{number}", paid_on=date(2026, 12, 2))
        pending.append(operator.booked("c-line").get("liabilities:vat_pending", 0))
    assert pending == [-453, -453 + 189, 0]
    booked = operator.booked("c-line")
    assert booked == {"income:usage": -7547, "liabilities:vat_payable": -453}


def test_a_payment_is_taken_once_and_never_more_than_is_open(operator: Operator) -> None:
    operator.used(
        Run("job", "llm", "2026-11-03T08:00", card_hours=10),
        Run("pre", "physics", "2026-11-03T08:00", core_hours=1),
    )
    operator.at("2026-12-02T10:00")
    operator.close("2026-11")
    number = operator.document("2026-11", "c-line", "invoice").number
    day = date(2026, 12, 2)
    assert pay(operator.home, number, 5000, reference="p1", paid_on=day)
    assert not pay(operator.home, number, 5000, reference="p1", paid_on=day)
    with pytest.raises(PaymentRefusedError, match=r"already there: 50\.00"):
        pay(operator.home, number, 4000, reference="p1", paid_on=day)
    with pytest.raises(PaymentRefusedError, match=r"30\.00 open"):
        pay(operator.home, number, 3001, reference="p2", paid_on=day)
    with pytest.raises(PaymentRefusedError, match="hourbook topup"):
        pay(operator.home, operator.document("2026-11", "u-pre").number, 10, reference="p3", paid_on=day)
    assert operator.booked("c-line")["assets:receivable:billed"] == 3000


def test_a_payment_frees_the_credit_line_from_its_day_on(operator: Operator) -> None:
    operator.used(Run("job", "llm", "2026-11-03T08:00", card_hours=10))
    operator.at("2026-12-05T10:00")
    operator.close("2026-11")
    operator.used(Run("before", "llm", "2026-12-01T08:00", card_hours=4))
    assert operator.balance("c-line").arrears_minor == 1200
    number = operator.document("2026-11", "c-line", "invoice").number
    pay(operator.home, number, 8000, reference="p1", paid_on=date(2026, 12, 3))
    operator.used(Run("after", "llm", "2026-12-04T08:00", card_hours=3))
    balance = operator.balance("c-line")
    assert (balance.arrears_minor, balance.unbilled_minor) == (1200, 2000 + 2400)
