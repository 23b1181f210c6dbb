"""What lines are drawn from and what that means in the books, computed a second way: standard library only.

For the first month of a home: nothing was used before it, and no document is corrected. Amounts are minor units, gross;
movements are debit positive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import Any, NamedTuple

from .price_oracle import LAST_DAY, Line, exact, minor, round_half_away
from .usage_oracle import Row, share_out

Table = Mapping[str, Any]


class Charge(NamedTuple):
    """What one line costs on one day in one place, in the order in which charges are drawn."""

    day: date
    sku: str
    project: str
    user: str
    cluster: str
    line: str
    contract: str
    amount: int
    tax_rate: Fraction

    @property
    def pack(self) -> str:
        """The pack that covers it, where one does."""
        price = self.line.split("|")[3]
        return price.removeprefix("pack:") if price.startswith("pack:") else ""


class Drawn(NamedTuple):
    """A part of a charge and what it was drawn from: pack, grant, lot, credit or arrears."""

    charge: Charge
    kind: str
    source: str
    amount: int


@dataclass
class Pot:
    """Something that a charge can be drawn from, and what is left in it."""

    kind: str
    source: str
    contract: str  # "" any
    project: str  # "" any
    first: date
    last: date
    gross: int
    rest: int
    settled: int = 0  # of a receipt: paid for arrears

    def covers(self, contract: str, project: str) -> bool:
        """Tell whether it may be used for a contract and project."""
        return self.contract in ("", contract) and self.project in ("", project)


@dataclass
class Wallet:
    """All that one customer's charges of the month can fall on, and how they fell."""

    grants: list[Pot] = field(default_factory=list)
    lots: list[Pot] = field(default_factory=list)
    credit: dict[str, Pot] = field(default_factory=dict)  # by contract
    arrears: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))  # by contract and project
    drawn: list[Drawn] = field(default_factory=list)
    settled: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # arrears paid, by contract


def charges_of(lines: Iterable[Line]) -> list[Charge]:
    """Return what lines cost by day and place, in order; parts that round to nothing cost nothing."""
    return sorted(
        Charge(
            *place[:1], line.key.sku, *place[1:], "|".join(map(str, line.key)), line.key.contract, amount, line.tax_rate
        )
        for line in lines
        for place, _, amount in line.parts
        if amount
    )


def fill_wallet(customer: str, facts: Mapping[str, Sequence[Table]], receipts: Iterable[Row]) -> Wallet:
    """Put together what a customer was given, paid in advance, and may use before paying."""
    wallet = Wallet()
    for grant in facts["grants"]:
        if grant["customer"] == customer:
            value = minor(exact(grant["face_value"]))
            pot = Pot("grant", grant["id"], grant.get("contract", ""), "", grant["granted_on"], LAST_DAY, value, value)
            pot.last = grant.get("last_day", LAST_DAY)
            wallet.grants.append(pot)
    for paid in receipts:
        if paid["customer"] == customer:
            value = minor(Fraction(paid["amount"]))
            last = date.fromisoformat(paid["last_day"]) if paid.get("last_day") else LAST_DAY
            source, on = f"lot:{customer}:{paid['reference']}", date.fromisoformat(paid["received_on"])
            wallet.lots.append(Pot("lot", source, paid["contract"], paid["project"], on, last, value, value))
    for contract in facts["contracts"]:
        if contract["customer"] == customer and "credit_limit" in contract:
            limit, number = minor(exact(contract["credit_limit"])), contract["number"]
            first, last = contract["valid_from"], contract["last_day"]
            wallet.credit[number] = Pot("credit", number, number, "", first, last, limit, limit)
    wallet.grants.sort(key=lambda pot: (pot.last, pot.first, pot.source))
    return wallet


def narrowest_first(lot: Pot) -> tuple[int, date, date, str]:
    """Order money: bound to a project, then to a contract, then free; of equals the one that ends first, the oldest."""
    return -2 * bool(lot.project) - bool(lot.contract), lot.last, lot.first, lot.source


def draw_month(wallet: Wallet, charges: Iterable[Charge], days: Sequence[date]) -> None:
    """Let a month's charges fall, day by day: first the day's receipts settle arrears, then charges are drawn."""
    by_day: dict[date, list[Charge]] = defaultdict(list)
    for charge in charges:
        by_day[charge.day].append(charge)
    for day in days:
        arrived = [lot for lot in wallet.lots if max(lot.first, days[0]) == day]
        for lot in sorted(arrived, key=lambda lot: (lot.first, narrowest_first(lot))):
            settle(wallet, lot)
        for charge in by_day[day]:
            draw(wallet, charge)


def settle(wallet: Wallet, lot: Pot) -> None:
    """Let a receipt pay what its contract and project owe."""
    for (contract, project), owed in sorted(wallet.arrears.items()):
        if lot.covers(contract, project):
            amount = min(lot.rest, owed)
            lot.rest -= amount
            lot.settled += amount
            wallet.arrears[contract, project] -= amount
            wallet.settled[contract] += amount


def draw(wallet: Wallet, charge: Charge) -> None:
    """Draw one charge in full: pack, grants, money, credit; what is left is owed."""
    if charge.pack:
        wallet.drawn.append(Drawn(charge, "pack", charge.pack, charge.amount))
        return
    left = charge.amount
    on_credit = [wallet.credit[charge.contract]] if charge.contract in wallet.credit else []
    for pot in [*wallet.grants, *sorted(wallet.lots, key=narrowest_first), *on_credit]:
        if pot.first <= charge.day <= pot.last and pot.covers(charge.contract, charge.project):
            amount = min(left, pot.rest)
            if amount:
                pot.rest -= amount
                left -= amount
                wallet.drawn.append(Drawn(charge, pot.kind, pot.source, amount))
    if left:
        wallet.arrears[charge.contract, charge.project] += left
        wallet.drawn.append(Drawn(charge, "arrears", charge.contract, left))


def tax_in(gross: int, rate: Fraction) -> int:
    """Return the tax inside a gross amount."""
    return round_half_away(gross * rate / (1 + rate))


@dataclass
class Books:
    """What a month's usage moves in a customer's accounts, and the tax that its documents show."""

    moved: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by account code
    income: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))  # by SKU and cluster, net
    tax: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by kind of source

    def earn(self, kind: str, draws: Sequence[Drawn], tax: int) -> None:
        """Credit revenue net of tax, by what was sold and where it ran."""
        gross: dict[tuple[str, str], int] = defaultdict(int)
        for drawn in draws:
            gross[drawn.charge.sku, drawn.charge.cluster] += drawn.amount
        products = sorted(gross)
        for product, part in zip(products, share_out(tax, [gross[p] for p in products]), strict=True):
            self.income[product] += gross[product] - part
            self.moved["income:usage"] -= gross[product] - part
        self.tax[kind] += tax

    def move(self, **amounts: int) -> None:
        """Move accounts of a customer by short name."""
        codes = {
            "liability": "liabilities:contract",
            "pending": "liabilities:vat_pending",
            "payable": "liabilities:vat_payable",
            "unbilled": "assets:receivable:unbilled",
            "arrears": "assets:receivable:arrears",
        }
        for name, amount in amounts.items():
            self.moved[codes[name]] += amount


def released(gross: int, rate: Fraction, drawn: int) -> int:
    """Return the tax that a receipt has released once so much of it is drawn: the last cent closes it."""
    return round_half_away(Fraction(drawn * tax_in(gross, rate), gross)) if gross else 0


def keep_books(wallet: Wallet, packs: Mapping[str, int], money_rate: Fraction) -> Books:
    """Say what a month's draws mean: `packs` is what each cost; money received carries tax at `money_rate`."""
    books = Books()
    groups: dict[tuple[str, str], dict[Fraction, list[Drawn]]] = defaultdict(lambda: defaultdict(list))
    for drawn in wallet.drawn:
        groups[drawn.kind, drawn.source][drawn.charge.tax_rate].append(drawn)
    gross_of = {("lot", lot.source): lot.gross for lot in wallet.lots}
    gross_of |= {("pack", pack): price for pack, price in packs.items()}
    settled_by = {("lot", lot.source): lot.settled for lot in wallet.lots}
    for source, gross in gross_of.items():
        used = sum(drawn.amount for draws in groups.get(source, {}).values() for drawn in draws)
        _draw_prepaid(books, source[0], groups.get(source, {}), released(gross, money_rate, used), money_rate)
        left = used + settled_by.get(source, 0)
        tax = released(gross, money_rate, left)
        books.move(liability=left - tax, pending=tax)
    owed_tax: dict[str, int] = defaultdict(int)
    for (kind, source_id), by_rate in sorted(groups.items()):
        if kind in ("credit", "arrears"):
            for rate, draws in by_rate.items():
                gross = sum(drawn.amount for drawn in draws)
                tax = tax_in(gross, rate)
                books.earn(kind, draws, tax)
                books.move(**{"unbilled" if kind == "credit" else "arrears": gross}, pending=-tax)
                owed_tax[source_id] += tax if kind == "arrears" else 0
    _settle_tax(books, wallet, owed_tax)
    return books


def _draw_prepaid(
    books: Books, kind: str, by_rate: Mapping[Fraction, Sequence[Drawn]], tax: int, own_rate: Fraction
) -> None:
    """Turn prepaid usage into revenue: at the money's own rate with the tax it released, else with the usage's tax."""
    gross = {rate: sum(drawn.amount for drawn in draws) for rate, draws in by_rate.items()}
    other = sum(amount for rate, amount in gross.items() if rate != own_rate)
    for rate, draws in sorted(by_rate.items()):
        own = share_out(tax, [gross[rate], other])[0] if rate == own_rate else tax_in(gross[rate], rate)
        books.earn(kind, draws, own)
        books.move(payable=-own)


def _settle_tax(books: Books, wallet: Wallet, owed_tax: Mapping[str, int]) -> None:
    """Make tax on arrears payable as far as receipts paid them."""
    for contract, paid in wallet.settled.items():
        used = sum(d.amount for d in wallet.drawn if d.kind == "arrears" and d.source == contract)
        tax = round_half_away(Fraction(owed_tax[contract] * paid, used)) if paid else 0
        books.move(arrears=-paid, pending=tax, payable=-tax)
