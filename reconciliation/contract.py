"""Supplier contracts: who delivers a cluster's capacity, and what it costs. Facts from TOML, checked as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import combinations, pairwise
from operator import attrgetter
from typing import Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from base.money import to_minor
from base.period import month_days
from pricing.fields import ContractNumber, Day, Entry, LowerId, Name, Pattern, Price, Rate, Text, Zone
from pricing.problems import Problem
from pricing.toml_files import Kind

FIXED_ITEM = "fixed"  # how a bill names the monthly amount of a fixed contract
FIXED_UNIT = "month"
ANY = "*"

_UNIT_OF = {"cpu": "core-hour", "node": "node-hour", "wall": "wall-hour", "card": "card-hour"}
# In parts of the unit's hour: cards are counted in thousandths.
_SECONDS = {"cpu": 3600, "node": 3600, "wall": 3600, "card": 3_600_000}


class Supplier(Entry):
    """Who delivers capacity and sends bills for it. `[[suppliers]]` in TOML."""

    id: LowerId
    name: Name
    name_en: Text = ""

    @property
    def fact_key(self) -> str:
        """What the entry is known by: a later entry of the same key is a new version of it."""
        return self.id


class SupplierItem(Entry):
    """What one unit of a resource costs from a day on. `[[supplier_contracts.items]]` in TOML."""

    item: Name  # as the bill names it
    partition: Pattern = ANY  # the bill's queue; "*" for any
    resource: str = Field(pattern=r"^(cpu|node|wall|card:[A-Za-z0-9._-]+)$")
    unit: Literal["core-hour", "node-hour", "wall-hour", "card-hour"]
    unit_price: Price  # gross: input VAT is included
    effective_from: Day

    @model_validator(mode="after")
    def _unit_fits_resource(self) -> Self:
        if _UNIT_OF[self.kind] != self.unit:
            unit = _UNIT_OF[self.kind]
            raise ValueError(f"{self.resource} is counted in {unit}, not {self.unit}")
        return self

    @property
    def kind(self) -> str:
        """The resource without a card's model: cpu, node, wall or card."""
        return self.resource.partition(":")[0]

    def quantity(self, metered: int, cpus_per_core: int) -> Fraction:
        """Turn what the rollup counted (resource-seconds; cards in thousandths) into units, exactly."""
        return Fraction(metered, _SECONDS[self.kind] * (cpus_per_core if self.kind == "cpu" else 1))


class SupplierContract(Entry):
    """What was agreed with a supplier for one cluster. `[[supplier_contracts]]` in TOML."""

    number: ContractNumber
    supplier: LowerId
    cluster: Name  # whose usage it delivers
    billing: Literal["by_use", "fixed"]
    timezone: Zone  # which month a second belongs to, for this supplier
    valid_from: Day
    last_day: Day | None = None
    tax_rate: Rate  # input VAT, included in its prices
    monthly_amount: Price | None = None  # fixed only, gross
    login: Literal["account", "user"] = "account"  # what of the scheduler's the supplier's bill names as our login
    tolerance_quantity: Price = Decimal(0)  # in the unit, per (queue, login, item)
    tolerance_amount: Price = Decimal(0)
    items: tuple[SupplierItem, ...] = ()  # by_use only

    @model_validator(mode="after")
    def _whole(self) -> Self:
        problems = [*self._billing_problems(), *_item_problems(self.items)]
        if self.last_day is not None and self.last_day < self.valid_from:
            problems.append(f"its last day {self.last_day} lies before its first {self.valid_from}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _billing_problems(self) -> Iterator[str]:
        """Name what does not go with the way it is billed."""
        if self.billing == "fixed":
            if self.monthly_amount is None:
                yield "billing = fixed needs a monthly_amount"
            if self.items:
                yield "billing = fixed has no items; leave them out or set billing = by_use"
        else:
            if not self.items:
                yield "billing = by_use needs at least one item"
            if self.monthly_amount is not None:
                yield "billing = by_use has no monthly_amount; leave it out or set billing = fixed"

    @property
    def fact_key(self) -> str:
        """What the entry is known by: a later entry of the same key is a new version of it."""
        return self.number

    @property
    def zone(self) -> ZoneInfo:
        """The zone that decides which day and month a second belongs to, for this supplier."""
        return ZoneInfo(self.timezone)

    @property
    def exact_tax_rate(self) -> Fraction:
        """The rate of the input VAT in its prices, exactly."""
        return Fraction(self.tax_rate)

    def days_in(self, month: str) -> tuple[date, date] | None:
        """Return the first and last day of a month on which the contract is in force; none where it is not."""
        first, last = month_days(month)
        first = max(first, self.valid_from)
        last = last if self.last_day is None else min(last, self.last_day)
        return (first, last) if first <= last else None

    def entry_for(self, partition: str, resource: str, day: date) -> SupplierItem | None:
        """Return the price of a resource on a day: that of the partition itself before the one of any partition."""
        return self._in_force([item for item in self.items if item.resource == resource], partition, day)

    def entry_named(self, item: str, partition: str, day: date) -> SupplierItem | None:
        """Return what the contract says of an item as the bill names it, for a queue on a day."""
        return self._in_force([entry for entry in self.items if entry.item == item], partition, day)

    def prices_queue(self, partition: str, day: date) -> bool:
        """Tell whether anything on a queue has a price on a day; what else is used there is included in it."""
        return self._in_force(self.items, partition, day) is not None

    @staticmethod
    def _in_force(entries: Sequence[SupplierItem], partition: str, day: date) -> SupplierItem | None:
        for scope in (partition, ANY):
            scoped = [entry for entry in entries if entry.partition == scope and entry.effective_from <= day]
            if scoped:
                return max(scoped, key=lambda entry: entry.effective_from)
        return None

    def fixed_amount_minor(self, month: str, currency: str) -> int:
        """Return what a fixed contract costs in a month, gross; a part of a month is prorated to the day."""
        days = self.days_in(month)
        if self.monthly_amount is None or days is None:
            return 0
        first, last = month_days(month)
        share = Fraction((days[1] - days[0]).days + 1, (last - first).days + 1)
        return to_minor(Fraction(self.monthly_amount) * share, currency)


def _item_problems(items: Sequence[SupplierItem]) -> Iterator[str]:
    """Name items that contradict each other."""
    for one, other in combinations(items, 2):
        if (one.partition, one.resource, one.effective_from) == (other.partition, other.resource, other.effective_from):
            yield f"two prices of {one.resource} on partition {one.partition!r} from {one.effective_from}"
        if one.item == other.item and one.resource != other.resource:
            yield f"item {one.item!r} stands for {one.resource} and for {other.resource}; name them apart"


def check(
    suppliers: Sequence[Supplier], contracts: Sequence[SupplierContract], clusters: Collection[str]
) -> tuple[Problem, ...]:
    """Return what is wrong between the entries, in words that say what to do; nothing means they fit."""
    known = {supplier.id for supplier in suppliers}
    problems = [
        *_repeated("suppliers", [supplier.id for supplier in suppliers]),
        *_repeated("supplier_contracts", [contract.number for contract in contracts]),
    ]
    for contract in contracts:
        if contract.supplier not in known:
            problems.append(_unknown(contract, "supplier", contract.supplier, known))
        if contract.cluster not in clusters:
            problems.append(_unknown(contract, "cluster", contract.cluster, clusters))
    problems += _overlaps([c for c in contracts if c.billing == "by_use"], "its usage would be paid twice")
    for supplier in sorted(known):
        fixed = [c for c in contracts if c.billing == "fixed" and c.supplier == supplier]
        problems += _overlaps(fixed, "its monthly amount would be paid twice")
    return tuple(problems)


def _unknown(contract: SupplierContract, key: str, name: str, known: Collection[str]) -> Problem:
    message = f"there is no {key} {name!r}; known are {', '.join(sorted(known)) or 'none'}"
    return Problem(message, table="supplier_contracts", key=key, value=name, entry=contract.number)


def _repeated(table: str, names: Sequence[str]) -> Iterator[Problem]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Problem(f"stands {names.count(name)} times; keep one entry", table=table, entry=name)


def _overlaps(contracts: Sequence[SupplierContract], why: str) -> Iterator[Problem]:
    """Name neighbouring contracts of one cluster that are in force on the same day."""
    for cluster in sorted({contract.cluster for contract in contracts}):
        ordered = sorted((c for c in contracts if c.cluster == cluster), key=lambda c: (c.valid_from, c.number))
        for earlier, later in pairwise(ordered):
            if earlier.last_day is None or earlier.last_day >= later.valid_from:
                message = f"covers cluster {cluster!r} on {later.valid_from}, as {earlier.number} does: {why}; end one"
                yield Problem(message, table="supplier_contracts", entry=later.number)


_KEY = attrgetter("fact_key")

# The tables of configuration that this package owns, by their name in TOML.
KINDS = {
    kind.table: kind
    for kind in (
        Kind("supplier", "suppliers", Supplier, _KEY),
        Kind("supplier_contract", "supplier_contracts", SupplierContract, _KEY),
    )
}
