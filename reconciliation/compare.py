"""One key compared: bill lines against metered parts; every cent of the lines is explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from base.money import to_minor
from reconciliation.contract import FIXED_UNIT, SupplierContract
from reconciliation.discrepancy import Compared, Discrepancy, duplicate_of, mean_price, stated_price
from reconciliation.metered import MatchKey, MeteredPart
from reconciliation.repeats import without_repeats
from reconciliation.supplier_bill import SupplierCharge


@dataclass(frozen=True)
class Group:
    """All that belongs to one key and unit."""

    key: MatchKey
    unit: str
    currency: str
    contract: SupplierContract | None  # the last one in force in the month; none: nothing agreed for this cluster
    parts: tuple[MeteredPart, ...]
    lines: tuple[SupplierCharge, ...]
    unknown_because: tuple[str, str] | None = None  # (Chinese, English) why nothing on our side answers to the lines
    listed_price: Fraction | None = None  # of the item by contract, where nothing was metered

    @cached_property
    def metered(self) -> Fraction:
        """Units metered, exactly."""
        return sum((part.quantity for part in self.parts), start=Fraction(0))

    @cached_property
    def contract_minor(self) -> int:
        """What the metered units cost by contract: rounded once per price."""
        return sum(to_minor(part.quantity * part.unit_price, self.currency) for part in self.parts)

    def figures(self, lines: Sequence[SupplierCharge]) -> Compared:
        """Return what a difference of these lines is named from."""
        mean = mean_price([(part.quantity, part.unit_price) for part in self.parts])
        return Compared(
            key=self.key,
            unit=self.unit,
            currency=self.currency,
            metered=self.metered,
            billed=sum((line.quantity for line in lines), start=Fraction(0)),
            contract_price=self.listed_price if mean is None else mean,
            billed_price=stated_price(lines),
            lines=tuple(lines),
        )

    @cached_property
    def allowed_quantity(self) -> Fraction:
        """The largest difference in units that the contract lets pass."""
        return Fraction(self.contract.tolerance_quantity) if self.contract else Fraction(0)

    @cached_property
    def allowed_minor(self) -> int:
        """The largest difference in money that the contract lets pass."""
        return to_minor(Fraction(self.contract.tolerance_amount), self.currency) if self.contract else 0

    @cached_property
    def largest_rest_minor(self) -> int:
        """What may be left unnamed: the tolerance for quantity and for price, and a cent of rounding per figure."""
        return 2 * self.allowed_minor + len(self.lines) + len(self.parts)


def differences(group: Group) -> tuple[Discrepancy, ...]:
    """Return the named differences of one key."""
    kept, repeats = without_repeats(group.lines, metered=group.metered, tolerance=group.allowed_quantity)
    found = [duplicate_of(group.figures((repeat,)), first, repeat) for first, repeat in repeats]
    if group.unknown_because is not None:
        found += _unknown(group, kept, group.unknown_because)
    elif not kept:
        if group.metered > group.allowed_quantity or group.contract_minor > group.allowed_minor:
            found.append(group.figures(()).unbilled(-group.contract_minor))
    elif group.unit == FIXED_UNIT:
        found += _fixed(group, kept)
    else:
        found += _quantity_and_price(group, kept)
    return tuple(found)


def _unknown(group: Group, lines: Sequence[SupplierCharge], because: tuple[str, str]) -> list[Discrepancy]:
    amount = sum(line.amount_minor for line in lines)
    figures = group.figures(lines)
    # A line of nothing asks for nothing.
    return [figures.unknown(amount, *because)] if amount or figures.billed > group.allowed_quantity else []


def _fixed(group: Group, lines: Sequence[SupplierCharge]) -> list[Discrepancy]:
    """Compare a monthly amount: by its sum, as it has no units that could be metered."""
    billed, agreed = sum(line.amount_minor for line in lines), group.contract_minor
    if abs(billed - agreed) <= group.allowed_minor:
        return []
    figures = group.figures(lines)
    months = figures.billed != figures.metered and figures.billed_price == figures.contract_price
    return [figures.fixed("quantity" if months else "price", agreed, billed)]


def _quantity_and_price(group: Group, lines: Sequence[SupplierCharge]) -> list[Discrepancy]:
    """Value the billed units at the contract's price: what that adds is quantity, what the lines add to it is price."""
    figures = group.figures(lines)
    off = figures.billed - figures.metered
    quantity_effect, price_effect = _effects(group, lines, figures)
    agreed_prices = {part.unit_price for part in group.parts}
    found = []
    if off and (abs(off) > group.allowed_quantity or abs(quantity_effect) > group.allowed_minor):
        found.append(figures.quantity(quantity_effect))
    # A stated price that is not the contract's is named however small: the tolerance is for rounding.
    foreign = any(Fraction(line.unit_price) not in agreed_prices for line in lines)
    if price_effect and (foreign or abs(price_effect) > group.allowed_minor):
        found.append(figures.price(price_effect))
    return found


def _effects(group: Group, lines: Sequence[SupplierCharge], figures: Compared) -> tuple[int, int]:
    """Return (what other quantities add, what other prices add) to the contract amount; together all of it."""
    billed = sum(line.amount_minor for line in lines)
    mean = figures.contract_price or Fraction(0)
    agreed_prices = {part.unit_price for part in group.parts}
    # Only a bill that uses each of the month's prices, and no other, tells which units go with which price.
    by_line = {Fraction(line.unit_price) for line in lines} == agreed_prices
    valued = sum(
        to_minor(line.quantity * (Fraction(line.unit_price) if by_line else mean), group.currency) for line in lines
    )
    quantity_effect = valued - group.contract_minor
    off = figures.billed - figures.metered
    explained = to_minor(abs(off) * max(agreed_prices, default=Fraction(0)), group.currency) + len(lines)
    if len(agreed_prices) > 1 and abs(quantity_effect) > explained:
        # Units were moved from one of the month's prices to another: that is price, whatever the lines state.
        quantity_effect = to_minor(off * mean, group.currency)
    return quantity_effect, billed - group.contract_minor - quantity_effect
