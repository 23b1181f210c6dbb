"""Funding sources: what a customer's charges may be drawn from besides credit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from ledger.journal import canonical_json


@dataclass(frozen=True)
class FundingSource:
    """A lot (one receipt), a pack (prepaid quantity of one SKU) or a grant (face value given); never changed."""

    id: str
    kind: Literal["lot", "pack", "grant"]
    customer: str
    contract: str
    reference: str  # of the receipt or decision; one customer's reference is recorded once
    received_on: date  # first day on which it covers usage
    last_day: date | None = None  # None: no end
    project: str = ""  # the only project that may draw it; "" any
    sku: str = ""  # packs only
    gross_minor: int = 0  # money paid, or a grant's face value; with tax
    currency: str = "CNY"
    tax_rate: Decimal = Decimal(0)
    quantity: int = 0  # packs only, in UNIT_SCALE parts of the SKU's unit
    note: str = ""

    def content(self) -> dict[str, Any]:
        """Return the source as plain values, as it is stored and fingerprinted."""
        return {
            "id": self.id,
            "kind": self.kind,
            "customer": self.customer,
            "contract": self.contract,
            "reference": self.reference,
            "received_on": self.received_on.isoformat(),
            "last_day": self.last_day.isoformat() if self.last_day else "",
            "project": self.project,
            "sku": self.sku,
            "gross_minor": self.gross_minor,
            "currency": self.currency,
            "tax_rate": str(self.tax_rate),
            "quantity": self.quantity,
            "note": self.note,
        }


def sources_hash(sources: Iterable[FundingSource]) -> str:
    """Fingerprint sources; their transaction carries it, so the ledger's chain covers them too."""
    ordered = sorted(sources, key=lambda source: source.id)
    return hashlib.sha256(canonical_json({"sources": [source.content() for source in ordered]})).hexdigest()
