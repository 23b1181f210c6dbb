"""What is bought rather than used: leases by the month, and charges that happen once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from fractions import Fraction

from base.money import to_minor
from base.period import each_day, month_days, month_of
from pricing.catalog import Catalog, FactError
from pricing.charges import ChargeLine, LineKey, Split
from pricing.models import Lease, OneOffCharge, PriceChange


def lease_line(lease: Lease, catalog: Catalog, month: str, through: date | None = None) -> ChargeLine | None:
    """Charge a lease for its days of a month, as far as they are over; None where it has none.

    The price of the lease's first day holds for the whole lease. Amounts are cumulative by day: what a day costs is
    the rounded amount through it less that through the day before, so the days add up to the month at any moment.
    """
    month_first, month_last = month_days(month)
    first, last = max(lease.valid_from, month_first), min(lease.last_day, month_last)
    until = min(last, through) if through else last
    if until < first:
        return None
    change = catalog.price_on(lease.sku, lease.contract, lease.valid_from).change
    unit_price = _one_unit_price(change)
    # unit price × quantity × days in force ÷ days of the month, of which each day in force is an equal part.
    per_day = Fraction(unit_price) * lease.quantity / month_last.day
    splits = tuple(_lease_days(lease, per_day, (first, until), catalog.currency))
    key = LineKey(lease.customer, lease.contract, lease.sku, f"lease:{lease.id}", 0, month)
    amount = sum(split.amount_minor for split in splits)
    return _purchase_line(key, catalog, change, lease.valid_from, (lease.quantity, amount, splits))


def _lease_days(lease: Lease, per_day: Fraction, days: tuple[date, date], currency: str) -> Iterator[Split]:
    before = 0
    for number, day in enumerate(each_day(*days), start=1):
        so_far = to_minor(per_day * number, currency)
        yield Split(day, lease.project, "", lease.cluster, lease.quantity, so_far - before)
        before = so_far


def one_off_line(charge: OneOffCharge, catalog: Catalog, month: str, through: date | None = None) -> ChargeLine | None:
    """Charge what is sold once, at the price of its day; None where that day is not in the month or not yet over."""
    if month_of(charge.on) != month or (through is not None and charge.on > through):
        return None
    change = catalog.price_on(charge.sku, charge.contract, charge.on).change
    amount = to_minor(Fraction(_one_unit_price(change)) * charge.quantity, catalog.currency)
    split = Split(charge.on, "", "", "", charge.quantity, amount)
    key = LineKey(charge.customer, charge.contract, charge.sku, f"one-off:{charge.id}", 0, month)
    return _purchase_line(key, catalog, change, charge.on, (charge.quantity, amount, (split,)))


def _one_unit_price(change: PriceChange) -> Decimal:
    if change.unit_price is None:
        raise FactError(f"the price {change.fact_key} has tiers; what is bought needs one unit_price")
    return change.unit_price


def _purchase_line(
    key: LineKey, catalog: Catalog, change: PriceChange, on: date, bought: tuple[int, int, tuple[Split, ...]]
) -> ChargeLine:
    quantity, amount, splits = bought
    sku, listed = catalog.skus[key.sku], catalog.list_price_on(key.sku, on)
    return ChargeLine(
        key=key,
        category="Purchase",
        product=sku.product,
        unit=sku.unit,
        quantity=quantity,
        unit_price=_one_unit_price(change),
        list_unit_price=listed.steps()[0].unit_price if listed else None,
        amount_minor=amount,
        tax_rate=catalog.tax_rate(key.sku),
        reference=change.reference,
        splits=splits,
    )
