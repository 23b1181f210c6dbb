"""Issued documents: their PDF, their derivation again from recorded facts, their explanation, their payment."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import date

from sqlmodel import Session

from base.money import format_minor
from hourbook.closes import closes_by_month, pins_of
from hourbook.closing import documents_of
from hourbook.database import read_session, run_write
from hourbook.deriving import derive
from hourbook.reading import Reading
from hourbook.settings import Home
from invoices import store as invoices
from invoices.document import DocumentContent, content_hash
from invoices.pdf import render
from invoices.postings import bill_paid
from ledger import store as ledger


class PaymentRefusedError(ValueError):
    """A payment that cannot be taken for this document."""


@dataclass(frozen=True)
class Rebuilt:
    """A document derived again; equal means byte for byte."""

    number: str
    content_equal: bool
    pdf_equal: bool
    pdf: bytes

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.content_equal and self.pdf_equal


def pdf_of(home: Home, number: str) -> bytes:
    """Return a document's PDF, and note its fingerprint the first time."""
    with read_session(home.engine) as session:
        pdf = render(invoices.content_of(invoices.document(session, number)))
    return _noted(home, number, pdf)


def _noted(home: Home, number: str, pdf: bytes) -> bytes:
    if not run_write(home.engine, lambda session: invoices.keep_rendering(session, number, pdf)):
        raise RuntimeError(f"the PDF of {number} differs from the one rendered first; `hourbook rebuild {number}`")
    return pdf


def derived_content(home: Home, session: Session, row: invoices.DocumentRow) -> DocumentContent:
    """Derive an issued document again, from recorded facts as of the numbers that its close pinned."""
    close = invoices.close_of(session, row.month)
    if close is None:
        raise LookupError(f"{row.month} has no close, so {row.number} cannot be derived")
    pins = pins_of(close)
    closed = {month: p for month, p in closes_by_month(session).items() if month < row.month}
    derived = derive(Reading(home, session, pins, closed), [row.month])[row.month]
    for content in documents_of(session, derived, pins, issued_on=close.issued_on):
        if (content.customer.id, content.kind, ",".join(content.contracts)) == (row.customer, row.kind, row.contracts):
            issued = invoices.content_of(row)
            return replace(content, number=issued.number, series=issued.series)
    raise LookupError(f"{row.number} cannot be derived: its customer has no such document of {row.month}")


def rebuild(home: Home, number: str) -> Rebuilt:
    """Derive an issued document again and compare it with what was issued, content and PDF."""
    with read_session(home.engine) as session:
        row = invoices.document(session, number)
        issued, issued_hash = invoices.content_of(row), row.content_hash
        first = invoices.rendering_of(session, number)
        content = derived_content(home, session, row)
    pdf = render(content)
    wanted = first or hashlib.sha256(render(issued)).hexdigest()
    return Rebuilt(number, content_hash(content) == issued_hash, hashlib.sha256(pdf).hexdigest() == wanted, pdf)


def pay(home: Home, number: str, amount_minor: int, *, reference: str, paid_on: date) -> bool:
    """Record a payment of an invoice; False where the same payment was there already."""
    return run_write(
        home.engine, lambda session: _pay(home, session, number, amount_minor, reference=reference, paid_on=paid_on)
    )


def _pay(home: Home, session: Session, number: str, amount_minor: int, *, reference: str, paid_on: date) -> bool:
    row = invoices.document(session, number)
    content = invoices.content_of(row)
    for known in invoices.payments(session):
        if known.reference == reference:
            if (known.number, known.amount_minor) == (number, amount_minor):
                return False
            shown = format_minor(known.amount_minor, content.currency)
            raise PaymentRefusedError(f"payment {reference!r} is already there: {shown} for {known.number}")
    if content.kind != "invoice":
        raise PaymentRefusedError(f"{number} is a {content.kind}; it is settled by topping up: hourbook topup")
    paid = sum(payment.amount_minor for payment in invoices.payments(session, number))
    open_minor = content.total_minor - paid
    if not 0 < amount_minor <= open_minor:
        shown = format_minor(open_minor, content.currency)
        raise PaymentRefusedError(f"{number} has {shown} open; a payment is more than 0 and at most that")
    posting = bill_paid(content, amount_minor, paid_before_minor=paid, reference=reference, paid_on=paid_on)
    ledger.post(session, posting, home.now())
    payment = invoices.PaymentRow(
        reference=reference, number=number, amount_minor=amount_minor, paid_on=paid_on, recorded_at=home.now()
    )
    invoices.add_payment(session, payment)
    return True
