"""Charges: what usage costs, as lines that stand on documents, each split over days, projects, users and clusters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Literal, NamedTuple

import polars as pl

# Pricing counts integers: hours of any unit in milliseconds of that unit, pieces as they are.
HOUR_SCALE = 3_600_000
UNIT_SCALE = {
    "core-hour": HOUR_SCALE,
    "card-hour": HOUR_SCALE,
    "node-hour": HOUR_SCALE,
    "wall-hour": HOUR_SCALE,
    "piece": 1,
    "card-month": 1,
    "node-month": 1,
}

# Usage that belongs to a customer and matched a SKU: what rating starts from. One row per combination.
CUSTOMER_USAGE_SCHEMA = pl.Schema(
    {
        "customer": pl.String,
        "contract": pl.String,
        "project": pl.String,
        "user": pl.String,
        "day": pl.Date,  # local day in the contract's zone
        "cluster": pl.String,
        "sku": pl.String,
        "quantity": pl.Int64,  # in UNIT_SCALE parts of the SKU's unit
    }
)


@dataclass(frozen=True, order=True)
class LineKey:
    """What one line is: a customer, contract, SKU, price entry, tier step and the month the usage fell in."""

    customer: str
    contract: str
    sku: str
    sku_price_id: str  # "book:core-hour:2026-11-01", "contract:HT-1:core-hour:2026-01-01", "pack:<id>", "lease:<id>", …
    tier: int  # step of a graduated price, from 1; 0 where the price has no tiers
    original_month: str  # "2026-11"

    @property
    def line_id(self) -> str:
        """One text for the key."""
        return "|".join(
            (self.customer, self.contract, self.sku, self.sku_price_id, str(self.tier), self.original_month)
        )


class Split(NamedTuple):
    """The part of a line that one day, project, user and cluster account for; amounts by largest remainder."""

    day: date
    project: str
    user: str
    cluster: str
    quantity: int  # in UNIT_SCALE parts
    amount_minor: int


@dataclass(frozen=True)
class ChargeLine:
    """A priced quantity: quantity × price, rounded once; gross."""

    key: LineKey
    category: Literal["Usage", "Purchase"]
    product: str
    unit: str
    quantity: int  # in UNIT_SCALE parts of the unit; leases: whole units
    unit_price: Decimal  # per unit, gross; of packs: price ÷ quantity as far as a decimal shows it
    list_unit_price: Decimal | None  # of the price book
    amount_minor: int
    tax_rate: Fraction
    reference: str  # the decision behind the price
    splits: tuple[Split, ...]  # in order of (day, project, user, cluster); their amounts add up to amount_minor

    @property
    def exact_quantity(self) -> Fraction:
        """Quantity in the unit, exactly."""
        return Fraction(self.quantity, UNIT_SCALE[self.unit])
