"""What stands on a document: an invoice, statement or credit note as plain values, with one canonical text and hash.

Amounts are integers in minor units, quantities and prices are decimal text, days are dates. The canonical JSON has
sorted keys and amounts as strings, so the same content always has the same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Literal

import orjson
from pydantic import PlainSerializer, TypeAdapter

Kind = Literal["invoice", "statement", "credit_note"]
Language = Literal["zh", "en"]
# In JSON an amount is a string: readers in other languages would lose digits of a large integer.
Minor = Annotated[int, PlainSerializer(str, return_type=str, when_used="json")]


@dataclass(frozen=True)
class Party:
    """Who issues or receives a document, as printed."""

    id: str
    name: str
    name_en: str = ""
    address: str = ""
    address_en: str = ""
    tax_id: str = ""
    phone: str = ""
    email: str = ""
    bank: str = ""
    bank_account: str = ""


@dataclass(frozen=True)
class DocumentLine:
    """One priced quantity, and the part of it that stands on this document."""

    n: int
    line_id: str
    sku: str
    sku_name: str
    sku_name_en: str
    product: str
    category: Literal["Usage", "Purchase", "Adjustment"]
    original_month: str
    price_source: str  # price book, contract, pack, lease or one-off, and its reference
    tier: int  # step of a graduated price, from 1; 0 where the price has none
    quantity: str  # at most six decimals
    unit: str
    unit_price: str
    list_unit_price: str  # "" where no list price exists
    line_amount_minor: Minor  # the whole line
    parts: dict[str, Minor]  # pack, grant, lot, credit, arrears: what covered the whole line, on whichever document
    amount_minor: Minor  # the part on this document
    tax_rate: str
    tax_minor: Minor


@dataclass(frozen=True)
class DayUsage:
    """What one day of the month used and cost."""

    day: date
    core_hours: str
    card_hours: str
    amount_minor: Minor


@dataclass(frozen=True)
class ShareRow:
    """What one project or user accounts for."""

    id: str
    name: str
    quantities: dict[str, str]  # unit -> quantity
    amount_minor: Minor


@dataclass(frozen=True)
class Receipt:
    """Money that arrived in the month."""

    day: date
    reference: str
    amount_minor: Minor


@dataclass(frozen=True)
class LotRow:
    """One funding lot or grant over the month."""

    id: str
    opening_minor: Minor
    added_minor: Minor
    drawn_minor: Minor
    closing_minor: Minor
    last_day: date | None = None
    project: str = ""  # the only project that may use it; "" for any


@dataclass(frozen=True)
class PackRow:
    """A prepaid quantity over the month."""

    id: str
    sku: str
    unit: str
    opening: str
    bought: str
    drawn: str
    closing: str
    last_day: date | None


@dataclass(frozen=True)
class Wallet:
    """A prepaid customer's money over the month; closing = opening + receipts − drawn − settled arrears."""

    opening_minor: Minor
    receipts: tuple[Receipt, ...]
    drawn_minor: Minor
    settled_arrears_minor: Minor
    closing_minor: Minor
    lots: tuple[LotRow, ...] = ()
    packs: tuple[PackRow, ...] = ()
    grants: tuple[LotRow, ...] = ()
    arrears_opening_minor: Minor = 0
    arrears_new_minor: Minor = 0
    arrears_settled_minor: Minor = 0
    arrears_closing_minor: Minor = 0


@dataclass(frozen=True)
class TaxGroup:
    """The lines of one tax rate: gross, the tax inside, and what remains."""

    rate: str
    gross_minor: Minor
    tax_minor: Minor
    net_minor: Minor


@dataclass(frozen=True)
class DocumentContent:
    """Everything that a document says; its page is a function of it."""

    kind: Kind
    number: str
    series: str
    issuer: Party
    customer: Party
    contracts: tuple[str, ...]
    language: Language
    currency: str
    month: str
    timezone: str
    first_day: date
    last_day: date
    issued_on: date
    due_on: date | None
    lines: tuple[DocumentLine, ...]
    usage_by_day: tuple[DayUsage, ...]
    by_project: tuple[ShareRow, ...]
    by_user: tuple[ShareRow, ...]
    tax: tuple[TaxGroup, ...]
    total_minor: Minor
    tax_minor: Minor
    net_minor: Minor
    wallet: Wallet | None = None
    pins: dict[str, int | str] = field(default_factory=dict)  # recorded_seq, plan, config_seq, ledger_seq, rules, …
    ledger_head: tuple[int, str] = (0, "")


_ADAPTER: TypeAdapter[DocumentContent] = TypeAdapter(DocumentContent)


def to_json(content: DocumentContent) -> bytes:
    """Write the content as canonical JSON: sorted keys, no spaces, amounts as strings."""
    return orjson.dumps(_ADAPTER.dump_python(content, mode="json"), option=orjson.OPT_SORT_KEYS)


def from_json(text: bytes | str) -> DocumentContent:
    """Read the content that `to_json` wrote."""
    return _ADAPTER.validate_json(text)


def content_hash(content: DocumentContent) -> str:
    """Return the SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(to_json(content)).hexdigest()
