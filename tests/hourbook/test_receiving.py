"""Money and promises that come in are posted once, with the source that they make."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from hourbook.receiving import ReceiptConflictError, TopUp, UnknownCustomerError, receive
from ledger.store import BusinessKeyConflictError

from .month_stories import FACTS, Operator, Run

PACK = FACTS[FACTS.index("[[packs]]") : FACTS.index("[[grants]]")]
GRANT = FACTS[FACTS.index("[[grants]]") :]


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    made = Operator(tmp_path)
    yield made
    made.home.close()


def test_a_receipt_is_a_liability_and_the_vat_in_it_pending(operator: Operator) -> None:
    assert operator.top_up("u-pre", "106.00", "bank 1", "2026-11-02")
    assert operator.booked("u-pre") == {"liabilities:contract": -10000, "liabilities:vat_pending": -600}


def test_the_same_receipt_again_is_already_there(operator: Operator) -> None:
    assert operator.top_up("u-pre", "106.00", "bank 1", "2026-11-02")
    assert not operator.top_up("u-pre", "106.00", "bank 1", "2026-11-02")
    assert operator.balance("u-pre").paid_minor == 10600


def test_the_same_reference_with_another_amount_is_refused(operator: Operator) -> None:
    operator.top_up("u-pre", "106.00", "bank 1", "2026-11-02")
    with pytest.raises(ReceiptConflictError, match=r"already there with 106\.00, not 105\.00"):
        operator.top_up("u-pre", "105.00", "bank 1", "2026-11-02")


def test_two_customers_may_use_the_same_reference(operator: Operator) -> None:
    assert operator.top_up("u-pre", "1.00", "bank 1", "2026-11-02")
    assert operator.top_up("u-pack", "2.00", "bank 1", "2026-11-02")
    assert operator.balance("u-pack").paid_minor == 200


@pytest.mark.parametrize(
    ("receipt", "error", "message"),
    [
        (TopUp("nobody", 100, "r", date(2026, 11, 2)), UnknownCustomerError, "hourbook apply"),
        (TopUp("u-pre", 0, "r", date(2026, 11, 2)), ValueError, "more than nothing"),
        (TopUp("u-pre", -5, "r", date(2026, 11, 2)), ValueError, "more than nothing"),
        (TopUp("u-pre", 100, "r", date(2026, 11, 2), "HT-NONE"), LookupError, "HT-NONE"),
        (TopUp("u-pre", 100, "r", date(2026, 11, 2), "HT-LINE"), LookupError, "HT-LINE"),
        (TopUp("u-pre", 100, "r", date(2026, 11, 2), project="llm"), LookupError, "llm"),
    ],
)
def test_money_that_nobody_could_use_is_refused(
    operator: Operator, receipt: TopUp, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        receive(operator.home, receipt)
    assert operator.booked("u-pre") == {}


def test_money_of_a_project_is_used_by_that_project_alone(operator: Operator) -> None:
    operator.top_up("u-pre", "9.00", "r1", "2026-11-02", project="chem")
    operator.used(
        Run("physics", "physics", "2026-11-03T08:00", core_hours=10),
        Run("chem", "chem", "2026-11-03T08:00", core_hours=20),
    )
    balance = operator.balance("u-pre")
    assert (balance.paid_minor, balance.arrears_minor) == (700, 100)


def test_packs_and_grants_are_posted_once_however_often_they_are_applied(operator: Operator) -> None:
    before = operator.booked("u-pack")
    assert before == {"liabilities:contract": -660, "liabilities:vat_pending": -40}
    operator.apply(FACTS)
    assert operator.booked("u-pack") == before
    assert operator.booked("p-grant") == {}


def test_two_packs_may_be_bought_with_one_transfer(operator: Operator) -> None:
    operator.apply(PACK.replace("pack-1", "pack-2"))
    assert operator.booked("u-pack") == {"liabilities:contract": -1320, "liabilities:vat_pending": -80}


@pytest.mark.parametrize(
    "changed",
    [
        PACK.replace("quantity = 100", "quantity = 1000"),
        PACK.replace("bank 1002", "bank 1003"),
        PACK.replace('"7.00"', '"6.00"'),
        GRANT.replace('"5.00"', '"50.00"'),
    ],
)
def test_what_was_sold_or_given_is_never_changed(operator: Operator, changed: str) -> None:
    before = operator.booked()
    with pytest.raises(BusinessKeyConflictError):
        operator.apply(changed)
    assert operator.booked() == before
    operator.used(Run("job", "bio", "2026-11-03T08:00", core_hours=100))
    assert operator.balance("u-pack").arrears_minor == 0
