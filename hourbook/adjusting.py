"""Adjustments: what facts recorded after a month was settled change in its charges, to be charged in the next.

The close froze what the month drew. So what changed is rated again beside all other use of a pack, and the difference
to what was charged, line by line, is charged or given back; what did not change stays as it was charged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from operator import attrgetter

import polars as pl

from base.money import round_half_away
from base.period import month_days
from hourbook.reading import Reading
from invoices.month import differences, pack_of
from pricing.assignment import Assignment, assign
from pricing.catalog import Catalog
from pricing.charges import ChargeLine
from pricing.packs import PackState, pots_in_order
from pricing.rating import rate_all

Charged = Callable[[str], Sequence[ChargeLine]]  # what was charged for a month in all closes so far


@dataclass(frozen=True)
class Side:
    """Usage and terms as they were known at one time."""

    catalog: Catalog
    assignment: Assignment

    def lines(self, month: str, drawn: Mapping[str, int]) -> list[ChargeLine]:
        """Return all lines of a month, packs as other use leaves them."""
        rated = rate_all(self.assignment.usage, self.catalog, month=month, packs=pack_states(self.catalog, drawn))
        return [line for own in rated.values() for line in own]

    def usage_of(self, month: str) -> pl.DataFrame:
        """Return the customers' usage of a month."""
        return self.assignment.usage.filter(pl.col("day").is_between(*month_days(month)))


def adjustments(reading: Reading, now: Side, drawn: Mapping[str, int], charged: Charged) -> list[ChargeLine]:
    """Return what changed in the settled months since the last close; `drawn` is how much of each pack is used."""
    changed: list[ChargeLine] = []
    used = dict(drawn)
    for month in reading.late_months(now.catalog):
        then = _as_charged(reading, month)
        if _same_terms(then.catalog, now.catalog) and then.usage_of(month).equals(now.usage_of(month)):
            continue
        for line in _changes(month, (then, now), used, charged):
            changed.append(line)
            if pack := pack_of(line.key):
                used[pack] = used.get(pack, 0) + line.quantity
    return changed


def _as_charged(reading: Reading, month: str) -> Side:
    charged = reading.as_charged(max(reading.closed))
    catalog = charged.catalog()
    return Side(catalog, assign(charged.usage(catalog, month, month), catalog))


def _same_terms(then: Catalog, now: Catalog) -> bool:
    """Tell whether equal usage costs the same under both."""
    terms = attrgetter("operator", "skus", "prices", "contracts", "packs", "leases", "one_offs")
    return bool(terms(then) == terms(now))


def _changes(
    month: str, sides: tuple[Side, Side], drawn: Mapping[str, int], charged: Charged
) -> tuple[ChargeLine, ...]:
    """Return the differences of one month to what was charged for it."""
    then, now = sides
    before = charged(month) if _packs_in(month, now.catalog) else None
    # A pack's rest today is what late usage may still draw, so both sides start from all other use of it.
    use = pack_use(before or ())
    others = {pack: quantity - use.get(pack, 0) for pack, quantity in drawn.items()}
    was, is_now = then.lines(month, others), now.lines(month, others)
    moved = {(line.key.customer, line.key.sku) for line in differences(is_now, was)}
    if before is not None:
        # Packs may have been fuller or emptier when the month was charged, so only what was charged counts.
        was = [_valued(line, then.catalog, others) for line in before]
    return differences(_of(moved, is_now), _of(moved, was))


def _of(moved: set[tuple[str, str]], lines: Iterable[ChargeLine]) -> list[ChargeLine]:
    return [line for line in lines if (line.key.customer, line.key.sku) in moved]


def _packs_in(month: str, catalog: Catalog) -> bool:
    first, last = month_days(month)
    return any(pack.valid_from <= last and pack.last_day >= first for pack in catalog.packs.values())


def _valued(line: ChargeLine, catalog: Catalog, others: Mapping[str, int]) -> ChargeLine:
    """Value what a line drew from a pack as if all other use of the pack had come first: cents depend on the order."""
    pack = pack_of(line.key)
    if not pack:
        return line
    (pot,) = pots_in_order([pack_states(catalog, others)[pack]], catalog)
    splits = []
    for split in line.splits:
        _, amount = pot.draw(split.quantity, split.day)
        splits.append(split._replace(amount_minor=amount))
    return replace(line, amount_minor=sum(split.amount_minor for split in splits), splits=tuple(splits))


def pack_use(lines: Iterable[ChargeLine]) -> dict[str, int]:
    """Return how much lines draw from each pack, in parts of its unit."""
    use: dict[str, int] = defaultdict(int)
    for line in lines:
        if pack := pack_of(line.key):
            use[pack] += line.quantity
    return use


def pack_states(catalog: Catalog, drawn: Mapping[str, int]) -> dict[str, PackState]:
    """Return every pack after so much of it was used."""
    states = {}
    for name, pack in catalog.packs.items():
        used = drawn.get(name, 0)
        released = Fraction(catalog.minor(pack.price) * used, pack.quantity * catalog.scale(pack.sku))
        states[name] = PackState(pack, used, round_half_away(released))
    return states
