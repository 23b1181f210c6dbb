"""`GET /v1/customers/{id}/balance`: what a customer has, owes and uses up."""

from __future__ import annotations

from datetime import date

from fastapi import APIRouter, Response

from base.money import format_minor
from hourbook.api.access import Reader
from hourbook.api.bodies import MISSING, REFUSALS, Body, json_response
from hourbook.balances import Balance
from hourbook.database import read_session
from hourbook.serving import CustomerId, ServedHome
from hourbook.viewing import counted_balance, whose

router = APIRouter(prefix="/v1", tags=["customers"], responses={**REFUSALS, **MISSING})


class Source(Body):
    """What is left of one receipt, pack or grant."""

    id: str
    kind: str
    rest: str
    unit: str
    last_day: date | None
    project: str


class BalanceBody(Body):
    """Amounts are decimals as text, tax included."""

    customer: str
    currency: str
    prepaid: str
    arrears: str
    credit_limit: str
    credit_used: str
    unbilled: str
    billed: str
    available: str
    used_per_day: str
    days_left: int | None
    sources: list[Source]


@router.get("/customers/{customer}/balance", response_model=BalanceBody)
def get_balance(customer: CustomerId, caller: Reader, home: ServedHome) -> Response:
    """Return a customer's balance: finance sees everybody's, a customer its own."""
    whose(caller, customer)
    with read_session(home.engine) as session:
        balance = counted_balance(home, session, customer)
    return json_response(_body(balance))


def _body(balance: Balance) -> dict[str, object]:
    amounts = {
        "prepaid": balance.paid_minor,
        "arrears": balance.arrears_minor,
        "credit_limit": balance.credit_limit_minor,
        "credit_used": balance.credit_used_minor,
        "unbilled": balance.unbilled_minor,
        "billed": balance.billed_minor,
        "available": balance.available_minor,
        "used_per_day": balance.burn_minor,
    }
    sources = [
        {
            "id": lot.source_id,
            "kind": lot.kind,
            "rest": lot.rest,
            "unit": lot.unit,
            "last_day": lot.last_day,
            "project": lot.project,
        }
        for lot in balance.lots
    ]
    return {
        "customer": balance.customer,
        "currency": balance.currency,
        **{name: format_minor(minor, balance.currency) for name, minor in amounts.items()},
        "days_left": balance.days_left,
        "sources": sources,
    }
