"""How charges fall on what a customer has: one pure pass by day over packs, grants, lots, credit line and arrears."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Literal

SourceKind = Literal["pack", "grant", "lot", "credit", "arrears"]


@dataclass(frozen=True, order=True)
class DayCharge:
    """What one line costs on one day for one project, user and cluster; gross, may be negative (a correction)."""

    day: date  # when it is charged, which decides the order
    usage_day: date  # when it was used, which decides what was valid
    sku: str
    project: str
    user: str
    cluster: str
    line_id: str
    contract: str
    amount_minor: int
    tax_rate: Fraction
    pack: str = ""  # the pack that covers it, where rating found one


@dataclass(frozen=True)
class Lot:
    """One receipt as a pot of its own; what was drawn in closed periods is no longer in it."""

    source_id: str
    contract: str  # "" for any
    project: str  # "" for any
    received_on: date
    last_day: date | None
    rest_minor: int


@dataclass(frozen=True)
class Grant:
    """Face value given, not paid for."""

    source_id: str
    contract: str
    granted_on: date
    last_day: date | None
    rest_minor: int


@dataclass(frozen=True)
class CreditLine:
    """How much a contract may use before paying."""

    contract: str
    valid_from: date
    last_day: date
    rest_minor: int  # limit less what is unbilled and open from closed periods
    payments: tuple[tuple[date, int], ...] = ()  # payments of bills in the pass free it again


@dataclass(frozen=True)
class OpenArrears:
    """Usage of closed periods that nothing has covered yet."""

    contract: str
    project: str
    month: str
    amount_minor: int


@dataclass(frozen=True)
class Draw:
    """A part of a day's charge, and what it was drawn from."""

    charge: DayCharge
    kind: SourceKind
    source_id: str  # pack, grant or lot; the contract for credit line and arrears
    amount_minor: int


@dataclass(frozen=True)
class Settlement:
    """Arrears that a receipt settled."""

    day: date
    lot: str
    contract: str
    project: str
    month: str  # in which the arrears arose
    amount_minor: int
