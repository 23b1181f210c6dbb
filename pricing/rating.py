"""Rating: a month's usage and purchases of a customer become charge lines, each rounded once.

Usage goes in order of (day, project, user, cluster) through the packs of its SKU; what they do not cover is counted
into the month's tiers and priced. docs/decisions/0003-tiers-and-packs.md says why it is so. A pure function of usage,
catalog and packs: called for a month so far or for a whole one, it gives what is charged by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import NamedTuple

import polars as pl

from base.frames import check_frame
from base.money import largest_remainder, to_minor
from base.period import month_days
from pricing.catalog import Catalog, PriceInForce
from pricing.charges import CUSTOMER_USAGE_SCHEMA, ChargeLine, LineKey, Split
from pricing.packs import PackState, draw_from, pots_in_order, shown_unit_price
from pricing.purchases import lease_line, one_off_line
from pricing.sums import sum_by
from pricing.tiers import Step, cut_at_steps, step_reached, steps_of

# In this order usage draws packs and fills tiers.
_ORDER = ("customer", "sku", "day", "project", "user", "cluster", "contract")


class _Used(NamedTuple):
    """One row of a customer's usage, columns in the order in which it is rated."""

    customer: str
    sku: str
    day: date
    project: str
    user: str
    cluster: str
    contract: str
    quantity: int


# The part of a row that one line takes: the row and how much of its quantity.
_Part = tuple[_Used, int]
_Place = tuple[str, str, int]  # of a line: contract, price entry and tier


def rate_month(
    usage: pl.DataFrame,
    catalog: Catalog,
    *,
    customer: str,
    month: str,
    packs: Mapping[str, PackState],
    through: date | None = None,
) -> tuple[ChargeLine, ...]:
    """Return what a customer is charged for a month, or for its days through one, in order of the lines' keys."""
    own = usage.filter(pl.col("customer") == customer)
    rows = _rows(own, month, through)
    own_packs = [state for state in packs.values() if state.pack.customer == customer]
    lines = [*_usage_lines(rows, catalog, own_packs, month), *_purchases(catalog, month, through, customer)]
    return tuple(sorted(lines, key=attrgetter("key")))


def rate_all(
    usage: pl.DataFrame,
    catalog: Catalog,
    *,
    month: str,
    packs: Mapping[str, PackState],
    through: date | None = None,
) -> dict[str, tuple[ChargeLine, ...]]:
    """Return every customer's lines of a month, as `rate_month` gives them; customers without a line are left out."""
    packs_of: dict[str, list[PackState]] = {}
    for state in packs.values():
        packs_of.setdefault(state.pack.customer, []).append(state)
    lines: dict[str, list[ChargeLine]] = {}
    for customer, rows in groupby(_rows(usage, month, through), key=itemgetter(0)):
        lines[customer] = list(_usage_lines(rows, catalog, packs_of.get(customer, ()), month))
    for line in _purchases(catalog, month, through, None):
        lines.setdefault(line.key.customer, []).append(line)
    return {customer: tuple(sorted(own, key=attrgetter("key"))) for customer, own in sorted(lines.items()) if own}


def _rows(usage: pl.DataFrame, month: str, through: date | None) -> Iterator[_Used]:
    """Return the month's usage through a day, summed and in the order in which it is rated."""
    first, last = month_days(month)
    within = pl.col("day").is_between(first, min(last, through) if through else last)
    used = check_frame(usage, CUSTOMER_USAGE_SCHEMA, "customer usage").filter(within)
    if used.filter(pl.col("quantity") < 0).height:
        raise ValueError("customer usage holds negative quantities; a correction replaces usage, it does not offset it")
    summed = sum_by(used, _ORDER).filter(pl.col("quantity") > 0).sort(_ORDER)
    return (_Used(*row) for row in summed.iter_rows())


def _usage_lines(
    rows: Iterable[_Used], catalog: Catalog, packs: Sequence[PackState], month: str
) -> Iterator[ChargeLine]:
    for sku, used in groupby(rows, key=attrgetter("sku")):
        yield from _SkuMonth(catalog, sku, month, [s for s in packs if s.pack.sku == sku]).rate(used)


class _SkuMonth:
    """One customer's month of one SKU, while it is rated."""

    def __init__(self, catalog: Catalog, sku: str, month: str, packs: Sequence[PackState]) -> None:
        self._catalog = catalog
        self._sku = catalog.skus[sku]
        self._month = month
        self._scale = catalog.scale(sku)
        self._pots = pots_in_order(packs, catalog)
        self._counted = 0  # of the month's quantity beyond packs: where in the tiers the next part falls
        self._entries: dict[str, tuple[Step, ...]] = {}  # by price entry
        self._priced: dict[_Place, list[_Part]] = {}
        self._by_volume: list[_Part] = []  # priced when the month's whole quantity is known
        self._steps: dict[_Place, tuple[PriceInForce, Step]] = {}
        self._drawn: dict[str, list[tuple[_Used, int, int]]] = {}  # by pack: the row, how much of it, what it released
        self._states = {state.pack.id: state for state in packs}

    def rate(self, rows: Iterable[_Used]) -> Iterator[ChargeLine]:
        """Take usage in order, then write each line with its one rounding."""
        customer = ""
        for used in rows:
            customer = used.customer
            rest = self._draw(used) if self._pots else used.quantity
            if rest:
                self._price(used, rest)
        self._price_by_volume()
        for place, parts in self._priced.items():
            yield self._priced_line(customer, place, parts)
        for pack_id, drawn in self._drawn.items():
            yield self._pack_line(self._states[pack_id], drawn)

    def _draw(self, used: _Used) -> int:
        """Draw packs for a row of usage; return what they do not cover."""
        rest = used.quantity
        for state, taken, amount in draw_from(self._pots, rest, used.day):
            self._drawn.setdefault(state.pack.id, []).append((used, taken, amount))
            rest -= taken
        return rest

    def _price(self, used: _Used, quantity: int) -> None:
        price = self._catalog.price_on(self._sku.id, used.contract, used.day)
        if price.change.tier_mode == "volume":
            self._by_volume.append((used, quantity))
        else:
            for step, part in cut_at_steps(self._steps_of(price), self._counted, quantity):
                self._place(price, step, (used, part))
        self._counted += quantity

    def _price_by_volume(self) -> None:
        for used, quantity in self._by_volume:
            price = self._catalog.price_on(self._sku.id, used.contract, used.day)
            self._place(price, step_reached(self._steps_of(price), self._counted), (used, quantity))

    def _steps_of(self, price: PriceInForce) -> tuple[Step, ...]:
        known = self._entries.get(price.sku_price_id)
        if known is None:
            known = self._entries[price.sku_price_id] = steps_of(price.change, self._scale)
        return known

    def _place(self, price: PriceInForce, step: Step, part: _Part) -> None:
        """Put a part on the line of its contract, price entry and step."""
        place = (part[0].contract, price.sku_price_id, step.number)
        parts = self._priced.get(place)
        if parts is None:
            parts = self._priced[place] = []
            self._steps[place] = (price, step)
        parts.append(part)

    def _priced_line(self, customer: str, place: _Place, parts: Sequence[_Part]) -> ChargeLine:
        contract, price_id, tier = place
        price, step = self._steps[place]
        quantities = [quantity for _, quantity in parts]
        amount = to_minor(Fraction(step.unit_price) * Fraction(sum(quantities), self._scale), self._catalog.currency)
        shares = largest_remainder(amount, quantities)
        key = LineKey(customer, contract, self._sku.id, price_id, tier, self._month)
        rows = [used for used, _ in parts]
        listed = step.unit_price if price_id.startswith("book:") else self._listed(rows)
        terms = (step.unit_price, listed, price.change.reference)
        return self._line(key, terms, zip(rows, quantities, shares, strict=True))

    def _pack_line(self, state: PackState, drawn: Sequence[tuple[_Used, int, int]]) -> ChargeLine:
        pack = state.pack
        key = LineKey(pack.customer, pack.contract, self._sku.id, state.sku_price_id, 0, self._month)
        listed = self._listed([used for used, _, _ in drawn])
        return self._line(key, (shown_unit_price(pack), listed, pack.reference), drawn)

    def _listed(self, rows: Sequence[_Used]) -> Decimal | None:
        """Return the price book's price on the rows' days, before any volume; None where it is not one price."""
        changes = {self._catalog.list_price_on(self._sku.id, day) for day in {used.day for used in rows}}
        prices = {change.steps()[0].unit_price if change else None for change in changes}
        return prices.pop() if len(prices) == 1 else None

    def _line(
        self, key: LineKey, terms: tuple[Decimal, Decimal | None, str], parts: Iterable[tuple[_Used, int, int]]
    ) -> ChargeLine:
        """Write a line from its terms (unit price, list price, reference) and parts (row, quantity, amount)."""
        unit_price, listed, reference = terms
        splits = tuple(
            Split(used.day, used.project, used.user, used.cluster, quantity, amount) for used, quantity, amount in parts
        )
        return ChargeLine(
            key=key,
            category="Usage",
            product=self._sku.product,
            unit=self._sku.unit,
            quantity=sum(split.quantity for split in splits),
            unit_price=unit_price,
            list_unit_price=listed,
            amount_minor=sum(split.amount_minor for split in splits),
            tax_rate=self._catalog.tax_rate(self._sku.id),
            reference=reference,
            splits=splits,
        )


def _purchases(catalog: Catalog, month: str, through: date | None, customer: str | None) -> Iterator[ChargeLine]:
    """Yield the lines of leases and one-off charges of a customer, or of all."""
    for lease in catalog.leases.values():
        line = lease_line(lease, catalog, month, through) if customer in {None, lease.customer} else None
        if line:
            yield line
    for charge in catalog.one_offs.values():
        line = one_off_line(charge, catalog, month, through) if customer in {None, charge.customer} else None
        if line:
            yield line
