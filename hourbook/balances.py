"""A customer's balance: what it has, owes and uses up per day, in one consistent read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

from sqlmodel import Session

from base.money import decimal_text, format_minor
from hourbook import facts
from hourbook.daily import days_of_use
from hourbook.receiving import UnknownCustomerError
from hourbook.settings import Home
from ledger import store as ledger
from pricing.catalog import Catalog
from pricing.charges import UNIT_SCALE

BURN_DAYS = 7


@dataclass(frozen=True)
class LotRest:
    """What is left of one lot, pack or grant."""

    source_id: str
    kind: str  # lot pack grant
    rest: str  # an amount, or a pack's quantity
    unit: str  # the currency, or the pack's unit
    last_day: date | None
    project: str


@dataclass(frozen=True)
class Balance:
    """Where a customer stands; amounts in minor units, gross."""

    customer: str
    currency: str
    paid_minor: int  # left of what was paid in advance
    arrears_minor: int  # used and covered by nothing
    credit_limit_minor: int
    credit_used_minor: int  # not billed yet and billed, not paid
    unbilled_minor: int
    billed_minor: int
    burn_minor: int  # per day, over the last days
    lots: tuple[LotRest, ...]

    @property
    def available_minor(self) -> int:
        """What can still be used: prepaid rest and credit, less arrears."""
        return self.paid_minor + max(self.credit_limit_minor - self.credit_used_minor, 0) - self.arrears_minor

    @property
    def days_left(self) -> int | None:
        """How many days what is available lasts at the present rate; None where nothing is being used."""
        return max(self.available_minor, 0) // self.burn_minor if self.burn_minor > 0 else None

    def rows(self) -> list[dict[str, Any]]:
        """Return the figures as rows for a reader."""
        figures = {
            "prepaid": self.paid_minor,
            "arrears": self.arrears_minor,
            "credit limit": self.credit_limit_minor,
            "credit used": self.credit_used_minor,
            "available": self.available_minor,
            "used per day": self.burn_minor,
        }
        rows = [
            {"what": name, "amount": format_minor(minor, self.currency), "unit": self.currency, "until": ""}
            for name, minor in figures.items()
        ]
        rows.append(
            {
                "what": "days left",
                "amount": "" if self.days_left is None else str(self.days_left),
                "unit": "days",
                "until": "",
            }
        )
        for lot in self.lots:
            where = f" ({lot.project})" if lot.project else ""
            until = lot.last_day.isoformat() if lot.last_day else ""
            rows.append(
                {"what": f"{lot.kind} {lot.source_id}{where}", "amount": lot.rest, "unit": lot.unit, "until": until}
            )
        return rows


def balance_of(home: Home, session: Session, customer: str) -> Balance:
    """Return a customer's balance as the ledger has it now."""
    catalog = Catalog.from_facts(facts.as_of(session))
    if customer not in catalog.customers:
        raise UnknownCustomerError(customer)
    held: dict[tuple[str, str], int] = defaultdict(int)
    by_code: dict[str, int] = defaultdict(int)
    for key, amount in ledger.balances(session, customer=customer).items():
        held[key.code, key.detail] += amount
        by_code[key.code] += amount
    lots = []
    for source in ledger.funding_sources(session, customer=customer):
        rest = _rest(held, source.id, source.kind)
        unit = catalog.skus[source.sku].unit if source.kind == "pack" else source.currency
        text = (
            decimal_text(Fraction(rest, UNIT_SCALE[unit]), 6)
            if source.kind == "pack"
            else format_minor(rest, source.currency)
        )
        lots.append(LotRest(source.id, source.kind, text, unit, source.last_day, source.project))
    paid = sum(_rest(held, s.id, "lot") for s in ledger.funding_sources(session, customer=customer) if s.kind == "lot")
    limit = sum(
        catalog.minor(contract.credit_limit)
        for contract in catalog.contracts.values()
        if contract.customer == customer
        and contract.credit_limit is not None
        and contract.in_force(home.today(catalog.zone(customer)))
    )
    unbilled, billed = by_code["assets:receivable:unbilled"], by_code["assets:receivable:billed"]
    return Balance(
        customer=customer,
        currency=catalog.currency,
        paid_minor=paid,
        arrears_minor=by_code["assets:receivable:arrears"],
        credit_limit_minor=limit,
        credit_used_minor=unbilled + billed,
        unbilled_minor=unbilled,
        billed_minor=billed,
        burn_minor=_burn(home, session, customer, home.today(catalog.zone(customer))),
        lots=tuple(lots),
    )


def _burn(home: Home, session: Session, customer: str, today: date) -> int:
    """Return what the last full days cost on average, rounded up: days left should not promise too much."""
    days = days_of_use(home, session, customer, today - timedelta(days=BURN_DAYS), today - timedelta(days=1))
    return -(-sum(day.amount_minor for day in days) // BURN_DAYS)


def _rest(held: dict[tuple[str, str], int], source_id: str, kind: str) -> int:
    if kind == "lot":
        return -(held["liabilities:contract", source_id] + held["liabilities:vat_pending", source_id])
    return -held[f"liabilities:{kind}", source_id]
