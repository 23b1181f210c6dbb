"""A transaction balances or is refused, and its link of the chain changes with anything in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.accounts import AccountKey, UnknownAccountError, grant_asset, normal_balance, pack_asset
from ledger.journal import (
    GENESIS,
    MixedCustomersError,
    Posting,
    Transaction,
    UnbalancedError,
    canonical_json,
    chain_hash,
    transaction_from_movements,
)

DAY = date(2026, 11, 3)
BANK = AccountKey("assets:bank")
LOT = AccountKey("liabilities:contract", "u-north", detail="lot-1")
VAT = AccountKey("liabilities:vat_pending", "u-north", detail="lot-1")


def top_up(**changes: object) -> Transaction:
    """106 received, 6 of it VAT."""
    receipt = transaction_from_movements(
        "receipt",
        "receipt:u-north:bank-7",
        {BANK: 10_600, LOT: -10_000, VAT: -600},
        effective_on=DAY,
        narration="top-up",
        metadata={"period": "2026-11"},
    )
    return replace(receipt, **cast("Any", changes))


def test_a_top_up_debits_the_bank_and_credits_the_lot_and_its_vat() -> None:
    assert top_up().postings == (
        Posting(BANK, "debit", 10_600),
        Posting(LOT, "credit", 10_000),
        Posting(VAT, "credit", 600),
    )
    assert top_up().customer == "u-north"
    assert top_up().period == "2026-11"


def test_debits_that_differ_from_credits_by_one_cent_are_refused() -> None:
    with pytest.raises(UnbalancedError, match=r"exceed credits by 1 in CNY"):
        top_up(postings=(Posting(BANK, "debit", 10_601), Posting(LOT, "credit", 10_600)))


def test_assets_balance_each_by_itself() -> None:
    hours = AccountKey("liabilities:pack", "u-north", pack_asset("core-hour"), "pack-1")
    with pytest.raises(UnbalancedError, match="CNY"):
        top_up(postings=(Posting(BANK, "debit", 5), Posting(hours, "credit", 5)))


@pytest.mark.parametrize("amount", [0, -1, 2**62, 1.5, True])
def test_an_amount_that_is_no_positive_whole_number_is_refused(amount: Any) -> None:  # noqa: ANN401
    with pytest.raises(UnbalancedError):
        Posting(BANK, "debit", amount)


def test_a_side_is_debit_or_credit() -> None:
    with pytest.raises(UnbalancedError, match="side"):
        Posting(BANK, cast("Any", "plus"), 1)


def test_fewer_than_two_postings_are_refused() -> None:
    with pytest.raises(UnbalancedError, match="at least two"):
        top_up(postings=())


def test_an_account_stands_once_in_a_transaction() -> None:
    legs = (Posting(BANK, "debit", 5), Posting(BANK, "credit", 5))
    with pytest.raises(UnbalancedError, match="stands twice"):
        top_up(postings=legs)


@pytest.mark.parametrize("field", ["kind", "business_key"])
def test_a_transaction_names_its_kind_and_its_business_fact(field: str) -> None:
    with pytest.raises(UnbalancedError, match="needs a kind"):
        top_up(**{field: ""})


@pytest.mark.parametrize("value", [1.5, None, True, ["a"]])
def test_metadata_holds_text_and_whole_numbers_only(value: object) -> None:
    with pytest.raises(UnbalancedError, match="metadata"):
        top_up(metadata={"rate": value})


def test_a_misspelt_account_or_asset_is_refused_when_it_is_named() -> None:
    with pytest.raises(UnknownAccountError, match="chart of accounts"):
        AccountKey("assets:bnak")
    for asset in ("XYZ", "pack:", "grant:XYZ", "cny"):
        with pytest.raises(UnknownAccountError, match="no asset"):
            AccountKey("assets:bank", asset=asset)
    assert AccountKey("liabilities:grant", asset=grant_asset("CNY"))


def test_what_a_lot_holds_is_positive_to_its_reader() -> None:
    assert normal_balance(LOT, -10_000) == 10_000
    assert normal_balance(BANK, 10_600) == 10_600


def test_a_transfer_between_two_customers_belongs_to_neither() -> None:
    other = replace(LOT, customer="c-acme")
    legs = (Posting(LOT, "debit", 5), Posting(other, "credit", 5))
    assert top_up(kind="transfer", postings=legs).customer == ""
    with pytest.raises(MixedCustomersError, match="c-acme and u-north"):
        top_up(postings=legs)


def test_a_reversal_is_the_opposite_and_says_what_it_reverses() -> None:
    undo = top_up().reversed(effective_on=DAY, narration="bounced")
    assert undo.movements() == {account: -amount for account, amount in top_up().movements().items()}
    assert (undo.reverses, undo.business_key) == (top_up().business_key, "reversal:receipt:u-north:bank-7")


def test_the_same_request_has_the_same_fingerprint_in_any_order_of_legs() -> None:
    assert top_up().request_hash() == top_up(postings=top_up().postings[::-1]).request_hash()
    assert top_up().request_hash() == top_up(idempotency_key="try-2").request_hash()


@pytest.mark.parametrize(
    "changes",
    [
        {"narration": "top up"},
        {"effective_on": date(2026, 11, 4)},
        {"kind": "grant"},
        {"metadata": {"period": "2026-12"}},
        {"reverses": "x"},
        {"postings": (Posting(BANK, "debit", 10_600), Posting(LOT, "credit", 10_600))},
    ],
)
def test_another_content_has_another_fingerprint(changes: dict[str, object]) -> None:
    assert top_up().request_hash() != top_up(**changes).request_hash()


def test_each_part_of_a_link_changes_its_hash() -> None:
    body = canonical_json({"a": 1})
    links = {
        chain_hash(1, GENESIS, body),
        chain_hash(2, GENESIS, body),
        chain_hash(1, "1" * 64, body),
        chain_hash(1, GENESIS, canonical_json({"a": 2})),
        chain_hash(1, GENESIS, b""),
    }
    assert len(links) == 5


def test_the_chain_is_what_its_description_says() -> None:
    # Computed by hand from the description: a change of the format must not pass unseen.
    assert chain_hash(1, GENESIS, b"{}") == "3c46d1619f678fc3176420e36adaf24c4d4977538619d1509881f3ea47b869b8"


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=12))
def test_movements_come_back_from_their_postings(amounts: list[int]) -> None:
    movements = {AccountKey("income:usage", detail=str(i)): amount for i, amount in enumerate(amounts)}
    movements[BANK] = -sum(amounts)
    moved = {account: amount for account, amount in movements.items() if amount}
    if moved:
        made = transaction_from_movements("test", "key", movements, effective_on=DAY, narration="")
        assert made.movements() == moved
        assert all(posting.amount_minor > 0 for posting in made.postings)
