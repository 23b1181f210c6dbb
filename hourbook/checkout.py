"""What the routes for paying share, the programs' and the pages': our account at Stripe, amounts, and the way back."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from base.money import parse_amount
from hourbook.errors import InvalidRequestError
from hourbook.importing import catalog_of
from hourbook.serving import settings_of
from hourbook.settings import Home
from hourbook.topups import Pages
from invoices.stripe_gateway import StripeGateway

SUCCESS, CANCELLED = "/topup/success", "/topup/cancelled"


def gateway_here(request: Request) -> StripeGateway:
    """Return our account at Stripe; the routes that need it exist only where there is one."""
    gateway: StripeGateway = request.app.state.gateway
    return gateway


def way_back(request: Request) -> Pages:
    """Return where Stripe sends customers back to: pages of ours, whatever the caller wishes."""
    address = settings_of(request).public_url.rstrip("/")
    return Pages(success=f"{address}{SUCCESS}", cancel=f"{address}{CANCELLED}")


ServedGateway = Annotated[StripeGateway, Depends(gateway_here)]
WayBack = Annotated[Pages, Depends(way_back)]


def read_amount(home: Home, text: str) -> int:
    """Read an amount in the operator's currency, as minor units."""
    try:
        return parse_amount(text, catalog_of(home).currency)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(str(error)) from error
