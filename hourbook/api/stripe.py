"""`POST /v1/customers/{id}/topups` and Stripe's webhook: money that customers pay through Stripe Checkout."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus

from fastapi import APIRouter, BackgroundTasks, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from base.money import format_minor
from hourbook.accruing import accrue_open_months
from hourbook.api.access import Reader
from hourbook.api.bodies import MISSING, REFUSALS, Body, ErrorBody, Responses, json_response
from hourbook.checkout import ServedGateway, WayBack, read_amount
from hourbook.errors import MalformedError, TooLargeError
from hourbook.serving import CustomerId, ServedHome, read_body
from hourbook.settings import Home
from hourbook.stripe_events import receive_event
from hourbook.topups import CheckoutIntentRow, Settled, TopUpRequest, start_top_up
from hourbook.viewing import whose
from invoices.stripe_gateway import StripeGateway, UntrustedEventError

log = logging.getLogger(__name__)

MAX_EVENT_BYTES = 1024 * 1024
_KEY = re.compile(r"[!-~]{1,200}", re.ASCII)

router = APIRouter(prefix="/v1", tags=["payments"])


class TopUpBody(Body):
    """How much is to be paid."""

    amount: str = Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,2})?$", max_length=16, description="As 5000.00, tax included")
    contract: str = Field(default="", max_length=64, description="The only contract it may be used for")


class TopUpSession(Body):
    """Where to pay; the balance follows the payment."""

    id: str
    customer: str
    amount: str
    currency: str
    url: str


class Received(Body):
    """What became of a webhook."""

    status: str


_TOP_UP: Responses = {
    201: {"model": TopUpSession, "description": "Send the customer to this address"},
    400: {"model": ErrorBody, "description": "No Idempotency-Key, or one that is none"},
    409: {"model": ErrorBody, "description": "The same top-up is under way; send it again with the same key"},
}
_KEY_HEADER = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": True,
            "description": "Any text of yours that is new for each top-up; a repeated request has one effect",
            "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
        }
    ]
}


@router.post(
    "/customers/{customer}/topups",
    status_code=HTTPStatus.CREATED,
    responses={**REFUSALS, **MISSING, **_TOP_UP},
    openapi_extra=_KEY_HEADER,
)
def post_topup(  # noqa: PLR0913, PLR0917 - the request's parts
    request: Request,
    customer: CustomerId,
    body: TopUpBody,
    caller: Reader,
    home: ServedHome,
    gateway: ServedGateway,
    back: WayBack,
) -> Response:
    """Start a top-up: returns the address at Stripe where the customer pays. Nothing is credited before that."""
    whose(caller, customer)
    # Of finance and of the customer itself: their keys may be alike by accident.
    key = f"{caller.role}:{_idempotency_key(request)}"
    wanted = TopUpRequest(customer, read_amount(home, body.amount), key, body.contract)
    return json_response(_session(start_top_up(home, gateway, wanted, back)), HTTPStatus.CREATED)


def _idempotency_key(request: Request) -> str:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise MalformedError("send one Idempotency-Key header: up to 200 printable characters, new for each top-up")
    return keys[0]


def _session(intent: CheckoutIntentRow) -> dict[str, str]:
    return {
        "id": intent.id,
        "customer": intent.customer,
        "amount": format_minor(intent.amount_minor, intent.currency),
        "currency": intent.currency,
        "url": intent.url,
    }


@router.post(
    "/stripe/webhook",
    response_model=Received,
    responses={
        400: {"model": ErrorBody, "description": "Not signed by Stripe for us just now, or not what was asked for"},
        404: {"model": ErrorBody, "description": "About a payment that nobody here asked for; kept, not acknowledged"},
        409: {"model": ErrorBody, "description": "Stripe is busy; kept, and dealt with later"},
        502: {"model": ErrorBody, "description": "Stripe does not know what the event is about"},
        503: {"model": ErrorBody, "description": "Stripe could not be asked; kept, and dealt with later"},
    },
)
async def post_webhook(request: Request, home: ServedHome, gateway: ServedGateway, later: BackgroundTasks) -> Response:
    """Take an event from Stripe: verified, on disk, and dealt with before it is acknowledged."""
    signatures = request.headers.getlist("stripe-signature")
    try:
        payload = await read_body(request, MAX_EVENT_BYTES)
    except TooLargeError as error:
        raise UntrustedEventError("no event of Stripe is that long") from error
    if len(signatures) != 1:
        raise UntrustedEventError("a webhook carries one Stripe-Signature header")
    settled = await run_in_threadpool(_receive, home, gateway, payload, signatures[0])
    if settled.credited:
        later.add_task(_accrue, home)
    return json_response({"status": settled.status})


def _receive(home: Home, gateway: StripeGateway, payload: bytes, signature: str) -> Settled:
    # Signatures are dated by the real time, also where a home's clock is fixed.
    return receive_event(home, gateway, gateway.read_event(payload, signature, home.clock()))


def _accrue(home: Home) -> None:
    """Settle arrears from the new money; the schedule does it otherwise."""
    try:
        accrue_open_months(home)
    except Exception:  # the payment is credited whatever happens here
        log.exception("arrears could not be settled yet; the schedule tries again")
