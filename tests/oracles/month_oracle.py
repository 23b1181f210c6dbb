"""A whole month of a home from its raw files: what every document and every account must say, computed a second way."""

from __future__ import annotations

from calendar import monthrange
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from .money_oracle import Books, Wallet, charges_of, draw_month, fill_wallet, keep_books
from .price_oracle import Line, LineKey, PriceList, Unplaced, exact, minor, month_lines, read_facts
from .usage_oracle import Use, attempts, read_csv, usage

ON_STATEMENT = ("pack", "grant", "lot", "arrears")


class Log(NamedTuple):
    """The accounting files of one cluster that are to be trusted."""

    cluster: str
    files: Sequence[Path]


@dataclass(frozen=True)
class Expected:
    """What a month means for one customer. Money in minor units, gross; movements debit positive."""

    customer: str
    lines: Mapping[LineKey, Line]
    drawn: Mapping[tuple[LineKey, str, str], int]  # by line, kind of source and source
    invoice_total: int  # the part drawn on credit
    invoice_tax: int
    statement_total: int  # the part drawn from packs, grants, receipts and arrears
    statement_tax: int
    wallet_balance: int  # what is left of receipts at the end of the month
    grants_left: int
    arrears: int  # used, covered by nothing, not settled
    movements: Mapping[str, int]  # that usage makes, by account code; grants and hours of packs are not money
    income: Mapping[tuple[str, str], int]  # net, by SKU and cluster


@dataclass(frozen=True)
class ExpectedMonth:
    """A month of all customers."""

    month: str
    uses: Sequence[Use]
    customers: Mapping[str, Expected]
    unplaced: Sequence[Unplaced]  # what must block the close

    @property
    def movements(self) -> dict[str, int]:
        """What usage moves in the books of all customers, by account code."""
        sums: dict[str, int] = defaultdict(int)
        for customer in self.customers.values():
            for code, amount in customer.movements.items():
                sums[code] += amount
        return dict(sums)


def days_of(month: str) -> list[date]:
    """Return the days of a month."""
    first = date.fromisoformat(f"{month}-01")
    return [first + timedelta(days=offset) for offset in range(monthrange(first.year, first.month)[1])]


def read_usage(logs: Iterable[Log], prices: PriceList) -> list[Use]:
    """Return what ran on every cluster, cut at the midnights of every customer's zone."""
    zones = {prices.zone(customer) for customer in ("", *prices.zones)}
    measures = prices.facts["measures"]
    return [use for log in logs for use in usage(attempts(prices.clusters[log.cluster], log.files), zones, measures)]


def expected_month(logs: Iterable[Log], facts_folder: Path, receipts: Path | None, month: str) -> ExpectedMonth:
    """Compute the first month of a home from its logs, its TOML and its receipts."""
    prices = PriceList(read_facts(facts_folder))
    uses = read_usage(logs, prices)
    lines, unplaced = month_lines(uses, prices, month)
    last = days_of(month)[-1].isoformat()
    paid = [row for row in read_csv(receipts) if row["received_on"] <= last] if receipts else []
    customers = {}
    for customer in prices.zones:
        own = [line for line in lines if line.key.customer == customer]
        wallet = fill_wallet(customer, prices.facts, paid)
        draw_month(wallet, charges_of(own), days_of(month))
        packs = {
            pack["id"]: minor(exact(pack["price"])) for pack in prices.facts["packs"] if pack["customer"] == customer
        }
        books = keep_books(wallet, packs, exact(prices.operator["tax_rate"]))
        customers[customer] = _expected(customer, own, wallet, books)
    return ExpectedMonth(month, uses, customers, unplaced)


def _expected(customer: str, lines: Sequence[Line], wallet: Wallet, books: Books) -> Expected:
    keys = {"|".join(map(str, line.key)): line.key for line in lines}
    drawn: dict[tuple[LineKey, str, str], int] = defaultdict(int)
    by_kind: dict[str, int] = defaultdict(int)
    for part in wallet.drawn:
        drawn[keys[part.charge.line], part.kind, part.source] += part.amount
        by_kind[part.kind] += part.amount
    return Expected(
        customer=customer,
        lines={line.key: line for line in lines},
        drawn=drawn,
        invoice_total=by_kind["credit"],
        invoice_tax=books.tax["credit"],
        statement_total=sum(by_kind[kind] for kind in ON_STATEMENT),
        statement_tax=sum(books.tax[kind] for kind in ON_STATEMENT),
        wallet_balance=sum(lot.rest for lot in wallet.lots),
        grants_left=sum(grant.rest for grant in wallet.grants),
        arrears=sum(wallet.arrears.values()),
        movements={code: amount for code, amount in books.moved.items() if amount},
        income={product: amount for product, amount in books.income.items() if amount},
    )


def hours(seconds: int) -> Fraction:
    """Return exact hours."""
    return Fraction(seconds, 3600)
