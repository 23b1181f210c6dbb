"""Paying from a customer's page: to Stripe's page and back. Only the payment itself changes a balance."""

from __future__ import annotations

import secrets
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from hourbook.checkout import CANCELLED, SUCCESS, ServedGateway, WayBack, read_amount
from hourbook.serving import CustomerId, ServedHome
from hourbook.settings import Home
from hourbook.topups import Pages, TopUpRequest, start_top_up
from hourbook.viewing import whose
from hourbook.web.rendering import language_of, render_page
from hourbook.web.signing import Form, SignedIn, SomeVisitor, Visitor
from invoices.stripe_gateway import StripeGateway

router = APIRouter(include_in_schema=False)

SAID = {
    "success": {
        "zh": ("感谢您的支付", "余额将在收到支付确认后更新，通常只需几秒；银行转账等方式可能需要数天。"),
        "en": (
            "Thank you",
            "The balance follows the payment: usually within seconds, with some ways of paying after days.",
        ),
    },
    "cancelled": {
        "zh": ("支付未完成", "没有扣款，余额不变。您可以随时重新充值。"),
        "en": (
            "Nothing was paid",
            "The balance follows payments only, so it is unchanged. You can try again any time.",
        ),
    },
}


@router.post("/customers/{customer}/topup")
async def top_up_form(
    customer: CustomerId, caller: SignedIn, form: Form, home: ServedHome, gateway: ServedGateway, back: WayBack
) -> Response:
    """Lead a customer to the page at Stripe on which it pays."""
    whose(caller, customer)
    url = await run_in_threadpool(_address, home, gateway, back, customer, form.get("amount", "").strip())
    return RedirectResponse(url, HTTPStatus.SEE_OTHER)


def _address(home: Home, gateway: StripeGateway, back: Pages, customer: str, amount: str) -> str:
    # A form sent twice makes two sessions; money moves only in the one that is paid.
    wanted = TopUpRequest(customer, read_amount(home, amount), f"page:{secrets.token_hex(16)}")
    return start_top_up(home, gateway, wanted, back).url


@router.get(SUCCESS)
def paid_page(request: Request, visitor: SomeVisitor) -> Response:
    """Thank whoever comes back from Stripe; this says nothing about whether the payment arrived."""
    return _page(request, visitor, "success")


@router.get(CANCELLED)
def cancelled_page(request: Request, visitor: SomeVisitor) -> Response:
    """Say that nothing was paid."""
    return _page(request, visitor, "cancelled")


def _page(request: Request, visitor: Visitor, which: str) -> Response:
    heading, text = SAID[which][language_of(request)]
    return render_page(request, "topup.html", visitor, heading=heading, text=text)
