"""Where to read from, and as of which numbers: usage, configuration and ledger, each as it was recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
from sqlmodel import Session

from base.period import day_start, each_month, month_days, month_of, next_month_start
from hourbook import facts
from hourbook.rollups import Window, read_rollup
from hourbook.settings import Home
from invoices.month import CreditTerms, Opening, opening_of
from ledger import store as ledger
from ledger.accounts import AccountKey
from ledger.funding import FundingSource
from metering import store as metering
from metering.lake import EventLake
from pricing.catalog import Catalog

Sources = Mapping[str, Sequence[FundingSource]]


@dataclass(frozen=True)
class Pins:
    """The numbers as of which everything is read; a document keeps them."""

    recorded_seq: int  # of usage events
    plan: int  # rollup plan
    config_seq: int  # of applied configuration
    ledger_seq: int


@dataclass(frozen=True)
class Reading:
    """One consistent view: where to read, as of which numbers, and which months were closed as of which."""

    home: Home
    session: Session
    pins: Pins
    closed: Mapping[str, Pins]

    def as_charged(self, month: str) -> Reading:
        """Return the view in which a closed month was charged: as of its own numbers, before later closes."""
        return replace(self, pins=self.closed[month], closed={m: p for m, p in self.closed.items() if m < month})

    def catalog(self) -> Catalog:
        """Return the configuration as of its number."""
        return Catalog.from_facts(facts.as_of(self.session, self.pins.config_seq))

    def usage(self, catalog: Catalog, first: str, last: str) -> pl.DataFrame:
        """Return rollup rows of the months from first to last, in every customer's zone."""
        zones = {ZoneInfo(zone) for zone in (*catalog.customer_zones.values(), catalog.zone_name)}
        begin = min(day_start(month_days(first)[0], zone) for zone in zones)
        end = max(day_start(next_month_start(month_days(last)[0]), zone) for zone in zones)
        return self.usage_between(begin, end)

    def usage_between(self, begin: datetime, end: datetime) -> pl.DataFrame:
        """Return rollup rows whose span lies between two instants."""
        plan = metering.plan_of(self.session, self.pins.plan)
        window = Window(begin, end, self.pins.recorded_seq)
        return read_rollup(self.session, EventLake(self.home.lake), plan, window)

    def late_months(self, catalog: Catalog) -> list[str]:
        """Return the settled months that facts recorded after the last close may change, oldest first."""
        if not self.closed:
            return []
        last = max(self.closed)
        pins = self.closed[last]
        heads = EventLake(self.home.lake).partitions()
        days: list[date] = []
        if pins.config_seq == self.pins.config_seq:
            heads = heads.filter(pl.col("recorded_seq") > pins.recorded_seq)
        else:
            days = purchase_days(catalog)
        # A UTC date may begin on the local day before.
        days += [date.fromisoformat(text) - timedelta(days=1) for text in heads["start_date"]]
        return list(each_month(month_of(min(days)), last)) if days else []

    def sources(self) -> dict[str, list[FundingSource]]:
        """Return lots, packs and grants by customer."""
        by_customer: dict[str, list[FundingSource]] = defaultdict(list)
        for source in ledger.funding_sources(self.session, up_to_seq=self.pins.ledger_seq):
            by_customer[source.customer].append(source)
        return by_customer

    def accrued(self, months: Iterable[str]) -> dict[AccountKey, int]:
        """Return what accruals of these months moved, debit positive."""
        periods = tuple(months)
        if not periods:
            return {}
        return ledger.movements(self.session, kinds=("accrual",), periods=periods, up_to_seq=self.pins.ledger_seq)

    def openings(self, catalog: Catalog, sources: Sources, month: str) -> dict[str, Opening]:
        """Return what every customer has when a month opens that follows the closed ones."""
        accrued: dict[str, dict[AccountKey, int]] = defaultdict(dict)
        for key, amount in self.accrued(self.closed).items():
            accrued[key.customer][key] = amount
        credit = self._credit_terms(catalog)
        first, _ = month_days(month)
        return {
            name: opening_of(sources.get(name, ()), accrued.get(name, {}), credit.get(name, ()), first=first)
            for name in catalog.customers
        }

    def _credit_terms(self, catalog: Catalog) -> dict[str, list[CreditTerms]]:
        payments: dict[str, list[tuple[date, int]]] = defaultdict(list)
        for paid in ledger.transactions(self.session, kinds=("payment",), up_to_seq=self.pins.ledger_seq):
            for key, amount in paid.transaction.movements().items():
                if key.code == "assets:receivable:billed":
                    payments[key.detail].append((paid.transaction.effective_on, -amount))
        terms: dict[str, list[CreditTerms]] = defaultdict(list)
        for number, contract in sorted(catalog.contracts.items()):
            if contract.credit_limit is not None:
                limit, paid_so_far = catalog.minor(contract.credit_limit), tuple(sorted(payments[number]))
                terms[contract.customer].append(
                    CreditTerms(number, contract.valid_from, contract.last_day, limit, paid_so_far)
                )
        return terms


def purchase_days(catalog: Catalog) -> list[date]:
    """Return the days on which leases begin and one-off charges fall."""
    leases = [lease.valid_from for lease in catalog.leases.values()]
    return leases + [charge.on for charge in catalog.one_offs.values()]
