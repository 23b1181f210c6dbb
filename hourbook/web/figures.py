"""What the customer page shows: one consistent reading of balance, use, prepaid money and documents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction

from sqlmodel import Session

from hourbook.balances import Balance, LotRest
from hourbook.closes import closes_by_month
from hourbook.daily import DayOfUse, Used, by_day, hours_of, splits_of_use
from hourbook.reading import Reading
from hourbook.refreshing import current_pins
from hourbook.settings import Home
from hourbook.viewing import Listed, counted_balance, listed_documents
from ledger import store as ledger
from ledger.funding import FundingSource
from pricing.catalog import Catalog
from pricing.models import Contract, Customer

DAYS_SHOWN = 30


@dataclass(frozen=True)
class ProjectUse:
    """What one project used and cost over the days shown."""

    id: str
    core_hours: Fraction
    card_hours: Fraction
    amount_minor: int


@dataclass(frozen=True)
class SourceRest:
    """A receipt, pack or grant, and what is left of it."""

    source: FundingSource
    rest: LotRest

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return Fraction(self.rest.rest) == 0


@dataclass(frozen=True)
class CustomerFigures:
    """Everything that stands on a customer's page."""

    customer: Customer
    contracts: tuple[Contract, ...]
    today: date
    balance: Balance
    days: tuple[DayOfUse, ...]
    projects: tuple[ProjectUse, ...]  # the dearest first
    sources: tuple[SourceRest, ...]  # what is used up last
    documents: tuple[Listed, ...]  # the newest first

    @property
    def core_hours(self) -> Fraction:
        """Of all days shown."""
        return sum((day.core_hours for day in self.days), Fraction(0))

    @property
    def card_hours(self) -> Fraction:
        """Of all days shown."""
        return sum((day.card_hours for day in self.days), Fraction(0))

    @property
    def amount_minor(self) -> int:
        """Of all days shown."""
        return sum(day.amount_minor for day in self.days)


def customer_figures(home: Home, session: Session, customer: str) -> CustomerFigures:
    """Read all that a customer's page shows, as of one moment."""
    balance = counted_balance(home, session, customer)
    reading = Reading(home, session, current_pins(session), closes_by_month(session))
    catalog = reading.catalog()
    today = home.today(catalog.zone(customer))
    first = today - timedelta(days=DAYS_SHOWN - 1)
    used = splits_of_use(reading, catalog, customer, first, today)
    return CustomerFigures(
        customer=catalog.customers[customer],
        contracts=tuple(one for _, one in sorted(catalog.contracts.items()) if one.customer == customer),
        today=today,
        balance=balance,
        days=tuple(by_day(used, first, today)),
        projects=tuple(_projects(used)),
        sources=_sources(session, balance),
        documents=tuple(reversed(listed_documents(session, customer=customer))),
    )


def _projects(used: Iterable[Used]) -> list[ProjectUse]:
    hours: dict[tuple[str, str], int] = defaultdict(int)
    amounts: dict[str, int] = defaultdict(int)
    for unit, split in used:
        hours[split.project, unit] += split.quantity
        amounts[split.project] += split.amount_minor
    projects = [
        ProjectUse(name, hours_of(hours[name, "core-hour"]), hours_of(hours[name, "card-hour"]), amount)
        for name, amount in amounts.items()
    ]
    return sorted(projects, key=lambda project: (-project.amount_minor, project.id))


def _sources(session: Session, balance: Balance) -> tuple[SourceRest, ...]:
    rests = {lot.source_id: lot for lot in balance.lots}
    sources = [
        SourceRest(source, rests[source.id])
        for source in ledger.funding_sources(session, customer=balance.customer)
        if source.id in rests
    ]
    return tuple(sorted(sources, key=lambda one: (one.empty, one.source.received_on, one.source.id)))


@dataclass(frozen=True)
class CustomerLine:
    """A customer in finance's list."""

    customer: Customer
    prepaid_minor: int
    credit_limit_minor: int
    credit_used_minor: int
    arrears_minor: int


_PREPAID = ("liabilities:contract", "liabilities:vat_pending")
_CREDIT = ("assets:receivable:unbilled", "assets:receivable:billed")


def customer_lines(home: Home, session: Session, catalog: Catalog) -> list[CustomerLine]:
    """Return every customer with what the ledger says of it, in order of id."""
    prepaid: dict[str, int] = defaultdict(int)
    credit: dict[str, int] = defaultdict(int)
    arrears: dict[str, int] = defaultdict(int)
    lots = {source.id for source in ledger.funding_sources(session) if source.kind == "lot"}
    for key, amount in ledger.balances(session).items():
        if key.code in _PREPAID and key.detail in lots:
            prepaid[key.customer] -= amount
        elif key.code in _CREDIT:
            credit[key.customer] += amount
        elif key.code == "assets:receivable:arrears":
            arrears[key.customer] += amount
    limits: dict[str, int] = defaultdict(int)
    for contract in catalog.contracts.values():
        if contract.credit_limit is not None and contract.in_force(home.today(catalog.zone(contract.customer))):
            limits[contract.customer] += catalog.minor(contract.credit_limit)
    return [
        CustomerLine(customer, prepaid[name], limits[name], credit[name], arrears[name])
        for name, customer in sorted(catalog.customers.items())
    ]
