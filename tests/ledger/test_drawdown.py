"""Stories of how charges fall on packs, grants, receipts, credit and arrears."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.drawdown import CreditLine, DayCharge, Drawdown, Grant, Lot, Means, OpenArrears, draw_down

from .drawdown_stories import (
    CONTRACT,
    FIRST,
    LAST,
    Given,
    all_means,
    charges,
    drawn,
    lot,
    november,
    use,
    without_given_back,
)

OCTOBER_LINE = f"u-north|{CONTRACT}|core-hour|book|0|2026-10"
CREDIT = CreditLine(CONTRACT, FIRST, LAST, 300)


def month(usage: Sequence[DayCharge], means: Means, given_before: Given | None = None) -> Drawdown:
    return draw_down(usage, means, first=FIRST, last=LAST, drawn_before=given_before)


def correction(day: int, amount_minor: int, *, project: str = "condmat") -> DayCharge:
    return use(day, -amount_minor, project=project, usage_day=date(2026, 10, 20), line_id=OCTOBER_LINE)


def open_arrears(drawdown: Drawdown) -> int:
    return sum(owed.amount_minor for owed in drawdown.left.arrears)


def test_a_charge_draws_pack_then_grant_then_receipt_then_credit_then_arrears() -> None:
    means = Means((lot("receipt", 200),), (Grant("trial", "", FIRST, None, 100),), (CREDIT,))
    result = month([use(2, 50, pack="pack-7"), use(3, 1_000)], means)
    assert drawn(result) == {
        ("pack", "pack-7"): 50,
        ("grant", "trial"): 100,
        ("lot", "receipt"): 200,
        ("credit", CONTRACT): 300,
        ("arrears", CONTRACT): 400,
    }
    assert [draw.kind for draw in result.draws] == ["pack", "grant", "lot", "credit", "arrears"]


def test_project_money_is_used_only_by_its_project_and_before_other_money() -> None:
    means = Means((lot("anyone", 500), lot("astro-only", 500, project="astro", received=2)))
    result = month([use(3, 100, project="astro"), use(3, 700, project="condmat")], means)
    assert drawn(result) == {("lot", "astro-only"): 100, ("lot", "anyone"): 500, ("arrears", CONTRACT): 200}


def test_money_that_ends_earlier_is_used_first_and_of_equal_ends_the_older() -> None:
    means = Means((lot("no-end", 100), lot("young", 100, received=3, last=20), lot("old", 100, received=2, last=20)))
    result = month([use(4, 150), use(5, 100)], means)
    assert [(draw.source_id, draw.amount_minor) for draw in result.draws] == [
        ("old", 100),
        ("young", 50),
        ("young", 50),
        ("no-end", 50),
    ]


def test_expired_money_still_covers_late_usage_from_before_its_last_day() -> None:
    means = Means((lot("project-money", 100, last=10),))
    result = month([use(15, 60, usage_day=november(10)), use(15, 20, usage_day=november(11))], means)
    assert drawn(result) == {("lot", "project-money"): 60, ("arrears", CONTRACT): 20}


def test_a_grant_covers_nothing_used_before_it_was_given() -> None:
    means = Means(grants=(Grant("trial", "", november(10), november(20), 100),))
    result = month([use(9, 10), use(10, 20), use(25, 30, usage_day=november(20)), use(25, 5)], means)
    assert drawn(result) == {("arrears", CONTRACT): 15, ("grant", "trial"): 50}


def test_a_receipt_settles_the_arrears_of_its_scope_oldest_first() -> None:
    owed = (
        OpenArrears(CONTRACT, "condmat", "2026-10", 80),
        OpenArrears(CONTRACT, "astro", "2026-09", 70),
        OpenArrears(CONTRACT, "condmat", "2026-08", 50),
        OpenArrears("HT-2", "condmat", "2026-07", 90),
    )
    result = month([], Means((lot("receipt", 100, received=5, project="condmat"),), arrears=owed))
    assert [(s.month, s.amount_minor, s.day) for s in result.settlements] == [
        ("2026-08", 50, november(5)),
        ("2026-10", 50, november(5)),
    ]
    assert {(o.contract, o.month): o.amount_minor for o in result.left.arrears} == {
        (CONTRACT, "2026-09"): 70,
        (CONTRACT, "2026-10"): 30,
        ("HT-2", "2026-07"): 90,
    }


def test_of_two_receipts_on_one_day_project_money_settles_first() -> None:
    lots = (lot("a-any", 100, received=5), lot("b-condmat", 100, received=5, project="condmat"))
    result = month([], Means(lots, arrears=(OpenArrears(CONTRACT, "condmat", "2026-10", 80),)))
    assert [(s.lot, s.amount_minor) for s in result.settlements] == [("b-condmat", 80)]


def test_an_empty_wallet_never_stops_a_charge_and_the_next_receipt_settles_it() -> None:
    result = month([use(2, 120), use(20, 10)], Means((lot("receipt", 200, received=9),)))
    assert drawn(result) == {("arrears", CONTRACT): 120, ("lot", "receipt"): 10}
    assert [(s.lot, s.amount_minor, s.month) for s in result.settlements] == [("receipt", 120, "2026-11")]
    assert result.left.lots[0].rest_minor == 70
    assert result.left.arrears == ()


def test_a_receipt_recorded_after_the_close_settles_what_stood_open_at_the_opening() -> None:
    late = Lot("october-receipt", CONTRACT, "", date(2026, 10, 30), None, 100)
    result = month([], Means((late,), arrears=(OpenArrears(CONTRACT, "condmat", "2026-10", 40),)))
    assert [(s.day, s.amount_minor) for s in result.settlements] == [(FIRST, 40)]


def test_expired_money_does_not_settle_what_was_used_after_its_last_day() -> None:
    expired = Lot("september-money", CONTRACT, "", date(2026, 9, 1), date(2026, 10, 15), 100)
    owed = (OpenArrears(CONTRACT, "condmat", "2026-10", 40),)
    result = month([use(2, 10)], Means((expired,), arrears=owed))
    assert result.settlements == ()
    assert result.left.lots[0].rest_minor == 100


def test_usage_on_credit_stands_as_arrears_beyond_the_limit_and_a_payment_frees_credit_again() -> None:
    paid = replace(CREDIT, payments=((november(10), 250),))
    result = month([use(2, 400), use(9, 10), use(10, 200), use(11, 100)], Means(credit_lines=(paid,)))
    assert [(draw.charge.day.day, draw.kind, draw.amount_minor) for draw in result.draws] == [
        (2, "credit", 300),
        (2, "arrears", 100),
        (9, "arrears", 10),
        (10, "credit", 200),
        (11, "credit", 50),
        (11, "arrears", 50),
    ]


def test_a_credit_line_covers_only_its_own_days_and_contract() -> None:
    line = CreditLine(CONTRACT, november(10), november(20), 300)
    usage = [use(9, 1), use(10, 2), use(20, 4), use(21, 8), use(15, 16, contract="HT-2")]
    result = month(usage, Means(credit_lines=(line,)))
    assert drawn(result) == {("arrears", CONTRACT): 9, ("credit", CONTRACT): 6, ("arrears", "HT-2"): 16}


def test_a_correction_gives_back_what_was_taken_last_first() -> None:
    before: Given = {OCTOBER_LINE: [("grant", "trial", 40), ("lot", "receipt", 50), ("credit", CONTRACT, 60)]}
    means = Means((lot("receipt", 0),), (Grant("trial", "", FIRST, None, 0),), (CREDIT,))
    result = month([correction(3, 130)], means, before)
    assert [(draw.kind, draw.amount_minor) for draw in result.draws] == [("credit", -60), ("lot", -50), ("grant", -20)]
    assert result.left.lots[0].rest_minor == 50
    assert result.left.grants[0].rest_minor == 20
    assert result.left.credit_lines[0].rest_minor == 360


def test_what_an_earlier_correction_gave_back_is_not_given_back_again() -> None:
    before: Given = {OCTOBER_LINE: [("grant", "trial", 40), ("lot", "receipt", 50), ("lot", "receipt", -30)]}
    means = Means((lot("receipt", 0),), (Grant("trial", "", FIRST, None, 0),))
    result = month([correction(3, 35)], means, before)
    assert [(draw.kind, draw.amount_minor) for draw in result.draws] == [("lot", -20), ("grant", -15)]


def test_a_correction_of_a_pack_goes_back_to_the_pack() -> None:
    before: Given = {OCTOBER_LINE: [("pack", "pack-7", 50)]}
    result = month([replace(correction(3, 20), pack="pack-7")], Means(), before)
    assert drawn(result) == {("pack", "pack-7"): -20}


def test_a_correction_of_one_project_does_not_return_another_projects_money() -> None:
    before: Given = {OCTOBER_LINE: [("lot", "anyone", 100), ("lot", "astro-only", 100)]}
    means = Means((lot("anyone", 0), lot("astro-only", 0, project="astro")))
    assert drawn(month([correction(3, 30)], means, before)) == {("lot", "anyone"): -30}
    assert drawn(month([correction(3, 30, project="astro")], means, before)) == {("lot", "astro-only"): -30}


def test_a_correction_lowers_open_arrears_so_that_a_receipt_pays_only_what_is_owed() -> None:
    owed = (OpenArrears(CONTRACT, "condmat", "2026-10", 100),)
    means = Means((lot("receipt", 100, received=5),), arrears=owed)
    result = month([correction(3, 30)], means, {OCTOBER_LINE: [("arrears", CONTRACT, 100)]})
    assert [s.amount_minor for s in result.settlements] == [70]
    assert result.left.lots[0].rest_minor == 30
    assert open_arrears(result) == 0


def test_a_correction_of_settled_arrears_is_a_credit_that_the_next_charge_uses() -> None:
    owed = (OpenArrears(CONTRACT, "condmat", "2026-10", 100),)
    means = Means((lot("receipt", 500, received=2),), arrears=owed)
    result = month([correction(3, 30), use(4, 50)], means, {OCTOBER_LINE: [("arrears", CONTRACT, 100)]})
    assert [(draw.kind, draw.amount_minor) for draw in result.draws] == [("arrears", -30), ("arrears", 30), ("lot", 20)]
    assert open_arrears(result) == 0


def test_money_that_a_correction_gives_back_settles_arrears() -> None:
    means = Means((lot("receipt", 0),))
    result = month([use(2, 80), correction(3, 100)], means, {OCTOBER_LINE: [("lot", "receipt", 100)]})
    assert [(s.day, s.amount_minor) for s in result.settlements] == [(november(3), 80)]
    assert result.left.lots[0].rest_minor == 20
    assert result.left.arrears == ()


def test_the_days_charges_are_drawn_in_order_of_sku_project_and_user() -> None:
    usage = [
        use(2, 10, sku="core-hour", user="zoe"),
        use(2, 10, sku="core-hour", user="bob"),
        use(2, 10, sku="core-hour", project="astro"),
        use(2, 10, sku="card-hour", project="zzz"),
    ]
    order = [(d.charge.sku, d.charge.project, d.charge.user) for d in month(usage, Means()).draws]
    assert order == [
        ("card-hour", "zzz", "alice"),
        ("core-hour", "astro", "alice"),
        ("core-hour", "condmat", "bob"),
        ("core-hour", "condmat", "zoe"),
    ]


def test_charges_outside_the_period_are_refused() -> None:
    with pytest.raises(ValueError, match="do not lie within"):
        draw_down([use(2, 10)], Means(), first=november(3), last=LAST)


OCTOBER: Given = {
    OCTOBER_LINE: [("lot", "lot-0", 900), ("credit", CONTRACT, 500), ("lot", "lot-1", 700), ("arrears", CONTRACT, 300)],
    "u-north|HT-2|core-hour|book|0|2026-10": [("grant", "grant-0", 400), ("arrears", "HT-2", 1_000)],
}


def october_of(means: Means) -> Given:
    """What October's lines took, of sources that the customer still knows."""
    known = {lot.source_id for lot in means.lots} | {grant.source_id for grant in means.grants}
    known |= {line.contract for line in means.credit_lines}
    return {
        line: [part for part in parts if part[0] == "arrears" or part[1] in known] for line, parts in OCTOBER.items()
    }


OWED = (OpenArrears(CONTRACT, "condmat", "2026-09", 600), OpenArrears("HT-2", "astro", "2026-10", 800))


@given(st.lists(charges(), max_size=25), all_means())
@settings(max_examples=60, deadline=None)
def test_every_charge_is_drawn_in_full_and_no_money_appears_or_vanishes(usage: list[DayCharge], means: Means) -> None:
    means = replace(means, arrears=OWED)
    result = month(usage, means, october_of(means))
    by_charge: dict[DayCharge, int] = defaultdict(int)
    expected: dict[DayCharge, int] = defaultdict(int)
    for draw in result.draws:
        by_charge[draw.charge] += draw.amount_minor
    for charge in usage:
        expected[charge] += charge.amount_minor
    assert by_charge == expected
    sums = drawn(result)
    for before, after in zip(means.lots, result.left.lots, strict=True):
        settled = sum(s.amount_minor for s in result.settlements if s.lot == before.source_id)
        assert before.rest_minor - after.rest_minor == sums.get(("lot", before.source_id), 0) + settled
        assert after.rest_minor >= 0
    for grant, grant_after in zip(means.grants, result.left.grants, strict=True):
        assert grant.rest_minor - grant_after.rest_minor == sums.get(("grant", grant.source_id), 0)
    in_arrears = sum(amount for (kind, _), amount in sums.items() if kind == "arrears")
    owed_before = sum(owed.amount_minor for owed in OWED)
    assert open_arrears(result) == owed_before + in_arrears - sum(s.amount_minor for s in result.settlements)


@given(st.lists(charges(), max_size=25), all_means(), st.integers(1, 29))
@settings(max_examples=100, deadline=None)
def test_a_pass_cut_at_any_day_draws_what_one_pass_draws(usage: list[DayCharge], means: Means, cut: int) -> None:
    means = replace(means, arrears=OWED)
    october = october_of(means)
    whole = month(usage, means, october)
    middle = november(cut)
    early = [charge for charge in usage if charge.day <= middle]
    late = [charge for charge in usage if charge.day > middle]
    one = draw_down(early, means, first=FIRST, last=middle, drawn_before=october)
    rest = without_given_back(october, one.draws)
    two = draw_down(late, one.left, first=middle + timedelta(days=1), last=LAST, drawn_before=rest)
    assert one.draws + two.draws == whole.draws
    assert one.settlements + two.settlements == whole.settlements
    assert two.left == whole.left


@given(st.lists(charges(), max_size=25), all_means(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_in_which_charges_and_sources_are_listed_changes_nothing(
    usage: list[DayCharge], means: Means, random: object
) -> None:
    mixed = list(usage)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    turned = replace(means, lots=means.lots[::-1], grants=means.grants[::-1])
    assert month(mixed, turned, october_of(means)).draws == month(usage, means, october_of(means)).draws
