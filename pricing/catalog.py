"""The catalog: all that pricing knows, typed, as one set of recorded facts says it.

A catalog is made from the facts as of a number and never changes; the same facts give the same catalog. It answers
who pays (`contract_on`), at which price (`price_on`) and with which tax (`tax_rate`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ValidationError

from base.money import parse_amount
from metering.clusters import Cluster
from metering.plan import Measure, RollupPlan
from pricing.charges import UNIT_SCALE
from pricing.fields import decimal_text
from pricing.kinds import FACT_KINDS
from pricing.models import (
    Contract,
    Customer,
    Grant,
    Lease,
    OneOffCharge,
    Operator,
    Pack,
    PriceChange,
    Sku,
    SkuRule,
    WriteOff,
)
from pricing.models import Mapping as UsageMapping

DEFAULT_ZONE = "Asia/Shanghai"
ANY_CONTRACT = ""  # owner of the price book's prices


class PriceNotFoundError(LookupError):
    """A SKU was used on a day before its first price; it is never free by accident."""

    def __init__(self, sku: str, on: date) -> None:
        super().__init__(f"no price for {sku!r} was in force on {on.isoformat()}; add one under [[prices]]")
        self.sku = sku
        self.on = on


class FactError(ValueError):
    """A recorded fact does not fit its model."""


@dataclass(frozen=True)
class PriceInForce:
    """The price of a SKU on a day: the contract's own, else the price book's."""

    sku_price_id: str
    change: PriceChange


Timeline = tuple[list[date], list[PriceInForce]]  # prices, oldest first, each with the day from which it holds


@dataclass(frozen=True)
class Catalog:
    """Everything that says what usage is whose, and what it costs."""

    operator: Operator | None = None
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    customers: Mapping[str, Customer] = field(default_factory=dict)
    contracts: Mapping[str, Contract] = field(default_factory=dict)
    mappings: Mapping[str, UsageMapping] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    skus: Mapping[str, Sku] = field(default_factory=dict)
    rules: tuple[SkuRule, ...] = ()  # in the order in which they are tried
    prices: Mapping[str, PriceChange] = field(default_factory=dict)
    packs: Mapping[str, Pack] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)
    one_offs: Mapping[str, OneOffCharge] = field(default_factory=dict)
    grants: Mapping[str, Grant] = field(default_factory=dict)
    write_offs: Mapping[str, WriteOff] = field(default_factory=dict)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Catalog:
        """Build the catalog from bodies by kind and key; kinds of other packages are left to them."""
        typed = {name: _typed(name, facts.get(name, {})) for name in FACT_KINDS}
        return cls(
            operator=next(iter(typed["operator"].values()), None),
            clusters=typed["cluster"],
            customers=typed["customer"],
            contracts=typed["contract"],
            mappings=typed["mapping"],
            measures=typed["measure"],
            skus=typed["sku"],
            rules=tuple(sorted(typed["sku_rule"].values(), key=lambda rule: rule.order)),
            prices=typed["price"],
            packs=typed["pack"],
            leases=typed["lease"],
            one_offs=typed["one_off_charge"],
            grants=typed["grant"],
            write_offs=typed["write_off"],
        )

    @property
    def zone_name(self) -> str:
        """The operator's billing zone."""
        return self.operator.billing_timezone if self.operator else DEFAULT_ZONE

    @property
    def currency(self) -> str:
        """The one currency of all prices."""
        return self.operator.currency if self.operator else "CNY"

    def zone(self, customer: str = "") -> ZoneInfo:
        """Return the zone that decides which day a customer's second belongs to; without one, the operator's."""
        return ZoneInfo(self.customer_zones.get(customer, self.zone_name))

    @cached_property
    def customer_zones(self) -> Mapping[str, str]:
        """The billing zone of each customer: that of its contracts, else the operator's."""
        zones = dict.fromkeys(self.customers, self.zone_name)
        zones.update({c.customer: c.timezone for _, c in sorted(self.contracts.items()) if c.timezone})
        return zones

    @cached_property
    def _contracts_of(self) -> Mapping[str, Sequence[Contract]]:
        # A contract that names projects goes before one that takes the rest.
        return _grouped(sorted(self.contracts.values(), key=lambda c: (not c.projects, c.number)))

    def contract_on(self, customer: str, project: str, day: date) -> Contract | None:
        """Return the contract that a project's usage of a day stands under, where one is in force."""
        for contract in self._contracts_of.get(customer, ()):
            if contract.in_force(day) and (not contract.projects or project in contract.projects):
                return contract
        return None

    @cached_property
    def price_histories(self) -> Mapping[tuple[str, str], Sequence[PriceChange]]:
        """Prices by (contract number, SKU), oldest first; the price book's stand under the number ""."""
        histories: dict[tuple[str, str], list[PriceChange]] = {}
        for change in self.prices.values():
            histories.setdefault((ANY_CONTRACT, change.sku), []).append(change)
        for contract in self.contracts.values():
            for change in contract.prices:
                histories.setdefault((contract.number, change.sku), []).append(change)
        for history in histories.values():
            history.sort(key=lambda change: change.effective_from)
        return histories

    def _latest(self, owner: str, sku: str, day: date) -> PriceChange | None:
        history = self.price_histories.get((owner, sku), ())
        at = bisect_right(history, day, key=lambda change: change.effective_from)
        return history[at - 1] if at else None

    def price_on(self, sku: str, contract: str, day: date) -> PriceInForce:
        """Return the contract's own price of a day, else the price book's; refuse a day before the first."""
        known = self._timelines.get((contract, sku))
        days, prices = known or self._timelines.setdefault((contract, sku), self._timeline(contract, sku))
        at = bisect_right(days, day)
        if not at:
            raise PriceNotFoundError(sku, day)
        return prices[at - 1]

    @cached_property
    def _timelines(self) -> dict[tuple[str, str], Timeline]:
        # Filled as they are asked for: a contract buys few of the SKUs.
        return {}

    def _timeline(self, contract: str, sku: str) -> Timeline:
        """Return a SKU's prices under a contract by first day: the book's, until the contract has its own."""
        own = self.price_histories.get((contract, sku), ()) if contract else ()
        book = self.price_histories.get((ANY_CONTRACT, sku), ())
        before = [change for change in book if not own or change.effective_from < own[0].effective_from]
        owned = [("book", change) for change in before] + [(f"contract:{contract}", change) for change in own]
        prices = [PriceInForce(f"{owner}:{sku}:{change.effective_from.isoformat()}", change) for owner, change in owned]
        return [price.change.effective_from for price in prices], prices

    def list_price_on(self, sku: str, day: date) -> PriceChange | None:
        """Return the price book's price of a day, where it has one."""
        return self._latest(ANY_CONTRACT, sku, day)

    def tax_rate(self, sku: str) -> Fraction:
        """Return the SKU's tax rate, else the operator's."""
        own = self.skus[sku].tax_rate
        if own is not None:
            return Fraction(own)
        if self.operator is None:
            raise FactError("there is no [operator], so no tax rate; apply one first")
        return Fraction(self.operator.tax_rate)

    def scale(self, sku: str) -> int:
        """Return how many parts of the SKU's unit are counted as one."""
        return UNIT_SCALE[self.skus[sku].unit]

    def minor(self, amount: Decimal) -> int:
        """Return an amount of configuration in minor units; more decimals than the currency has are refused."""
        return parse_amount(decimal_text(amount), self.currency)

    def rollup_plan(self, extra_zones: Iterable[str] = ()) -> RollupPlan:
        """Return where spans must be cut and what must be counted, so that every day and measure is a sum of them."""
        zones = {self.zone_name, *extra_zones} | {c.timezone for c in self.contracts.values() if c.timezone}
        measures = tuple(measure for _, measure in sorted(self.measures.items()))
        return RollupPlan(zones=tuple(sorted(zones)), measures=measures)


def _typed(name: str, bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    model: type[BaseModel] = FACT_KINDS[name].model
    typed = {}
    for key, body in bodies.items():
        try:
            typed[key] = model.model_validate(body)
        except ValidationError as error:
            raise FactError(f"the recorded {name} {key!r} cannot be read: {error}") from error
    return typed


def _grouped(contracts: Iterable[Contract]) -> dict[str, list[Contract]]:
    groups: dict[str, list[Contract]] = {}
    for contract in contracts:
        groups.setdefault(contract.customer, []).append(contract)
    return groups
