"""Which months are closed or being closed, and as of which numbers."""

from __future__ import annotations

import orjson
from sqlmodel import Session

from hourbook.reading import Pins
from invoices import store as invoices


def pins_of(row: invoices.PeriodCloseRow) -> Pins:
    """Return the numbers that a close pinned."""
    return Pins(**orjson.loads(row.pins))


def closes_by_month(session: Session) -> dict[str, Pins]:
    """Return the closed months with their numbers."""
    return {row.month: pins_of(row) for row in invoices.closes(session) if row.status == "closed"}


def closing_pins(session: Session) -> tuple[str, Pins] | None:
    """Return the month that is being closed just now, with its numbers; None where there is none."""
    for row in invoices.closes(session):
        if row.status == "closing":
            return row.month, pins_of(row)
    return None
