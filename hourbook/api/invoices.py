"""`GET /v1/invoices`: issued invoices and statements, what they say, and their PDF."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, BackgroundTasks, Query, Response
from pydantic import Field

from base.money import format_minor
from hourbook.api.access import Reader
from hourbook.api.bodies import MISSING, REFUSALS, Body, json_response
from hourbook.database import read_session
from hourbook.errors import InvalidRequestError
from hourbook.serving import MAX_ID, DocumentNumber, ServedHome
from hourbook.viewing import Listed, draw, listed, listed_documents, pdf_response, visible_document, whose

router = APIRouter(prefix="/v1", tags=["invoices"], responses={**REFUSALS, **MISSING})


class InvoiceParameters(Body):
    """Which documents; a customer sees its own, of one month or all."""

    month: str | None = Field(default=None, pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")
    customer: str | None = Field(default=None, max_length=MAX_ID)


class Summary(Body):
    """One document in a list; amounts are decimals as text."""

    number: str
    kind: str
    customer: str
    name: str
    month: str
    issued_on: date
    due_on: date | None
    currency: str
    total: str
    tax: str
    paid: str
    open: str  # of invoices: what is not paid yet


class InvoiceList(Body):
    """Documents in order of number."""

    invoices: list[Summary]


class Document(Summary):
    """A document with everything it says, as it was issued; amounts inside are minor units as text."""

    content_sha256: str
    content: dict[str, Any]


@router.get("/invoices", response_model=InvoiceList)
def get_invoices(asked: Annotated[InvoiceParameters, Query()], caller: Reader, home: ServedHome) -> Response:
    """List issued invoices and statements: of a month, of a customer, or both."""
    customer = whose(caller, asked.customer)
    if customer is None and asked.month is None:
        raise InvalidRequestError("name a month or a customer")
    with read_session(home.engine) as session:
        found = listed_documents(session, month=asked.month, customer=customer)
    return json_response({"invoices": [summary(one) for one in found]})


@router.get("/invoices/{number}", response_model=Document)
def get_invoice(number: DocumentNumber, caller: Reader, home: ServedHome) -> Response:
    """Return one document with all its lines."""
    with read_session(home.engine) as session:
        row = visible_document(session, caller, number)
        said = {"content_sha256": row.content_hash, "content": orjson.loads(row.content)}
        return json_response({**summary(listed(session, row)), **said})


@router.get(
    "/invoices/{number}/pdf",
    response_class=Response,
    responses={200: {"content": {"application/pdf": {}}, "description": "The document, always the same bytes"}},
)
def get_pdf(number: DocumentNumber, caller: Reader, home: ServedHome, later: BackgroundTasks) -> Response:
    """Return one document as PDF."""
    drawn = draw(home, caller, number)
    later.add_task(drawn.note, home)
    return pdf_response(drawn)


def summary(document: Listed) -> dict[str, Any]:
    """Return a document as it is listed."""
    content = document.content
    amounts = {
        "total": content.total_minor,
        "tax": content.tax_minor,
        "paid": document.paid_minor,
        "open": document.open_minor,
    }
    return {
        "number": content.number,
        "kind": content.kind,
        "customer": content.customer.id,
        "name": content.customer.name,
        "month": content.month,
        "issued_on": content.issued_on,
        "due_on": content.due_on,
        "currency": content.currency,
        **{name: format_minor(minor, content.currency) for name, minor in amounts.items()},
    }
