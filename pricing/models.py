"""The tables of configuration that say who buys what at which price. docs/configuration.md describes every key.

An entry is recorded as a fact under (`fact kind`, `fact_key`); a changed entry is a new version of the same fact.
Clusters and measures belong to metering, suppliers to reconciliation.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, model_validator

from pricing.fields import (
    FIRST_DAY,
    LAST_DAY,
    AnyId,
    ContractNumber,
    Day,
    Entry,
    LowerId,
    Name,
    Pattern,
    Price,
    ProjectPath,
    Rate,
    Text,
    WholeNumber,
    Zone,
)

Unit = Literal["core-hour", "card-hour", "node-hour", "wall-hour", "piece", "card-month", "node-month"]
Product = Literal["general-hpc", "industry-cloud", "ai-cloud", "conference", "software", "service"]

LEASE_UNITS = ("card-month", "node-month")
MEASURE_PREFIX = "measure:"


class Operator(Entry):
    """Our legal entity, its billing zone, currency and usual tax."""

    id: LowerId
    name: Name
    name_en: Text = ""
    tax_id: Text = ""
    address: Text = ""
    address_en: Text = ""
    phone: Text = ""
    email: Text = ""
    bank: Text = ""
    bank_account: Text = ""
    billing_timezone: Zone = "Asia/Shanghai"
    currency: Literal["CNY", "USD", "EUR", "HKD", "GBP", "SGD", "JPY"] = "CNY"
    tax_rate: Rate = Decimal("0.06")
    tax: Literal["included"] = "included"

    @property
    def fact_key(self) -> str:
        """There is one operator, so its fact has one key."""
        return "operator"


class Project(Entry):
    """What a customer's usage is split by."""

    id: AnyId
    name: Name
    name_en: Text = ""


class Customer(Entry):
    """Who is invoiced."""

    id: LowerId
    name: Name
    name_en: Text = ""
    kind: Literal["university", "institute", "company", "person"]
    language: Literal["zh", "en"] = "zh"
    email: Text = ""
    address: Text = ""
    tax_id: Text = ""
    projects: tuple[Project, ...] = ()

    @property
    def fact_key(self) -> str:
        """The customer's id."""
        return self.id

    @model_validator(mode="after")
    def _projects_differ(self) -> Self:
        ids = [project.id for project in self.projects]
        twice = sorted({project for project in ids if ids.count(project) > 1})
        if twice:
            raise ValueError(f"project {twice[0]!r} stands twice; give each its own id")
        return self


class Tier(Entry):
    """One step of a price by quantity: it holds up to a quantity in the month, the last one for the rest."""

    up_to: WholeNumber | None = None
    unit_price: Price


class PriceChange(Entry):
    """A unit price or its tiers, in force from a day on until the next change of the same SKU."""

    sku: LowerId
    effective_from: Day
    unit_price: Price | None = None
    tiers: tuple[Tier, ...] = ()
    # graduated: each part of the month's quantity at its own step's price; volume: all of it at the step it reaches.
    tier_mode: Literal["graduated", "volume"] = "graduated"
    reference: Text = ""

    @property
    def fact_key(self) -> str:
        """SKU and day, as in `core-hour@2026-11-01`."""
        return f"{self.sku}@{self.effective_from.isoformat()}"

    @model_validator(mode="after")
    def _one_form_of_price(self) -> Self:
        if (self.unit_price is None) == (not self.tiers):
            raise ValueError("a price is either unit_price or tiers; give one of them")
        if self.tiers:
            _check_tiers([tier.up_to for tier in self.tiers])
        elif self.tier_mode != "graduated":
            raise ValueError(f'tier_mode = "{self.tier_mode}" needs tiers; leave it out beside a unit_price')
        return self

    def steps(self) -> tuple[Tier, ...]:
        """The price as steps: a plain unit price is one open step."""
        return self.tiers if self.unit_price is None else (Tier(unit_price=self.unit_price),)


def _check_tiers(bounds: list[int | None]) -> None:
    *closed, last = bounds
    if last is not None:
        raise ValueError(f"the last tier must be open: leave out up_to = {last}")
    ends = [bound for bound in closed if bound is not None]
    if len(ends) != len(closed):
        raise ValueError("only the last tier may leave out up_to")
    if any(later <= earlier for earlier, later in pairwise(ends)):
        raise ValueError(f"tiers must ascend, but up_to goes {', '.join(map(str, ends))}")


class _Dated(Entry):
    """In force from a day to a day, both included."""

    valid_from: Day
    last_day: Day

    def in_force(self, day: date) -> bool:
        """Whether the day lies between both ends."""
        return self.valid_from <= day <= self.last_day

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Self:
        if self.last_day < self.valid_from:
            raise ValueError(f"last_day {self.last_day} lies before valid_from {self.valid_from}")
        return self


class Contract(_Dated):
    """The sales contract: everything charged stands under one."""

    number: ContractNumber
    customer: LowerId
    signed_on: Day
    billing: Literal["prepaid", "credit_line"]
    credit_limit: Price | None = None
    payment_days: WholeNumber | None = None
    timezone: Zone | None = None
    sales_person: Text = ""
    projects: tuple[AnyId, ...] = ()  # whose usage stands under it; empty: of all that no other contract names
    prices: tuple[PriceChange, ...] = ()

    @property
    def fact_key(self) -> str:
        """The contract's number."""
        return self.number

    @model_validator(mode="after")
    def _terms_fit_together(self) -> Self:
        on_credit = self.billing == "credit_line"
        if on_credit and self.credit_limit is None:
            raise ValueError('billing = "credit_line" needs a credit_limit, such as "200000.00"')
        if not on_credit and (self.credit_limit is not None or self.payment_days is not None):
            raise ValueError('credit_limit and payment_days go only with billing = "credit_line"')
        keys = [price.fact_key for price in self.prices]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"the price {twice[0]} stands twice; keep one")
        return self


class Mapping(Entry):
    """Whose usage an account and user of a cluster is. `*` stands for any."""

    cluster: Pattern
    account: Pattern
    user: Pattern = "*"
    project: ProjectPath
    valid_from: Day | None = None
    last_day: Day | None = None

    @property
    def fact_key(self) -> str:
        """Cluster, account, user and first day, as in `hpc1/grp_ml/*@2026-01-01`."""
        names = "/".join(_escaped(name) for name in (self.cluster, self.account, self.user))
        return f"{names}@{self.valid_from.isoformat() if self.valid_from else ''}"

    @property
    def customer_and_project(self) -> tuple[str, str]:
        """The two ids in `project`."""
        customer, _, project = self.project.partition("/")
        return customer, project

    @property
    def first(self) -> date:
        """The first day it holds."""
        return self.valid_from or FIRST_DAY

    @property
    def last(self) -> date:
        """The last day it holds."""
        return self.last_day or LAST_DAY

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"last_day {self.last} lies before valid_from {self.first}")
        return self


def _escaped(name: str) -> str:
    """Keep names apart in a key, whatever characters they hold."""
    return name.replace("%", "%25").replace("/", "%2F").replace("@", "%40")


class Sku(Entry):
    """What is sold, and in which unit."""

    id: LowerId
    product: Product
    name: Name
    name_en: Text = ""
    unit: Unit
    tax_rate: Rate | None = None

    @property
    def fact_key(self) -> str:
        """The SKU's id."""
        return self.id


class SkuRule(Entry):
    """Which usage is which SKU, or is included in what is charged otherwise. Lowest order first, first match wins."""

    order: int = Field(strict=True, ge=0, lt=2**31)
    cluster: Pattern = "*"
    partition: Pattern = "*"
    qos: Pattern = "*"
    resource: str = Field(pattern=r"^(\*|cpu|node|wall|(card|measure|counter):[^\s|]{1,200})$")
    sku: LowerId | None = None
    included: bool = False

    @property
    def fact_key(self) -> str:
        """Its order, so that two rules never compete for one place."""
        return str(self.order)

    @model_validator(mode="after")
    def _sku_or_included(self) -> Self:
        if (self.sku is None) == (not self.included):
            raise ValueError("a rule either names a sku or says included = true")
        return self


class Pack(_Dated):
    """A prepaid quantity of one SKU."""

    id: AnyId
    customer: LowerId
    contract: ContractNumber
    sku: LowerId
    quantity: WholeNumber
    price: Price
    bought_on: Day
    reference: Text = ""

    @property
    def fact_key(self) -> str:
        """The pack's id."""
        return self.id


class Lease(_Dated):
    """Cards or nodes rented by the month."""

    id: AnyId
    customer: LowerId
    contract: ContractNumber
    sku: LowerId
    quantity: WholeNumber
    project: AnyId
    cluster: Name

    @property
    def fact_key(self) -> str:
        """The lease's id."""
        return self.id


class OneOffCharge(Entry):
    """Something sold once, at the price of its day."""

    id: AnyId
    customer: LowerId
    contract: ContractNumber
    sku: LowerId
    quantity: WholeNumber = 1
    on: Day
    note: Text = ""

    @property
    def fact_key(self) -> str:
        """The charge's id."""
        return self.id


class Grant(Entry):
    """Face value given, not paid for."""

    id: AnyId
    customer: LowerId
    contract: ContractNumber
    face_value: Price
    granted_on: Day
    last_day: Day
    reason: Literal["trial", "bonus", "compensation"]

    @property
    def fact_key(self) -> str:
        """The grant's id."""
        return self.id


class WriteOff(Entry):
    """A person's decision that usage which cannot be charged stays uncharged, and why."""

    id: str = Field(pattern=r"^U-[0-9a-f]{8,64}$")  # of the exception
    reason: Name
    # What was decided on, in the exception's own parts; more usage than that needs a new decision.
    quantity: int | None = Field(default=None, strict=True, ge=0)

    @property
    def fact_key(self) -> str:
        """The exception's id."""
        return self.id
