"""Stripe: Checkout sessions asked for and fetched, and its webhooks told from forgeries. Nothing else imports stripe.

An event is a hint that something happened; what happened is fetched from Stripe. A call that got no answer is unknown,
not failed: it is resolved by asking, never by another idempotency key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stripe import StripeClient
    from stripe.checkout import Session

API_VERSION = "2026-10-28.endive"
SIGNATURE_SECONDS = 300  # how far a webhook's timestamp may lie from now, in either direction
INTENT_KEY = "hourbook_intent"  # in the metadata of what we create
CUSTOMER_KEY = "hourbook_customer"
# A session found by its time of creation: clocks differ a little, and a key makes the same session for a day.
FIND_BEFORE, FIND_AFTER = timedelta(minutes=10), timedelta(days=2)
CONFLICT = 409


class GatewayError(RuntimeError):
    """The payment provider did not do what it was asked."""


class GatewayRefusedError(GatewayError):
    """The provider said no, so nothing was done."""


class GatewayUnknownError(GatewayError):
    """No answer, or one that leaves open what was done; ask before anything else."""


class GatewayBusyError(GatewayError):
    """The same request is under way, or there are too many; it may be sent again with the same key."""


class KeyUsedError(GatewayError):
    """The idempotency key was used with other parameters: something was made with it already."""


class UntrustedEventError(ValueError):
    """A webhook that is not, or not provably, of our account at the provider."""


@dataclass(frozen=True)
class CheckoutRequest:
    """What the customer is to pay, and where the provider sends them afterwards."""

    intent_id: str
    customer: str
    amount_minor: int
    currency: str
    description: str
    success_url: str
    cancel_url: str
    idempotency_key: str


@dataclass(frozen=True)
class Checkout:
    """A Checkout session as Stripe has it now."""

    id: str
    url: str
    status: str  # open complete expired
    payment_status: str  # paid unpaid no_payment_required
    payment_intent: str  # "" as long as nothing was tried
    amount_minor: int
    currency: str
    intent_id: str  # as we named it when we asked for the session
    customer: str  # ours
    live: bool


@dataclass(frozen=True)
class PaymentEvent:
    """A webhook whose signature holds: what happened to which object."""

    id: str
    kind: str
    live: bool
    session_id: str  # "" where the object is no session
    payment_intent: str
    intent_id: str
    amount_minor: int | None
    currency: str
    body: str


@dataclass(frozen=True)
class StripeGateway:
    """Our account at Stripe."""

    api_key: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    api_base: str = "https://api.stripe.com"
    timeout_seconds: float = 30.0
    retries: int = 2  # of the same request with the same key

    @property
    def live(self) -> bool:
        """Whether real money moves."""
        return "_live_" in self.api_key

    @cached_property
    def _client(self) -> StripeClient:
        import stripe

        return stripe.StripeClient(
            self.api_key,
            stripe_version=API_VERSION,
            base_addresses={"api": self.api_base},
            max_network_retries=self.retries,
            http_client=stripe.RequestsClient(timeout=self.timeout_seconds),
        )

    def create_checkout(self, request: CheckoutRequest) -> Checkout:
        """Ask for a session in which the customer can pay; the same key gives the same session."""
        names = {INTENT_KEY: request.intent_id, CUSTOMER_KEY: request.customer}
        with _errors():
            session = self._client.v1.checkout.sessions.create(
                {
                    "mode": "payment",
                    "client_reference_id": request.intent_id,
                    "line_items": [
                        {
                            "quantity": 1,
                            "price_data": {
                                "currency": request.currency.lower(),
                                "unit_amount": request.amount_minor,
                                "product_data": {"name": request.description},
                            },
                        }
                    ],
                    "metadata": names,
                    "payment_intent_data": {"metadata": names},
                    # The customer pays the very amount that the wallet is credited with.
                    "adaptive_pricing": {"enabled": False},
                    "success_url": request.success_url,
                    "cancel_url": request.cancel_url,
                },
                {"idempotency_key": request.idempotency_key},
            )
        return _checkout(session)

    def fetch_checkout(self, session_id: str) -> Checkout:
        """Return a session as it is now."""
        with _errors():
            return _checkout(self._client.v1.checkout.sessions.retrieve(session_id))

    def find_checkout(self, intent_id: str, asked_at: datetime) -> Checkout | None:
        """Return the session made for an intent, if there is one; for when the answer to our request is unknown."""
        first, last = int((asked_at - FIND_BEFORE).timestamp()), int((asked_at + FIND_AFTER).timestamp())
        with _errors():
            found = self._client.v1.checkout.sessions.list({"created": {"gte": first, "lte": last}, "limit": 100})
            for session in found.auto_paging_iter():
                if session.client_reference_id == intent_id:
                    return _checkout(session)
        return None

    def checkout_of_payment(self, payment_intent: str) -> Checkout | None:
        """Return the session that a payment was made in, if it was made in one."""
        with _errors():
            found = self._client.v1.checkout.sessions.list({"payment_intent": payment_intent, "limit": 1})
            return _checkout(found.data[0]) if found.data else None

    def read_event(self, body: bytes, signature: str, now: datetime) -> PaymentEvent:
        """Return the event in a webhook, or refuse one that Stripe did not sign for us just now."""
        from stripe import SignatureVerificationError, WebhookSignature

        try:
            # Stripe's own check knows only the machine's clock, and lets timestamps of the future pass.
            WebhookSignature.verify_header(body, signature, self.webhook_secret, tolerance=None)
            signed_at = _timestamp(signature)
            event = reread_event(body.decode())
        except (SignatureVerificationError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UntrustedEventError("the webhook is not signed by our account at Stripe, or is no event") from error
        if abs(int(now.timestamp()) - signed_at) > SIGNATURE_SECONDS:
            raise UntrustedEventError(
                f"the webhook was signed at {signed_at}, more than {SIGNATURE_SECONDS} s from now"
            )
        if event.live != self.live:
            raise UntrustedEventError(f"event {event.id} is of {'live' if event.live else 'test'} mode; our key is not")
        return event


@contextmanager
def _errors() -> Iterator[None]:
    """Say what an error means: refused, unknown, busy, or a key that was used."""
    import stripe

    try:
        yield
    except stripe.IdempotencyError as error:
        raise KeyUsedError(str(error)) from error
    except stripe.RateLimitError as error:
        raise GatewayBusyError(str(error)) from error
    except (stripe.InvalidRequestError, stripe.CardError) as error:
        raise GatewayRefusedError(f"Stripe refused: {error.user_message or error}") from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        # Nothing was done, and the same request may be sent again once the operator has put the key right.
        raise GatewayUnknownError(f"Stripe does not take our key: {error}") from error
    except stripe.StripeError as error:
        if error.http_status == CONFLICT:
            raise GatewayBusyError(str(error)) from error
        raise GatewayUnknownError(f"no clear answer from Stripe: {error}") from error


def _checkout(session: Session) -> Checkout:
    metadata = session.metadata.to_dict() if session.metadata else {}
    return Checkout(
        id=session.id,
        url=session.url or "",
        status=session.status or "",
        payment_status=session.payment_status,
        payment_intent=_id_of(session.payment_intent),
        amount_minor=session.amount_total or 0,
        currency=(session.currency or "").upper(),
        intent_id=session.client_reference_id or "",
        customer=metadata.get(CUSTOMER_KEY, ""),
        live=session.livemode,
    )


def _id_of(value: Any) -> str:  # noqa: ANN401 - an id, an object with one, or nothing
    if isinstance(value, Mapping):
        return str(value.get("id") or "")
    return str(getattr(value, "id", value) or "")


def reread_event(body: str) -> PaymentEvent:
    """Return an event that was verified when it arrived, from the body that was kept."""
    return _event(json.loads(body), body)


def _timestamp(signature: str) -> int:
    """Return the instant in the header; it is part of what is signed."""
    return int(next(part.split("=", 2)[1] for part in signature.split(",") if part.split("=", 2)[0] == "t"))


def _event(event: Mapping[str, Any], body: str) -> PaymentEvent:
    # Events of accounts connected to ours carry the account's name; their money is not ours.
    if event["object"] != "event" or event.get("account"):
        raise ValueError("no event of our own account")
    thing: Mapping[str, Any] = event["data"]["object"]
    kind = thing.get("object")
    amount = thing.get("amount_total") if kind == "checkout.session" else thing.get("amount")
    return PaymentEvent(
        id=str(event["id"]),
        kind=str(event["type"]),
        live=bool(event["livemode"]),
        session_id=str(thing["id"]) if kind == "checkout.session" else "",
        payment_intent=str(thing["id"]) if kind == "payment_intent" else _id_of(thing.get("payment_intent")),
        intent_id=str((thing.get("metadata") or {}).get(INTENT_KEY, "")),
        amount_minor=amount if isinstance(amount, int) else None,
        currency=str(thing.get("currency") or "").upper(),
        body=body,
    )
