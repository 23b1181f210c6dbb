"""Stories of what usage means in the books: revenue, VAT by source of the money, receivables, and nothing left over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.accounts import AccountKey
from ledger.accrual import Accrual, ArrearsTax, FundedSource, Standing, accrue
from ledger.drawdown import CreditLine, DayCharge, Grant, Means, OpenArrears, draw_down

from .drawdown_stories import CONTRACT, FIRST, LAST, SIX_PERCENT, Given, all_means, charges, lot, november, use

CUSTOMER = "u-north"
THIRTEEN_PERCENT = Fraction(13, 100)
Books = Mapping[AccountKey, int]


def receipt(name: str, gross_minor: int, *, rate: Fraction = SIX_PERCENT, drawn_before: int = 0) -> FundedSource:
    return FundedSource(name, gross_minor, rate, drawn_before)


def standing(*funded: FundedSource, arrears: Mapping[str, ArrearsTax] | None = None) -> Standing:
    return Standing({source.source_id: source for source in funded}, arrears or {})


def month(usage: Sequence[DayCharge], means: Means, before: Standing) -> Accrual:
    return accrue(CUSTOMER, draw_down(usage, means, first=FIRST, last=LAST), before)


def by_code(books: Books) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for key, amount in books.items():
        sums[key.code] += amount
    return dict(sums)


def of(books: Books, code: str, detail: str) -> int:
    return sum(amount for key, amount in books.items() if key.code == code and key.detail == detail)


def owed_by(books: Books, contract: str) -> int:
    arrears = [(key, amount) for key, amount in books.items() if key.code == "assets:receivable:arrears"]
    return sum(amount for key, amount in arrears if key.detail.split("|")[0] == contract)


def test_prepaid_usage_turns_liability_into_revenue_and_pending_vat_into_payable() -> None:
    accrual = month([use(3, 5_300)], Means((lot("receipt", 10_600),)), standing(receipt("receipt", 10_600)))
    assert by_code(accrual.movements) == {
        "liabilities:contract": 5_000,
        "liabilities:vat_pending": 300,
        "liabilities:vat_payable": -300,
        "income:usage": -5_000,
    }
    assert of(accrual.movements, "income:usage", "core-hour|hpc1") == -5_000
    assert accrual.standing.funded["receipt"].drawn_before_minor == 5_300


def test_usage_on_credit_is_a_receivable_with_vat_pending() -> None:
    means = Means(credit_lines=(CreditLine(CONTRACT, FIRST, LAST, 1_000_000),))
    accrual = month([use(3, 5_300), use(4, 5_300)], means, standing())
    assert by_code(accrual.movements) == {
        "assets:receivable:unbilled": 10_600,
        "liabilities:vat_pending": -600,
        "income:usage": -10_000,
    }
    assert accrual.standing.arrears == {}


def test_vat_on_credit_is_that_of_the_months_gross_not_of_its_days() -> None:
    means = Means(credit_lines=(CreditLine(CONTRACT, FIRST, LAST, 1_000_000),))
    accrual = month([use(day, 8) for day in range(1, 31)], means, standing())
    assert by_code(accrual.movements)["liabilities:vat_pending"] == -14  # 240 × 6/106 = 13.58; 8 × 6/106 is 0 a day


def test_usage_that_nothing_covers_stands_as_arrears_and_is_revenue_all_the_same() -> None:
    accrual = month([use(3, 10_600)], Means(), standing())
    assert by_code(accrual.movements) == {
        "assets:receivable:arrears": 10_600,
        "liabilities:vat_pending": -600,
        "income:usage": -10_000,
    }
    assert accrual.standing.arrears == {CONTRACT: ArrearsTax(10_600, 600)}


def test_usage_covered_by_a_grant_earns_nothing() -> None:
    accrual = month([use(3, 500)], Means(grants=(Grant("trial", "", FIRST, LAST, 800),)), standing())
    assert {(key.code, key.asset): amount for key, amount in accrual.movements.items()} == {
        ("liabilities:grant", "grant:CNY"): 500,
        ("equity:grant_used", "grant:CNY"): -500,
    }


def test_hours_of_a_pack_are_used_up_beside_its_money() -> None:
    drawdown = draw_down([use(3, 106, pack="pack-7")], Means(), first=FIRST, last=LAST)
    before = standing(receipt("pack-7", 1_060))
    accrual = accrue(CUSTOMER, drawdown, before, pack_quantities={("pack-7", "core-hour"): 3_600_000})
    assert {(key.code, key.asset): amount for key, amount in accrual.movements.items()} == {
        ("liabilities:contract", "CNY"): 100,
        ("liabilities:vat_pending", "CNY"): 6,
        ("liabilities:vat_payable", "CNY"): -6,
        ("income:usage", "CNY"): -100,
        ("liabilities:pack", "pack:core-hour"): 3_600_000,
        ("equity:pack_used", "pack:core-hour"): -3_600_000,
    }


def test_revenue_is_split_by_what_was_sold_and_where_it_ran() -> None:
    usage = [use(3, 106), use(3, 212, sku="card-hour", cluster="ai1"), use(4, 106)]
    accrual = month(usage, Means((lot("receipt", 1_000),)), standing(receipt("receipt", 1_000)))
    assert of(accrual.movements, "income:usage", "core-hour|hpc1") == -200
    assert of(accrual.movements, "income:usage", "card-hour|ai1") == -200


def test_usage_at_another_rate_pays_its_own_vat_and_leaves_the_lots_books_right() -> None:
    usage = [use(3, 11_300, tax_rate=THIRTEEN_PERCENT), use(4, 10_600)]
    accrual = month(usage, Means((lot("receipt", 21_900),)), standing(receipt("receipt", 21_900)))
    vat = receipt("receipt", 21_900).tax_minor
    assert of(accrual.movements, "liabilities:vat_pending", "receipt") == vat
    assert of(accrual.movements, "liabilities:contract", "receipt") == 21_900 - vat
    assert by_code(accrual.movements)["liabilities:vat_payable"] == -(1_300 + 600)


def test_a_receipt_that_settles_arrears_makes_their_vat_payable() -> None:
    before = standing(receipt("receipt", 10_600), arrears={CONTRACT: ArrearsTax(5_300, 300)})
    means = Means((lot("receipt", 10_600, received=5),), arrears=(OpenArrears(CONTRACT, "condmat", "2026-10", 5_300),))
    accrual = month([], means, before)
    assert by_code(accrual.movements) == {
        "liabilities:contract": 5_000,
        "liabilities:vat_pending": 300 + 300,
        "liabilities:vat_payable": -300,
        "assets:receivable:arrears": -5_300,
    }
    assert accrual.standing.arrears[CONTRACT] == ArrearsTax(0, 0)


def test_arrears_settled_first_and_then_corrected_away_leave_no_vat_pending() -> None:
    line = f"u-north|{CONTRACT}|core-hour|book|0|2026-10"
    means = Means((lot("receipt", 200, received=2),), arrears=(OpenArrears(CONTRACT, "condmat", "2026-10", 100),))
    before = standing(receipt("receipt", 200), arrears={CONTRACT: ArrearsTax(100, 6)})
    back = use(9, -100, line_id=line, usage_day=date(2026, 10, 20))
    given_before: Given = {line: [("arrears", CONTRACT, 100)]}
    drawdown = draw_down([back], means, first=FIRST, last=LAST, drawn_before=given_before)
    accrual = accrue(CUSTOMER, drawdown, before)
    assert owed_by(accrual.movements, CONTRACT) == -200
    assert by_code(accrual.movements)["income:usage"] == 94
    owed = accrual.standing.arrears[CONTRACT]
    assert owed == ArrearsTax(-100, -6)
    used = accrue(
        CUSTOMER,
        draw_down([use(3, 100)], drawdown.left, first=FIRST, last=LAST),
        accrual.standing,
    )
    assert used.standing.arrears[CONTRACT] == ArrearsTax(0, 0)


def test_a_draw_that_comes_back_posts_the_reverse_in_the_open_period() -> None:
    line = f"u-north|{CONTRACT}|core-hour|book|0|2026-10"
    back = use(9, -5_300, line_id=line, usage_day=date(2026, 10, 20))
    given_before: Given = {line: [("lot", "receipt", 10_600)]}
    means = Means((lot("receipt", 0),))
    drawdown = draw_down([back], means, first=FIRST, last=LAST, drawn_before=given_before)
    accrual = accrue(CUSTOMER, drawdown, standing(receipt("receipt", 10_600, drawn_before=10_600)))
    assert by_code(accrual.movements) == {
        "liabilities:contract": -5_000,
        "liabilities:vat_pending": -300,
        "liabilities:vat_payable": 300,
        "income:usage": 5_000,
    }
    assert accrual.standing.funded["receipt"].drawn_before_minor == 5_300


def funded_by(means: Means, rates: Sequence[Fraction]) -> Standing:
    lots = [
        receipt(lot.source_id, lot.rest_minor, rate=rates[index % len(rates)]) for index, lot in enumerate(means.lots)
    ]
    return standing(*lots)


def two_accruals(usage: Sequence[DayCharge], means: Means, before: Standing, cut: int) -> tuple[Accrual, Accrual]:
    middle = november(cut)
    early = draw_down([charge for charge in usage if charge.day <= middle], means, first=FIRST, last=middle)
    one = accrue(CUSTOMER, early, before)
    rest = [charge for charge in usage if charge.day > middle]
    late = draw_down(rest, early.left, first=middle + timedelta(days=1), last=LAST)
    return one, accrue(CUSTOMER, late, one.standing)


usage_lists = st.lists(charges(corrections=False), max_size=20)
rate_lists = st.lists(st.sampled_from([SIX_PERCENT, THIRTEEN_PERCENT, Fraction(0)]), min_size=1, max_size=4)
no_pending = ArrearsTax(0, 0)


@given(usage_lists, all_means(), rate_lists)
@settings(max_examples=60, deadline=None)
def test_an_accrual_balances_in_every_asset(usage: list[DayCharge], means: Means, rates: list[Fraction]) -> None:
    accrual = month(usage, means, funded_by(means, rates))
    sums: dict[str, int] = defaultdict(int)
    for key, amount in accrual.movements.items():
        sums[key.asset] += amount
    assert not any(sums.values())
    drawn = sum(part.gross_minor for part in accrual.parts)
    assert drawn == sum(charge.amount_minor for charge in usage)


@given(usage_lists, all_means(), rate_lists, st.integers(1, 29))
@settings(max_examples=60, deadline=None)
def test_accruing_twice_leaves_the_lots_where_accruing_once_does(
    usage: list[DayCharge], means: Means, rates: list[Fraction], cut: int
) -> None:
    before = funded_by(means, rates)
    whole = month(usage, means, before)
    one, two = two_accruals(usage, means, before, cut)
    for source_id, source in whole.standing.funded.items():
        assert two.standing.funded[source_id] == source
        for code in ("liabilities:contract", "liabilities:vat_pending"):
            in_two = of(one.movements, code, source_id) + of(two.movements, code, source_id)
            assert in_two == of(whole.movements, code, source_id)


@given(usage_lists, st.lists(st.integers(1, 9_999), min_size=1, max_size=3), rate_lists, st.integers(1, 29))
@settings(max_examples=60, deadline=None)
def test_the_last_cent_of_a_lot_closes_its_liability_and_its_vat(
    usage: list[DayCharge], receipts: list[int], rates: list[Fraction], cut: int
) -> None:
    lots = [replace(lot(f"lot-{i}", gross, received=i + 1), contract="") for i, gross in enumerate(receipts)]
    means = Means(tuple(lots))
    before = funded_by(means, rates)
    exhausting = [*usage, use(30, 10_000_000)]
    accruals = two_accruals(exhausting, means, before, cut)
    for source_id, source in before.funded.items():
        vat = sum(of(accrual.movements, "liabilities:vat_pending", source_id) for accrual in accruals)
        net = sum(of(accrual.movements, "liabilities:contract", source_id) for accrual in accruals)
        assert (net, vat) == (source.gross_minor - source.tax_minor, source.tax_minor)


@given(usage_lists, st.integers(1, 29))
@settings(max_examples=60, deadline=None)
def test_arrears_settled_in_full_leave_no_vat_pending(usage: list[DayCharge], cut: int) -> None:
    rich = replace(lot("rich", 10_000_000, received=30), contract="")
    means = Means((rich,))
    accruals = two_accruals(usage, means, standing(receipt("rich", 10_000_000)), cut)
    for contract, owed in accruals[1].standing.arrears.items():
        assert owed == no_pending
        pending = sum(of(accrual.movements, "liabilities:vat_pending", f"arrears:{contract}") for accrual in accruals)
        assert pending == 0


@given(st.lists(charges(), max_size=20), all_means(), st.integers(1, 29))
@settings(max_examples=80, deadline=None)
def test_pending_vat_on_arrears_is_what_the_standing_says_and_none_when_they_are_square(
    usage: list[DayCharge], means: Means, cut: int
) -> None:
    accruals = two_accruals(usage, means, funded_by(means, [SIX_PERCENT]), cut)
    for contract, owed in accruals[1].standing.arrears.items():
        pending = sum(of(accrual.movements, "liabilities:vat_pending", f"arrears:{contract}") for accrual in accruals)
        assert pending == -owed.tax_minor
        assert sum(owed_by(accrual.movements, contract) for accrual in accruals) == owed.gross_minor
        assert owed.gross_minor or not owed.tax_minor


@given(st.lists(charges(), max_size=20), all_means())
@settings(max_examples=60, deadline=None)
def test_arrears_left_open_are_those_in_the_books_one_by_one(usage: list[DayCharge], means: Means) -> None:
    drawdown = draw_down(usage, means, first=FIRST, last=LAST)
    books = accrue(CUSTOMER, drawdown, funded_by(means, [SIX_PERCENT])).movements
    left = {f"{owed.contract}|{owed.project}|{owed.month}": owed.amount_minor for owed in drawdown.left.arrears}
    assert left == {key.detail: amount for key, amount in books.items() if key.code == "assets:receivable:arrears"}


@given(st.lists(charges(), max_size=20), all_means(), rate_lists, st.integers(1, 9_000))
@settings(max_examples=80, deadline=None)
def test_a_lots_books_follow_what_is_drawn_in_all_also_when_draws_come_back(
    usage: list[DayCharge], means: Means, rates: list[Fraction], drawn_before: int
) -> None:
    funded = {
        lot.source_id: receipt(
            lot.source_id, lot.rest_minor + drawn_before, rate=rates[index % len(rates)], drawn_before=drawn_before
        )
        for index, lot in enumerate(means.lots)
    }
    given_before: Given = {
        f"u-north|{contract}|core-hour|book|0|2026-10": [
            ("lot", lot.source_id, drawn_before) for lot in means.lots if lot.contract == contract
        ]
        for contract in (CONTRACT, "HT-2")
    }
    drawdown = draw_down(usage, means, first=FIRST, last=LAST, drawn_before=given_before)
    accrual = accrue(CUSTOMER, drawdown, Standing(funded, {}))
    for lot_left in drawdown.left.lots:
        before, after = funded[lot_left.source_id], accrual.standing.funded[lot_left.source_id]
        assert after.gross_minor - after.drawn_before_minor == lot_left.rest_minor
        tax = after.released_tax(after.drawn_before_minor) - before.released_tax(before.drawn_before_minor)
        gross = after.drawn_before_minor - before.drawn_before_minor
        assert of(accrual.movements, "liabilities:vat_pending", lot_left.source_id) == tax
        assert of(accrual.movements, "liabilities:contract", lot_left.source_id) == gross - tax
