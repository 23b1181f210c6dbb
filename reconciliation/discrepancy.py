"""Named differences between what was metered, contracted and billed, in words that can be sent to the supplier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, get_args

from base.money import format_grouped
from reconciliation.metered import MatchKey
from reconciliation.supplier_bill import SupplierCharge
from reconciliation.wording import quantity_en, quantity_zh, short_text, unit_zh

Kind = Literal["unbilled_usage", "unknown_charge", "quantity", "price", "duplicate"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Discrepancy:
    """One named difference: what was metered, what was billed, and what it is worth."""

    kind: Kind
    key: MatchKey
    unit: str
    metered: Fraction
    billed: Fraction
    contract_price: Fraction | None  # per unit; the mean by usage where it changed inside the month
    billed_price: Fraction | None
    amount_minor: int  # what it adds to the bill; below zero where the bill asks for less than the contract
    message_zh: str
    message_en: str
    line_ids: tuple[str, ...]  # of the bill


@dataclass(frozen=True)
class Compared:
    """The figures of one key that a difference is named from."""

    key: MatchKey
    unit: str
    currency: str
    metered: Fraction
    billed: Fraction
    contract_price: Fraction | None
    billed_price: Fraction | None
    lines: tuple[SupplierCharge, ...]

    def named(self, kind: Kind, amount_minor: int, message_zh: str, message_en: str) -> Discrepancy:
        """Return a difference of this key, with where it is put before the words."""
        place = f"{self.key}"
        return Discrepancy(
            kind=kind,
            key=self.key,
            unit=self.unit,
            metered=self.metered,
            billed=self.billed,
            contract_price=self.contract_price,
            billed_price=self.billed_price,
            amount_minor=amount_minor,
            message_zh=f"{place}：{message_zh}",
            message_en=f"{place}: {message_en}",
            line_ids=tuple(line.line_id for line in self.lines),
        )

    def _money(self, minor: int) -> str:
        return f"{format_grouped(minor, self.currency)} {self.currency}"

    def unbilled(self, amount_minor: int) -> Discrepancy:
        """Usage that the bill leaves out; it may still come."""
        return self.named(
            "unbilled_usage",
            amount_minor,
            f"计量 {quantity_zh(self.metered, self.unit)}，账单未列；按合同价 {self._money(-amount_minor)}",
            f"{quantity_en(self.metered, self.unit)} metered, none billed; worth {self._money(-amount_minor)} "
            "at the contract's price",
        )

    def unknown(self, amount_minor: int, why_zh: str, why_en: str) -> Discrepancy:
        """A charge that nothing on our side answers to."""
        return self.named(
            "unknown_charge",
            amount_minor,
            f"账单收取 {quantity_zh(self.billed, self.unit)}，计 {self._money(amount_minor)}，{why_zh}",
            f"{quantity_en(self.billed, self.unit)} billed for {self._money(amount_minor)}, but {why_en}",
        )

    def quantity(self, amount_minor: int) -> Discrepancy:
        """More or fewer units on the bill than were metered."""
        off = self.billed - self.metered
        price = _price_text(self.contract_price)
        return self.named(
            "quantity",
            amount_minor,
            f"账单 {quantity_zh(self.billed, self.unit)}，计量 {quantity_zh(self.metered, self.unit)}，"
            f"{'多' if off > 0 else '少'} {quantity_zh(abs(off), self.unit)}；按合同价 {price} 影响 "
            f"{self._money(amount_minor)}",
            f"{quantity_en(self.billed, self.unit)} billed, {quantity_en(self.metered, self.unit)} metered: "
            f"{short_text(abs(off), 4)} {'more' if off > 0 else 'fewer'}, at {price} worth {self._money(amount_minor)}",
        )

    def price(self, amount_minor: int) -> Discrepancy:
        """Units billed at another price than the contract's of the day, or amounts that are not quantity × price."""
        agreed, billed = _price_text(self.contract_price), _price_text(self.billed_price)
        worth = self._money(amount_minor)
        if agreed == billed:
            zh = f"账单金额与数量 × 当日合同单价（{agreed}）相差 {worth}"
            en = f"the amounts differ from quantity × the contract's price of the day ({agreed}) by {worth}"
        else:
            zh = f"账单单价 {billed}，合同单价 {agreed}（{self.currency}/{unit_zh(self.unit)}），影响 {worth}"
            en = f"billed at {billed} {self.currency} per {self.unit}, the contract says {agreed}: worth {worth}"
        return self.named("price", amount_minor, zh, en)

    def fixed(self, kind: Literal["quantity", "price"], contract_minor: int, billed_minor: int) -> Discrepancy:
        """A monthly amount that is not the contract's."""
        return self.named(
            kind,
            billed_minor - contract_minor,
            f"账单月费 {self._money(billed_minor)}，合同月费 {self._money(contract_minor)}",
            f"{self._money(billed_minor)} billed for the month, the contract says {self._money(contract_minor)}",
        )


def duplicate_of(figures: Compared, first: SupplierCharge, repeat: SupplierCharge) -> Discrepancy:
    """A line that stands on the bill again under another line id."""
    price = Fraction(repeat.unit_price)
    alone = replace(figures, billed=repeat.quantity, billed_price=price, lines=(repeat,))
    amount = f"{format_grouped(repeat.amount_minor, figures.currency)} {figures.currency}"
    return alone.named(
        "duplicate",
        repeat.amount_minor,
        f"账单行 {repeat.line_id}（第 {repeat.line_number} 行）与 {first.line_id}（第 {first.line_number} 行）"
        f"数量相同，重复收取 {amount}",
        f"bill line {repeat.line_id} (line {repeat.line_number}) repeats {first.line_id} (line {first.line_number}): "
        f"{amount} asked for again",
    )


def stated_price(lines: Sequence[SupplierCharge]) -> Fraction | None:
    """Return the unit price that lines state; their mean by quantity where they state several; none without lines."""
    prices = {Fraction(line.unit_price) for line in lines}
    if len(prices) == 1:
        return prices.pop()
    return mean_price([(line.quantity, Fraction(line.unit_price)) for line in lines])


def mean_price(parts: Sequence[tuple[Fraction, Fraction]]) -> Fraction | None:
    """Return the mean of prices, weighted by quantity; none where there is no quantity."""
    quantity = sum((part for part, _ in parts), start=Fraction(0))
    return sum((part * price for part, price in parts), start=Fraction(0)) / quantity if quantity else None


def _price_text(price: Fraction | None) -> str:
    return "" if price is None else short_text(price)
