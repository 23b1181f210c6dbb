"""What a caller may look at: balances and documents, its own only; reading never waits for a writer."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass

from fastapi import Response
from sqlmodel import Session

from hourbook.balances import Balance, balance_of
from hourbook.database import read_session, run_write
from hourbook.errors import NotFoundError, StillCountingError
from hourbook.keys import Caller
from hourbook.refreshing import plan_now
from hourbook.settings import Home
from invoices import store as invoices
from invoices.document import DocumentContent
from invoices.pdf import render
from metering import store as metering

# Fonts are shared by all documents while they are drawn.
_drawing = threading.Lock()


@dataclass(frozen=True)
class Listed:
    """A document as it is listed, and what was paid of it."""

    content: DocumentContent
    paid_minor: int

    @property
    def open_minor(self) -> int:
        """What is not paid yet; a statement asks for nothing."""
        return self.content.total_minor - self.paid_minor if self.content.kind == "invoice" else 0


def whose(caller: Caller, wanted: str | None) -> str | None:
    """Return the customer whose data is asked for, None for all; another's data does not exist for a customer."""
    if caller.role == "customer" and wanted is None:
        return caller.customer
    if wanted is not None and not caller.may_see(wanted):
        raise NotFoundError
    return wanted


def check_counted(session: Session) -> None:
    """Refuse figures for the moment in which usage must be counted anew, after its configuration changed."""
    if metering.plan_number(session, plan_now(session)) is None:
        raise StillCountingError("usage is being counted under new configuration; try again in a few seconds")


def counted_balance(home: Home, session: Session, customer: str) -> Balance:
    """Return a customer's balance, unless usage has to be counted first."""
    check_counted(session)
    return balance_of(home, session, customer)


def visible_document(session: Session, caller: Caller, number: str) -> invoices.DocumentRow:
    """Return a document; another customer's does not exist."""
    row = invoices.document(session, number)
    if not caller.may_see(row.customer):
        raise NotFoundError
    return row


def listed(session: Session, row: invoices.DocumentRow) -> Listed:
    """Return a document with what was paid of it."""
    paid = sum(payment.amount_minor for payment in invoices.payments(session, row.number))
    return Listed(invoices.content_of(row), paid)


def listed_documents(session: Session, *, month: str | None = None, customer: str | None = None) -> list[Listed]:
    """Return issued documents in order of number: of a month, of a customer, or both."""
    return [listed(session, row) for row in invoices.documents(session, month=month, customer=customer)]


@dataclass(frozen=True)
class Drawn:
    """A document's PDF; a first drawing is noted afterwards, as that writes."""

    number: str
    pdf: bytes
    first: bool

    def note(self, home: Home) -> None:
        """Note the first drawing's fingerprint: every later one must equal it."""
        if self.first:
            run_write(home.engine, lambda session: invoices.keep_rendering(session, self.number, self.pdf))


def pdf_response(drawn: Drawn) -> Response:
    """Answer with a document's PDF."""
    headers = {"Content-Disposition": f'inline; filename="{drawn.number}.pdf"'}
    return Response(drawn.pdf, media_type="application/pdf", headers=headers)


def draw(home: Home, caller: Caller, number: str) -> Drawn:
    """Draw a document that the caller may see."""
    with read_session(home.engine) as session:
        content = invoices.content_of(visible_document(session, caller, number))
        first = invoices.rendering_of(session, number)
    with _drawing:
        pdf = render(content)
    if first and hashlib.sha256(pdf).hexdigest() != first:
        raise RuntimeError(f"the PDF of {number} differs from the one drawn first; `hourbook invoice rebuild {number}`")
    return Drawn(number, pdf, not first)
