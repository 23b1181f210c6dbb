"""The three-way match: each kind of difference by a story, and every cent of a bill explained."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import pytest

from metering.clusters import Cluster, CpusPerCore
from reconciliation.match import MatchResult, UnexplainedError, by_item, match
from reconciliation.metered import MatchKey, UncutSpanError

from .samples import A800, CLUSTERS, CORE_HOUR, MONTH, billed, compare, contract, fixed_contract, frame, used

CHANGED = contract(CORE_HOUR, CORE_HOUR | {"effective_from": "2026-11-16", "unit_price": "0.04"})
TWO_HALVES = frame(used(1000), used(600, at=datetime(2026, 11, 15, 16, tzinfo=UTC)))


def kinds(result: MatchResult) -> list[tuple[str, int]]:
    return [(found.kind, found.amount_minor) for found in result.discrepancies]


def test_a_bill_that_says_what_was_metered_agrees() -> None:
    result = compare(frame(used(1000)), billed(1000))

    assert result.agrees
    assert result.totals.billed_minor == result.totals.contract_minor == 5000
    assert result.rows[0].key == MatchKey("cpu2", "cpu", "grp_a", "core-hour")


def test_usage_that_the_bill_leaves_out_is_named_with_its_worth() -> None:
    result = compare(frame(used(1000), used(200, "grp_b")), billed(1000))

    assert kinds(result) == [("unbilled_usage", -1000)]
    found = result.discrepancies[0]
    assert (found.key.login, int(found.metered), int(found.billed)) == ("grp_b", 200, 0)
    assert "200 core-hours metered, none billed" in found.message_en
    assert "计量 200 核时，账单未列" in found.message_zh


def test_a_login_of_somebody_else_is_an_unknown_charge() -> None:
    result = compare(frame(used(1000)), billed(1000), billed(300, "not_ours", line_id="L2"))

    assert kinds(result) == [("unknown_charge", 1500)]
    assert result.discrepancies[0].contract_price == Fraction("0.05")
    assert "nothing was metered for this login" in result.discrepancies[0].message_en


def test_a_small_charge_for_a_login_without_usage_is_not_within_tolerance() -> None:
    assert kinds(compare(frame(used(1000)), billed(1000), billed("0.4", "not_ours", line_id="L2"))) == [
        ("unknown_charge", 2)
    ]


def test_a_login_whose_jobs_all_ended_at_once_used_nothing() -> None:
    result = compare(frame(used(1000), used(0, "grp_b")), billed(1000), billed(300, "grp_b", line_id="L2"))

    assert kinds(result) == [("unknown_charge", 1500)]


def test_an_item_that_is_not_in_the_contract_is_an_unknown_charge() -> None:
    fee = billed(1, item="service-fee", unit="piece", price="80", line_id="L2")
    result = compare(frame(used(1000)), billed(1000), fee)

    assert kinds(result) == [("unknown_charge", 8000)]
    assert "no such item" in result.discrepancies[0].message_en


def test_a_cluster_without_a_contract_is_an_unknown_charge() -> None:
    result = compare(frame(used(1000)), billed(1000), billed(10, cluster="elsewhere", line_id="L2"))

    assert kinds(result) == [("unknown_charge", 50)]
    assert "no contract covers cluster elsewhere" in result.discrepancies[0].message_en


def test_another_unit_than_the_contract_counts_leaves_the_usage_unbilled() -> None:
    result = compare(frame(used(1000)), billed(16, unit="node-hour", price="3.2"))

    assert kinds(result) == [("unbilled_usage", -5000), ("unknown_charge", 5120)]
    assert "contract CG-1 counts core-hours" in result.discrepancies[1].message_en


def test_more_hours_than_metered_are_a_quantity_difference() -> None:
    result = compare(frame(used(1000)), billed(1100))

    assert kinds(result) == [("quantity", 500)]
    assert "1100 core-hours billed, 1000 core-hours metered: 100 more, at 0.05" in result.discrepancies[0].message_en


def test_fewer_hours_than_metered_are_a_quantity_difference_in_our_favour() -> None:
    assert kinds(compare(frame(used(1000)), billed(900))) == [("quantity", -500)]


def test_a_price_that_is_not_the_contracts_is_named() -> None:
    result = compare(frame(used(1000)), billed(1000, price="0.06"))

    assert kinds(result) == [("price", 1000)]
    assert result.discrepancies[0].billed_price == Fraction("0.06")
    assert "billed at 0.06 CNY per core-hour, the contract says 0.05: worth 10.00 CNY" in (
        result.discrepancies[0].message_en
    )


def test_a_wrong_price_is_named_however_small_its_effect() -> None:
    assert kinds(compare(frame(used(30)), billed(30, price="0.06"))) == [("price", 30)]


def test_a_line_may_have_a_wrong_price_and_a_wrong_quantity() -> None:
    # 100 hours too many at 0.05, and 1,100 hours 0.01 too dear.
    assert kinds(compare(frame(used(1000)), billed(1100, price="0.06"))) == [("quantity", 500), ("price", 1100)]


def test_an_amount_that_is_not_quantity_times_price_is_a_price_difference() -> None:
    result = compare(frame(used(1000)), billed(1000, amount_minor=5900))

    assert kinds(result) == [("price", 900)]
    assert "differ from quantity × the contract's price" in result.discrepancies[0].message_en


def test_a_line_that_stands_twice_under_another_id_is_a_duplicate() -> None:
    result = compare(frame(used(1000)), billed(1000), billed(1000, line_id="L2"))

    assert kinds(result) == [("duplicate", 5000)]
    assert result.discrepancies[0].line_ids == ("L2",)
    assert "repeats L1 (line 2)" in result.discrepancies[0].message_en


def test_a_duplicate_is_taken_out_before_quantities_are_compared() -> None:
    lines = (billed(1100), billed(1100, line_id="L2"), billed(1100, line_id="L3"))

    assert kinds(compare(frame(used(1000)), *lines)) == [("duplicate", 5500), ("duplicate", 5500), ("quantity", 500)]


def test_a_duplicate_of_a_few_minutes_does_not_hide_in_the_tolerance() -> None:
    half = billed("0.5"), billed("0.5", line_id="L2")

    assert kinds(compare(frame(used(Fraction(1, 2))), *half)) == [("duplicate", 3)]


def test_four_equal_weeks_of_a_job_that_never_stopped_are_no_duplicates() -> None:
    weeks = [billed(168, line_id=f"L{week}") for week in range(1, 5)]

    assert compare(frame(used(672)), *weeks).agrees
    assert kinds(compare(frame(used(672)), *weeks, billed(168, line_id="L5"))) == [("duplicate", 840)]


def test_the_same_hours_again_at_another_price_are_a_duplicate_where_that_explains_the_quantity() -> None:
    again = billed(1000, price="0.04", line_id="L2")

    assert kinds(compare(frame(used(1000)), billed(1000, price="0.06"), again)) == [
        ("duplicate", 4000),
        ("price", 1000),
    ]
    # Here the second line does not explain why too much was billed.
    assert kinds(compare(frame(used(1500)), billed(1000), again)) == [("quantity", 2500), ("price", -1000)]


def test_two_equal_halves_of_a_month_at_two_prices_are_no_duplicates() -> None:
    halves = frame(used(360), used(360, at=datetime(2026, 11, 15, 16, tzinfo=UTC)))
    lines = (billed(360), billed(360, price="0.04", line_id="L2"))

    assert compare(halves, *lines, contracts=(CHANGED,)).agrees


def test_several_lines_of_one_key_are_added_up() -> None:
    assert compare(frame(used(1000)), billed(400), billed(350, line_id="L2"), billed(250, line_id="L3")).agrees


def test_a_difference_within_the_tolerance_is_agreement_and_stays_visible_as_rest() -> None:
    result = compare(frame(used(1000)), billed("1000.9", amount_minor=5012))

    assert result.agrees
    assert result.totals.rest_minor == 12


def test_a_difference_just_above_the_tolerance_is_named() -> None:
    assert compare(frame(used(1000)), billed(1001)).agrees
    assert kinds(compare(frame(used(1000)), billed("1001.1"))) == [("quantity", 6)]


def test_few_hours_of_a_dear_item_are_named_when_the_amount_passes_its_tolerance() -> None:
    ai = contract(A800, cluster="ai1")
    line = billed("100.9", queue="a800", cluster="ai1", item="a800-card-hour", unit="card-hour", price="5.8")
    metered = frame(used(100, queue="a800", cluster="ai1", resource="card:a800"))

    assert kinds(compare(metered, line, contracts=(ai,))) == [("quantity", 522)]


def test_a_sliver_of_usage_need_not_be_billed() -> None:
    assert compare(frame(used(1000), used(1, "grp_b")), billed(1000)).agrees


def test_hardware_threads_are_counted_as_cores_before_they_are_compared() -> None:
    ai = contract(CORE_HOUR, cluster="ai1")
    line = billed(100, cluster="ai1")

    assert used(100, cluster="ai1")["quantity"] == 100 * 2 * 3600
    assert compare(frame(used(100, cluster="ai1")), line, contracts=(ai,)).agrees


def test_cores_per_thread_change_on_their_day() -> None:
    dated = Cluster(name="cpu2", cpus_per_core=(CpusPerCore(cpus=1), CpusPerCore(effective_from="2026-11-16", cpus=2)))  # type: ignore[arg-type]
    rows = frame(used(100), used(100, at=datetime(2026, 11, 20, 16, tzinfo=UTC)))
    result = match(rows, (contract(),), (billed(150),), {"cpu2": dated}, month=MONTH, currency="CNY")

    assert result.agrees
    assert result.rows[0].metered_quantity == 150


def test_the_zone_of_the_supplier_decides_which_month_an_hour_belongs_to() -> None:
    # 31 October, 16:00 to 24:00 UTC is the first of November in Shanghai.
    last = used(100, at=datetime(2026, 10, 31, 16, tzinfo=UTC)) | {"span_end": datetime(2026, 11, 1, tzinfo=UTC)}
    # A day in both zones is a sum of spans cut at the midnights of both.
    midday = used(1000) | {"span_end": datetime(2026, 11, 10, tzinfo=UTC)}
    metered = frame(midday, last)

    assert compare(metered, billed(1100)).agrees
    assert kinds(compare(metered, billed(1100), contracts=(contract(timezone="UTC"),))) == [("quantity", 500)]


def test_spans_that_cross_midnight_of_the_supplier_are_refused() -> None:
    with pytest.raises(UncutSpanError, match="cross midnight in UTC"):
        compare(frame(used(1000)), billed(1000), contracts=(contract(timezone="UTC"),))


def test_spans_of_other_months_need_no_cut_for_this_one() -> None:
    october = used(700, at=datetime(2026, 10, 9, 16, tzinfo=UTC))
    midday = used(1000) | {"span_end": datetime(2026, 11, 10, tzinfo=UTC)}

    assert compare(frame(october, midday), billed(1000), contracts=(contract(timezone="UTC"),)).agrees


def test_the_price_of_the_queue_itself_goes_before_that_of_any_queue() -> None:
    terms = contract(CORE_HOUR, CORE_HOUR | {"partition": "fat", "unit_price": "0.075"})
    lines = (billed(1000), billed(100, queue="fat", price="0.075", line_id="L2"))
    metered = frame(used(1000), used(100, queue="fat"))

    assert compare(metered, *lines, contracts=(terms,)).agrees
    assert kinds(compare(metered, *lines)) == [("price", 250)]


def test_a_price_change_inside_the_month_is_matched_by_day() -> None:
    lines = (billed(1000), billed(600, price="0.04", line_id="L2"))
    result = compare(TWO_HALVES, *lines, contracts=(CHANGED,))

    assert result.agrees
    assert result.totals.contract_minor == 5000 + 2400


def test_the_whole_month_at_the_old_price_is_a_price_difference_only() -> None:
    assert kinds(compare(TWO_HALVES, billed(1600), contracts=(CHANGED,))) == [("price", 600)]


def test_hours_moved_to_the_dearer_half_of_the_month_are_a_price_difference() -> None:
    lines = (billed(1300), billed(300, price="0.04", line_id="L2"))

    assert kinds(compare(TWO_HALVES, *lines, contracts=(CHANGED,))) == [("price", 300)]


def test_extra_hours_at_the_old_price_are_a_quantity_difference_only() -> None:
    lines = (billed(1100), billed(600, price="0.04", line_id="L2"))

    assert kinds(compare(TWO_HALVES, *lines, contracts=(CHANGED,))) == [("quantity", 500)]


def test_a_contract_that_ends_inside_the_month_hands_over_to_the_next() -> None:
    old = contract(number="CG-old", last_day="2026-11-15")
    new = contract(CORE_HOUR | {"unit_price": "0.04"}, number="CG-new", valid_from="2026-11-16")
    lines = (billed(1000), billed(600, price="0.04", line_id="L2"))
    result = compare(TWO_HALVES, *lines, contracts=(new, old))

    assert result.agrees
    assert [(cost.contract, cost.gross_minor) for cost in result.costs] == [("CG-old", 5000), ("CG-new", 2400)]


def test_usage_on_a_queue_without_a_price_is_listed_not_given_away() -> None:
    terms = contract(CORE_HOUR | {"partition": "cpu"})
    result = compare(frame(used(1000), used(50, queue="new")), billed(1000), contracts=(terms,))

    assert not result.agrees
    assert [(usage.queue, usage.login, usage.quantity) for usage in result.unpriced] == [("new", "grp_a", 50 * 3600)]


def test_cores_on_a_queue_that_is_paid_by_card_are_included() -> None:
    ai = contract(A800 | {"partition": "a800"}, cluster="ai1")
    metered = frame(
        used(100, queue="a800", cluster="ai1", resource="card:a800"), used(800, queue="a800", cluster="ai1")
    )
    line = billed(100, queue="a800", cluster="ai1", item="a800-card-hour", unit="card-hour", price="5.8")
    result = compare(metered, line, contracts=(ai,))

    assert result.agrees
    assert result.totals.contract_minor == 58000


def test_the_users_name_is_the_login_where_the_contract_says_so() -> None:
    result = compare(frame(used(1000)), billed(1000, "somebody"), contracts=(contract(login="user"),))

    assert result.agrees


def test_a_fixed_contract_needs_no_bill() -> None:
    result = compare(frame(), contracts=(fixed_contract(),))

    assert result.agrees
    assert result.totals.without_bill_minor == result.totals.contract_minor == 1_200_000
    assert result.costs[0].net_minor == 1_132_075  # 12,000.00 ÷ 1.06


def fixed_line(amount_minor: int, quantity: int = 1, price: str = "12000") -> MatchResult:
    line = billed(quantity, "", "", cluster="hpc1", item="fixed", unit="month", price=price, amount_minor=amount_minor)
    return compare(frame(), line, contracts=(fixed_contract(),))


def test_a_monthly_amount_that_is_billed_is_compared() -> None:
    assert fixed_line(1_200_000).agrees
    assert fixed_line(1_200_080).totals.rest_minor == 80
    assert kinds(fixed_line(1_260_000, price="12600")) == [("price", 60_000)]
    assert kinds(fixed_line(2_400_000, quantity=2)) == [("quantity", 1_200_000)]


def test_rent_beside_payment_by_use_has_its_own_tolerance() -> None:
    rent = fixed_contract(cluster="cpu2", valid_from="2025-01-01", tolerance_amount="0.00")
    line = billed(1, "", "", item="fixed", unit="month", price="12000", amount_minor=1_200_050, line_id="L2")
    result = compare(frame(used(1000)), billed("1000.9"), line, contracts=(contract(), rent))

    assert kinds(result) == [("price", 50)]


def test_a_fixed_contract_of_half_a_month_costs_half() -> None:
    terms = fixed_contract(valid_from="2026-11-16")

    assert compare(frame(), contracts=(terms,)).totals.contract_minor == 600_000
    assert compare(frame(), contracts=(fixed_contract(valid_from="2026-12-01"),)).rows == ()


def test_where_no_bill_has_come_nothing_is_disputed_and_the_cost_is_known() -> None:
    result = match(frame(used(1000)), (contract(),), None, CLUSTERS, month=MONTH, currency="CNY")

    assert result.agrees
    assert not result.has_bill
    assert (result.totals.billed_minor, result.totals.without_bill_minor) == (0, 5000)
    assert result.costs[0].gross_minor == 5000


def test_the_view_by_cluster_and_item_adds_up_to_the_bill() -> None:
    fat = billed(100, queue="fat", line_id="L2")
    result = compare(frame(used(1000), used(120, queue="fat")), billed(1000), fat)
    (row,) = by_item(result)

    assert (row.cluster, row.item, row.month, row.unit) == ("cpu2", "core-hour", "2026-11", "core-hour")
    assert row.metered_quantity == 1120
    assert row.billed_quantity == 1100
    assert (row.contract_minor, row.billed_minor, row.named_minor, row.discrepancies) == (5600, 5500, -100, 1)


def test_a_cent_that_nothing_explains_stops_the_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciliation.match.differences", lambda _group: ())

    with pytest.raises(UnexplainedError, match="500 minor units"):
        compare(frame(used(1000)), billed(1100))


def test_a_contract_for_a_cluster_that_is_not_described_is_refused() -> None:
    with pytest.raises(LookupError, match="'cpu9' is not described"):
        compare(frame(), contracts=(contract(cluster="cpu9"),))
