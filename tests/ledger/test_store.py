"""The ledger's tables: once per business fact, never below a lot's floor, nothing lost between writers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import IntegrityError

from hourbook.audit import verify
from hourbook.database import read_session, write_session
from hourbook.settings import Home
from ledger.accounts import AccountKey, grant_asset, pack_asset
from ledger.funding import FundingSource
from ledger.journal import GENESIS, Transaction
from ledger.store import (
    BusinessKeyConflictError,
    InsufficientFundsError,
    Posted,
    ReversalError,
    balances,
    funding_sources,
    head,
    movements,
    post,
    post_with_sources,
    transactions,
)
from tests.homes import NewHome

from .ledger_stories import (
    ARREARS,
    BANK,
    DAY,
    LOT,
    NOW,
    REVENUE,
    balance,
    charge,
    charge_of_nothing,
    posted,
    top_up,
    transaction,
)


@pytest.fixture
def home(new_home: NewHome, tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", NOW)


def everything(engine: Engine) -> dict[str, Sequence[Any]]:
    """Every row of every table of the ledger."""
    with engine.connect() as connection:
        names = inspect(connection).get_table_names()
        rows = {name: connection.exec_driver_sql(f"SELECT * FROM {name}").all() for name in names}  # noqa: S608
    # A table's rows have no order of their own.
    return {name: sorted(found, key=repr) for name, found in rows.items()}


def test_a_charge_moves_money_from_the_lot_to_revenue(home: Home) -> None:
    top_up(home.engine)
    posted(home.engine, charge("accrual:1", 53))
    with read_session(home.engine) as session:
        assert balances(session) == {BANK: 100, LOT: -47, REVENUE: -53}
    assert verify(home.engine) == []


def test_sequences_count_from_one_and_each_link_ends_the_chain(home: Home) -> None:
    with read_session(home.engine) as session:
        assert head(session) == (0, GENESIS)
    first, second = posted(home.engine, transaction("a", {BANK: 1, REVENUE: -1}), charge_of_nothing("b"))
    with read_session(home.engine) as session:
        assert (first.sequence, second.sequence) == (1, 2)
        assert head(session) == (2, second.hash)
        assert head(session, up_to_seq=1) == (1, first.hash)


def test_a_business_fact_posted_again_answers_with_the_first_result(home: Home) -> None:
    (first,) = posted(home.engine, charge_of_nothing("b"))
    before = everything(home.engine)
    (again,) = posted(home.engine, charge_of_nothing("b"))
    assert again == Posted(first.sequence, first.hash, repeated=True)
    assert everything(home.engine) == before


def test_a_business_fact_with_another_content_is_refused(home: Home) -> None:
    posted(home.engine, charge_of_nothing("b"))
    before = everything(home.engine)
    with pytest.raises(BusinessKeyConflictError, match=r"'b' is already posted \(transaction 1\)"):
        posted(home.engine, transaction("b", {ARREARS: 2, REVENUE: -2}))
    assert everything(home.engine) == before


def test_a_charge_takes_a_lots_last_cent_and_not_one_more(home: Home) -> None:
    top_up(home.engine)
    posted(home.engine, charge("accrual:1", 99), charge("accrual:2", 1))
    with pytest.raises(InsufficientFundsError, match=r"lot-1 CNY has 0 left.*1 cannot be taken") as refused:
        posted(home.engine, charge("accrual:3", 1))
    assert (refused.value.account, refused.value.available, refused.value.wanted) == (LOT, 0, 1)


@pytest.mark.parametrize("code", ["liabilities:pack", "liabilities:grant"])
def test_packs_and_grants_have_a_floor_too(home: Home, code: str) -> None:
    asset = pack_asset("core-hour") if code.endswith("pack") else grant_asset("CNY")
    source, issued = (
        AccountKey(code, "u-north", asset, "s1"),
        AccountKey(f"{code}_issued".replace("liabilities", "equity"), asset=asset),
    )
    posted(home.engine, transaction("a", {issued: 5, source: -5}))
    used = AccountKey(issued.code.replace("issued", "used"), asset=asset)
    with pytest.raises(InsufficientFundsError):
        posted(home.engine, transaction("b", {source: 6, used: -6}))


def test_arrears_and_bank_may_stand_on_either_side(home: Home) -> None:
    posted(home.engine, transaction("a", {ARREARS: -7, BANK: 7}), transaction("b", {ARREARS: 9, BANK: -9}))
    assert balance(home.engine, BANK) == -2


def test_what_is_refused_leaves_nothing_even_if_the_caller_goes_on(home: Home) -> None:
    top_up(home.engine)
    before = everything(home.engine)
    with write_session(home.engine) as session:
        with pytest.raises(InsufficientFundsError):
            post(session, transaction("a", {ARREARS: -1, LOT: 101, REVENUE: -100}), NOW)
        # The caller may split the charge again and post that.
        assert session.connection().execute(text("SELECT count(*) FROM posting")).scalar() == 2
    assert everything(home.engine) == before
    posted(home.engine, transaction("a", {LOT: 100, ARREARS: 1, REVENUE: -101}))
    assert verify(home.engine) == []


def test_nothing_counts_until_the_caller_commits(home: Home) -> None:
    before = everything(home.engine)

    def post_and_crash() -> None:
        with write_session(home.engine) as session:
            post(session, charge_of_nothing("b"), NOW)
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        post_and_crash()
    assert everything(home.engine) == before


def test_a_counter_never_reaches_two_to_the_sixty_second(home: Home) -> None:
    posted(home.engine, transaction("a", {BANK: 2**62 - 1, REVENUE: 1 - 2**62}))
    before = everything(home.engine)
    with pytest.raises(IntegrityError):
        posted(home.engine, transaction("b", {BANK: 1, REVENUE: -1}))
    assert everything(home.engine) == before


def test_a_transaction_is_undone_once_and_by_its_exact_opposite(home: Home) -> None:
    top_up(home.engine)
    original = charge("accrual:1", 60)
    undo = original.reversed(effective_on=DAY, narration="wrong customer")
    with pytest.raises(ReversalError, match="never posted"):
        posted(home.engine, undo)
    posted(home.engine, original, undo)
    assert balance(home.engine, LOT) == -100
    with pytest.raises(ReversalError, match="already reversed"):
        posted(home.engine, original.reversed(effective_on=DAY, narration="again", business_key="second"))
    other = transaction("accrual:2", {ARREARS: 1, REVENUE: -1})
    half = transaction("half", {ARREARS: -2, REVENUE: 2})
    with pytest.raises(ReversalError, match="exact opposite"):
        posted(home.engine, other, Transaction(**{**half.__dict__, "reverses": "accrual:2"}))
    assert verify(home.engine) == []


def test_balances_are_known_as_of_every_transaction(home: Home) -> None:
    top_up(home.engine)
    posted(home.engine, charge("accrual:1", 53), charge("accrual:2", 7))
    with read_session(home.engine) as session:
        assert balances(session, code="liabilities:contract", up_to_seq=2) == {LOT: -47}
        assert balances(session, customer="u-north", up_to_seq=3) == balances(session, customer="u-north")
        assert balances(session, exclude_kinds=["accrual"]) == {BANK: 100, LOT: -100}
        assert balances(session, up_to_seq=0) == {}
        assert balances(session, customer="c-acme") == {}


def test_movements_of_a_customers_accruals_have_every_leg(home: Home) -> None:
    top_up(home.engine)
    december = transaction("accrual:d", {LOT: 4, REVENUE: -4}, "accrual", period="2026-12")
    posted(home.engine, charge("accrual:1", 53), charge("accrual:2", 7), december)
    with read_session(home.engine) as session:
        accrued = partial(movements, session, customer="u-north", kinds=["accrual"])
        assert accrued(periods=["2026-11"]) == {LOT: 60, REVENUE: -60}
        assert accrued(periods=["2026-11", "2026-12"]) == {LOT: 64, REVENUE: -64}
        assert accrued(up_to_seq=2) == {LOT: 53, REVENUE: -53}
        assert movements(session, customer="c-acme") == {}


def test_transactions_read_back_as_they_were_posted(home: Home) -> None:
    original = charge_of_nothing("b")
    undo = original.reversed(effective_on=DAY, narration="undone")
    results = posted(home.engine, original, undo)
    with read_session(home.engine) as session:
        found = transactions(session)
        assert [each.transaction for each in found] == [original, undo]
        assert [(each.sequence, each.hash) for each in found] == [(each.sequence, each.hash) for each in results]
        assert found[0].recorded_at == NOW
        assert [each.sequence for each in transactions(session, business_key="b")] == [1]
        assert transactions(session, kinds=["receipt"]) == []


def test_a_receipt_makes_its_lot_once(home: Home) -> None:
    lot = FundingSource("lot-1", "lot", "u-north", "HT-1", "bank 7", DAY, gross_minor=100, tax_rate=Decimal("0.06"))
    receipt = transaction("receipt:1", {BANK: 100, LOT: -100}, "receipt")
    for _ in range(2):
        with write_session(home.engine) as session:
            post_with_sources(session, receipt, [lot], NOW)
    with read_session(home.engine) as session:
        assert funding_sources(session) == [lot]
        assert funding_sources(session, customer="c-acme") == []
        assert funding_sources(session, up_to_seq=0) == []
    other = FundingSource("lot-1", "lot", "u-north", "HT-1", "bank 7", DAY, gross_minor=101, tax_rate=Decimal("0.06"))
    with pytest.raises(BusinessKeyConflictError), write_session(home.engine) as session:
        post_with_sources(session, receipt, [other], NOW)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_transaction SET narration = 'x'",
        "UPDATE ledger_transaction SET reverses = NULL WHERE reverses IS NULL",
        "DELETE FROM ledger_transaction",
        "UPDATE posting SET amount_minor = amount_minor + 1",
        "DELETE FROM posting",
        "UPDATE funding_source SET last_day = '2030-01-01'",
        "DELETE FROM funding_source",
        "UPDATE ledger_account SET customer = 'c-acme'",
        "DELETE FROM ledger_account",
        "INSERT INTO posting SELECT * FROM posting WHERE true ON CONFLICT (sequence, line) DO UPDATE SET line = 9",
        "INSERT INTO ledger_account SELECT * FROM ledger_account WHERE true ON CONFLICT (id) DO UPDATE SET detail = ''",
    ],
)
def test_plain_sql_cannot_change_what_is_recorded(home: Home, statement: str) -> None:
    refuse(home, statement)


@pytest.mark.parametrize("new_home", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "statement",
    [
        "REPLACE INTO posting SELECT sequence, line, owner, account_id, side, 1, 1, account_version FROM posting",
        "REPLACE INTO posting SELECT 1, 99, owner, account_id, side, 1, 1, account_version FROM posting",
        "REPLACE INTO funding_source SELECT * FROM funding_source",
        "REPLACE INTO ledger_account SELECT * FROM ledger_account",
    ],
)
def test_sqlites_own_way_to_replace_a_row_is_refused_too(home: Home, statement: str) -> None:
    refuse(home, statement)


@pytest.mark.parametrize("new_home", ["postgresql"], indirect=True)
@pytest.mark.parametrize("table", ["posting", "ledger_transaction, ledger_account", "document"])
def test_postgresqls_own_way_to_empty_a_table_is_refused_too(home: Home, table: str) -> None:
    refuse(home, f"TRUNCATE {table} CASCADE")


def refuse(home: Home, statement: str) -> None:
    lot = FundingSource("lot-1", "lot", "u-north", "HT-1", "bank 7", DAY, gross_minor=100)
    with write_session(home.engine) as session:
        post_with_sources(session, transaction("receipt:1", {BANK: 100, LOT: -100}), [lot], NOW)
    before = everything(home.engine)
    with pytest.raises(IntegrityError, match="append-only"), write_session(home.engine) as session:
        session.connection().exec_driver_sql(statement)
    assert everything(home.engine) == before


def test_a_lost_update_has_no_row_to_be_stored_in(home: Home) -> None:
    posted(home.engine, charge_of_nothing("a"), charge_of_nothing("b"))
    again = "INSERT INTO posting SELECT sequence, 9, owner, account_id, side, 1, 1, 1 FROM posting WHERE sequence = 2"
    with pytest.raises(IntegrityError), write_session(home.engine) as session:
        session.connection().exec_driver_sql(again)


ACCOUNTS = (BANK, REVENUE, ARREARS, LOT, AccountKey("liabilities:due_to_customers", "u-north"))
MOVES = st.lists(
    st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS), st.integers(1, 500)), min_size=1, max_size=12
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES)
def test_balances_are_the_fold_of_what_was_accepted(
    new_home: NewHome, tmp_path_factory: pytest.TempPathFactory, moves: list[Any]
) -> None:
    home = new_home(tmp_path_factory.mktemp("fold") / "home", NOW)
    model: dict[AccountKey, int] = dict.fromkeys(ACCOUNTS, 0)
    with write_session(home.engine) as session:
        for number, (debited, credited, amount) in enumerate(moves):
            if debited == credited:
                continue
            overdrawn = debited == LOT and -model[LOT] < amount
            try:
                post(session, transaction(f"move:{number}", {debited: amount, credited: -amount}), NOW)
            except InsufficientFundsError:
                assert overdrawn
                continue
            assert not overdrawn
            model[debited] += amount
            model[credited] -= amount
    with read_session(home.engine) as session:
        stored, folded = balances(session), balances(session, up_to_seq=10**6)
    assert {account: stored.get(account, 0) for account in ACCOUNTS} == model
    assert {account: folded.get(account, 0) for account in ACCOUNTS} == model
    assert verify(home.engine) == []
    home.close()


def test_a_transaction_may_have_thousands_of_legs(home: Home) -> None:
    moved = {AccountKey("income:usage", detail=f"sku-{number}|hpc1"): -number for number in range(1, 2501)}
    wide = transaction("wide", {**moved, ARREARS: -sum(moved.values())})
    posted(home.engine, wide)
    assert balance(home.engine, ARREARS) == 2500 * 2501 // 2
    assert verify(home.engine) == []


def test_recorded_time_is_kept_to_the_microsecond(home: Home) -> None:
    late = NOW + timedelta(microseconds=7)
    with write_session(home.engine) as session:
        post(session, charge_of_nothing("a"), late)
    with read_session(home.engine) as session:
        assert transactions(session)[0].recorded_at == late
    assert verify(home.engine) == []
