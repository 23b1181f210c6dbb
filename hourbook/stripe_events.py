"""Stripe's webhooks: kept before they are acknowledged, then taken as a hint to ask Stripe what happened."""

from __future__ import annotations

import logging
from datetime import timedelta

from sqlmodel import Session, col, select

from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.settings import Home
from hourbook.topups import (
    CheckoutIntentRow,
    PaymentMismatchError,
    Settled,
    StripeEventRow,
    ask_about,
    intent_of_event,
    note_asked,
    note_failed,
    settle,
    waiting_intents,
)
from invoices.stripe_gateway import Checkout, GatewayError, PaymentEvent, StripeGateway, reread_event

log = logging.getLogger(__name__)

FAILED = "checkout.session.async_payment_failed"
# All that can mean that a payment moved; two kinds often describe the same one. Others are kept, and nothing is done.
ABOUT_PAYMENTS = frozenset(
    {
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        FAILED,
        "checkout.session.expired",
        "payment_intent.succeeded",
        "charge.succeeded",
    }
)
HANDLED_AT_ONCE = 100
HANDLED_FOR = timedelta(days=7)  # then only a person can say what it is about


class UnknownPaymentError(LookupError):
    """Stripe tells of a payment that nobody here asked for; it is never acknowledged, so that it is not forgotten."""

    def __init__(self, event: PaymentEvent) -> None:
        thing = event.session_id or event.payment_intent
        super().__init__(f"event {event.id} ({event.kind}) is about {thing!r}, which no top-up here asked for")


def receive_event(home: Home, gateway: StripeGateway, event: PaymentEvent) -> Settled:
    """Keep an event, then settle the top-up that it is about; an event that was dealt with changes nothing."""
    known = run_write(home.engine, lambda session: _keep(home, session, event))
    crash_point("webhook:after_keep")
    if known:
        return Settled("repeated")
    return handle_event(home, gateway, event)


def _keep(home: Home, session: Session, event: PaymentEvent) -> bool:
    """Keep an event for good; return whether it was dealt with before. One that contradicts its intent is refused."""
    row = session.get(StripeEventRow, event.id)
    if row is not None:
        return row.handled_at is not None
    intent = intent_of_event(session, event)
    if intent is not None and event.kind in ABOUT_PAYMENTS:
        _refuse_contradiction(intent, event)
    session.add(
        StripeEventRow(event_id=event.id, kind=event.kind, live=event.live, body=event.body, received_at=home.clock())
    )
    return False


def _refuse_contradiction(intent: CheckoutIntentRow, event: PaymentEvent) -> None:
    told, wanted = (event.amount_minor, event.currency), (intent.amount_minor, intent.currency)
    if told != wanted:
        raise PaymentMismatchError(intent.id, [f"event {event.id} says {told} instead of {wanted}"])


def handle_event(home: Home, gateway: StripeGateway, event: PaymentEvent) -> Settled:
    """Ask Stripe about what an event tells of, and record how it stands together with the event's end."""
    if event.kind not in ABOUT_PAYMENTS:
        return run_write(home.engine, lambda session: _finish(home, session, event, Settled("ignored")))
    checkout = _fetch(gateway, event)

    def work(session: Session) -> Settled:
        if session.get(CheckoutIntentRow, checkout.intent_id) is None:
            raise UnknownPaymentError(event)
        settled = settle(home, session, gateway, checkout.intent_id, checkout)
        if event.kind == FAILED:
            note_failed(session, checkout.intent_id)
        return _finish(home, session, event, settled)

    settled = run_write(home.engine, work)
    crash_point("webhook:after_credit")
    return settled


def _fetch(gateway: StripeGateway, event: PaymentEvent) -> Checkout:
    if event.session_id:
        return gateway.fetch_checkout(event.session_id)
    found = gateway.checkout_of_payment(event.payment_intent)
    if found is None:
        raise UnknownPaymentError(event)
    return found


def _finish(home: Home, session: Session, event: PaymentEvent, settled: Settled) -> Settled:
    row = session.get_one(StripeEventRow, event.id)
    row.handled_at, row.outcome = home.clock(), "credited" if settled.credited else settled.status
    session.add(row)
    return settled


def catch_up(home: Home, gateway: StripeGateway) -> int:
    """Deal with events that were kept and not dealt with, and ask about top-ups left open; return credits made.

    So a payment is credited even if its webhook is lost, and a request whose answer was lost is resolved by asking.
    """
    with read_session(home.engine) as session:
        recent = col(StripeEventRow.received_at) > home.clock() - HANDLED_FOR
        open_events = select(StripeEventRow.body).where(col(StripeEventRow.handled_at).is_(None), recent)
        bodies = list(session.exec(open_events.order_by(col(StripeEventRow.received_at)).limit(HANDLED_AT_ONCE)))
        intents = waiting_intents(session, home.clock())
    credited = 0
    for body in bodies:
        event = reread_event(body)
        try:
            credited += handle_event(home, gateway, event).credited
        except (GatewayError, LookupError, PaymentMismatchError) as error:
            log.warning("event %s is still open: %s", event.id, error)
    for intent in intents:
        try:
            credited += ask_about(home, gateway, intent).credited
        except (GatewayError, PaymentMismatchError) as error:
            log.warning("top-up %s is still open: %s", intent.id, error)
            note_asked(home, intent.id)
    return credited
