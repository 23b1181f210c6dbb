"""Stories of leases: what a day, a part of a month and a whole month cost."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.catalog import Catalog, FactError
from pricing.models import Lease, PriceChange
from pricing.purchases import lease_line


def leasing(price: dict[str, object]) -> Catalog:
    return Catalog.from_facts(
        {
            "operator": {"operator": {"id": "o", "name": "o", "tax_rate": "0.13"}},
            "sku": {"l": {"id": "l", "product": "ai-cloud", "name": "n", "unit": "card-month"}},
            "price": {"l": {"sku": "l", "effective_from": "2020-01-01", **price}},
        }
    )


def lease(first: date, last: date, quantity: int = 1) -> Lease:
    return Lease(
        id="x",
        customer="c",
        contract="HT",
        sku="l",
        quantity=quantity,
        valid_from=first,
        last_day=last,
        project="p",
        cluster="ai1",
    )


@pytest.mark.parametrize(
    ("month", "cents"),
    [("2026-10", 0), ("2026-11", 10), ("2026-12", 31), ("2027-01", 31), ("2027-02", 28), ("2027-03", 0)],
)
def test_a_lease_is_charged_in_each_month_for_its_days(month: str, cents: int) -> None:
    # One cent for each day of any month: price = days of the month.
    days = {"2026-11": 30, "2027-02": 28}.get(month, 31)
    catalog = leasing({"unit_price": Decimal(days) / 100})
    line = lease_line(lease(date(2026, 11, 21), date(2027, 2, 28)), catalog, month)
    assert (line.amount_minor if line else 0) == cents


def test_a_lease_line_states_units_tax_and_whose_cost_it_is() -> None:
    line = lease_line(lease(date(2026, 11, 1), date(2026, 11, 2), 8), leasing({"unit_price": 30}), "2026-11")
    assert line is not None
    assert (line.category, line.quantity, line.unit, line.tax_rate) == ("Purchase", 8, "card-month", Fraction(13, 100))
    assert [(s.day.day, s.project, s.cluster, s.quantity, s.amount_minor) for s in line.splits] == [
        (1, "p", "ai1", 8, 800),
        (2, "p", "ai1", 8, 800),
    ]


def test_a_lease_keeps_the_price_of_its_first_day_in_later_months() -> None:
    catalog = leasing({"unit_price": 30})
    dearer = PriceChange(sku="l", effective_from=date(2026, 11, 1), unit_price=Decimal(60))
    changed = replace(catalog, prices={**catalog.prices, "later": dearer})
    november = [
        lease_line(lease(first, date(2026, 12, 31)), changed, "2026-11")
        for first in (date(2026, 10, 31), date(2026, 11, 1))
    ]
    assert [line and line.amount_minor for line in november] == [3000, 6000]


def test_a_lease_at_a_price_with_tiers_is_refused() -> None:
    with pytest.raises(FactError, match="has tiers; what is bought needs one unit_price"):
        lease_line(lease(date(2026, 11, 1), date(2026, 11, 2)), leasing({"tiers": [{"unit_price": 1}]}), "2026-11")


@settings(max_examples=100, deadline=None)
@given(
    price=st.decimals(0, 10_000, places=3),
    quantity=st.integers(1, 9),
    start=st.integers(0, 60),
    length=st.integers(0, 60),
    until=st.integers(0, 29),
)
def test_days_so_far_add_up_to_the_rounded_part_of_the_month(
    price: Decimal, quantity: int, start: int, length: int, until: int
) -> None:
    first = date(2026, 10, 15) + timedelta(days=start)
    last, through = first + timedelta(days=length), date(2026, 11, 1) + timedelta(days=until)
    line = lease_line(lease(first, last, quantity), leasing({"unit_price": price}), "2026-11", through)
    days = [d for n in range(until + 1) if first <= (d := date(2026, 11, 1) + timedelta(days=n)) <= last]
    assert (line is None) == (not days)
    if line:
        exact = Fraction(price) * 100 * quantity * len(days) / 30
        assert line.amount_minor == math.floor(exact + Fraction(1, 2)) == sum(s.amount_minor for s in line.splits)
        assert [split.day for split in line.splits] == days
