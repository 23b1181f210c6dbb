"""Margin by cluster: what it earns over what it costs, net of tax, and per hour."""

from __future__ import annotations

from fractions import Fraction

from reconciliation.margin import ClusterHours, cost_by_cluster, margin_rows
from reconciliation.match import match

from .samples import CLUSTERS, MONTH, billed, compare, contract, fixed_contract, frame, used


def test_margin_is_revenue_less_cost_with_a_total() -> None:
    rows = margin_rows(
        {"cpu2": 1_000_000, "ai1": 500_000},
        {"cpu2": 700_000, "hpc1": 1_200_000},
        {"cpu2": ClusterHours(Fraction(200_000)), "ai1": ClusterHours(Fraction(300), Fraction(600))},
        currency="CNY",
    )

    assert [(row.cluster, row.margin_minor) for row in rows] == [
        ("ai1", 500_000),
        ("cpu2", 300_000),
        ("hpc1", -1_200_000),
        ("", -400_000),
    ]
    assert rows[1].margin_rate == Fraction(3, 10)
    assert rows[1].revenue_per_core_hour == Fraction(5, 100)
    assert rows[1].cost_per_core_hour == Fraction(7000, 200_000)
    assert rows[1].revenue_per_card_hour is None
    assert rows[0].revenue_per_card_hour == Fraction(5000, 600)
    assert rows[2].margin_rate is None
    assert rows[3].hours == ClusterHours(Fraction(200_300), Fraction(600))


def test_cost_is_net_of_input_vat_of_usage_by_contract_and_of_monthly_amounts() -> None:
    result = compare(frame(used(1000)), billed(1500), contracts=(contract(), fixed_contract()))

    # 50.00 ÷ 1.06 and 12,000.00 ÷ 1.06; the 500 disputed hours are no cost.
    assert cost_by_cluster([result]) == {"cpu2": 4717, "hpc1": 1_132_075}


def test_where_the_bill_agrees_it_is_the_cost() -> None:
    within = compare(frame(used(1000)), billed("1000.9", amount_minor=5053))

    assert cost_by_cluster([within]) == {"cpu2": 4717 + 50}


def test_nothing_is_let_pass_on_a_bill_in_dispute() -> None:
    lines = (billed("1000.9", amount_minor=5053), billed(1500, "grp_b", line_id="L2"))
    disputed = compare(frame(used(1000), used(1000, "grp_b")), *lines)

    assert cost_by_cluster([disputed]) == {"cpu2": 9434}


def test_without_a_bill_the_metered_usage_is_the_cost() -> None:
    result = match(frame(used(1000)), (contract(),), None, CLUSTERS, month=MONTH, currency="CNY")

    assert cost_by_cluster([result, compare(frame(), contracts=(fixed_contract(),))]) == {
        "cpu2": 4717,
        "hpc1": 1_132_075,
    }
