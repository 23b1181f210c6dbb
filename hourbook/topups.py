"""Top-ups through Stripe Checkout: what a customer means to pay, what Stripe told us of it, and the one credit.

Every call to Stripe has three phases: our intent is committed, Stripe is asked with the intent's own key and no
transaction open, the answer is committed. Killed anywhere and done again, it is one session and one credit.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import CheckConstraint, Text, UniqueConstraint
from sqlmodel import Field, Session, SQLModel, and_, col, or_, select

from base.columns import BigInt, Flag, Instant
from base.money import format_grouped
from hourbook import facts
from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.receiving import TopUp, UnknownCustomerError, top_up
from hourbook.settings import Home, Settings
from invoices.stripe_gateway import (
    Checkout,
    CheckoutRequest,
    GatewayBusyError,
    GatewayRefusedError,
    GatewayUnknownError,
    KeyUsedError,
    PaymentEvent,
    StripeGateway,
)
from pricing.catalog import Catalog

CLEARING = "assets:clearing:stripe"
LARGEST_MINOR = 99_999_999  # Stripe takes eight digits
KEY_LIFE = timedelta(hours=23)  # Stripe forgets a key after a day; an hour is kept for clocks and slow answers
GIVEN_UP_AFTER = timedelta(hours=25)  # from when on no session of this intent can appear any more
ASKED_AGAIN_AFTER = timedelta(minutes=5)
UNANSWERED_AFTER = timedelta(minutes=2)
ASKED_AT_ONCE = 50
ASKED_FOR = timedelta(days=30)  # no way of paying takes longer
WAITING = ("created", "open", "processing", "failed")


class CheckoutIntentRow(SQLModel, table=True):
    """What a customer means to pay. Only status, session, payment and time of asking are ever filled in."""

    __tablename__ = "checkout_intent"
    __table_args__ = (
        UniqueConstraint("customer", "client_key"),
        CheckConstraint("amount_minor > 0"),
        CheckConstraint(
            "status IN ('created', 'open', 'processing', 'failed', 'refused', 'expired', 'given_up', 'paid')"
        ),
    )

    id: str = Field(primary_key=True, sa_type=Text)
    customer: str = Field(sa_type=Text)
    contract: str = Field(sa_type=Text)
    amount_minor: int = Field(sa_type=BigInt)
    currency: str = Field(sa_type=Text)
    client_key: str = Field(sa_type=Text)  # of whoever asked us, by which a repeated request is known
    request_hash: str = Field(sa_type=Text)
    idempotency_key: str = Field(sa_type=Text, unique=True)  # with which we ask Stripe
    session_id: str | None = Field(default=None, sa_type=Text, unique=True)
    url: str = Field(default="", sa_type=Text)
    payment_intent: str | None = Field(default=None, sa_type=Text, unique=True)  # one payment, one credit
    status: str = Field(sa_type=Text, index=True)
    reason: str = Field(default="", sa_type=Text)  # why it was refused or given up
    created_at: datetime = Field(sa_type=Instant)
    asked_at: datetime = Field(sa_type=Instant)  # when Stripe was last asked about it
    paid_at: datetime | None = Field(default=None, sa_type=Instant)


class StripeEventRow(SQLModel, table=True):
    """A webhook as it arrived, kept before it is acknowledged."""

    __tablename__ = "stripe_event"

    event_id: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(sa_type=Text)
    live: bool = Field(sa_type=Flag)
    body: str = Field(sa_type=Text)
    received_at: datetime = Field(sa_type=Instant)
    handled_at: datetime | None = Field(default=None, sa_type=Instant, index=True)
    outcome: str = Field(default="", sa_type=Text)


class TopUpRefusedError(ValueError):
    """A top-up that cannot be made as asked; nothing was paid."""


class TopUpConflictError(ValueError):
    """The same key was used for another top-up."""

    def __init__(self, client_key: str) -> None:
        super().__init__(f"key {client_key!r} was used for a top-up with other content; send a new one with a new key")


class PaymentMismatchError(ValueError):
    """What was paid is not what was asked for; nothing is credited, and a person must look at it."""

    def __init__(self, intent_id: str, differences: list[str]) -> None:
        super().__init__(f"payment for {intent_id} differs from what was asked for: {', '.join(differences)}")
        self.intent_id = intent_id


@dataclass(frozen=True)
class TopUpRequest:
    """What somebody asks for on behalf of a customer."""

    customer: str
    amount_minor: int
    client_key: str
    contract: str = ""

    @property
    def hash(self) -> str:
        """Fingerprint the content, so that a repeated key with another content is noticed."""
        text = f"{len(self.contract)}:{self.contract}:{self.amount_minor}"
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Pages:
    """Where Stripe sends the customer afterwards."""

    success: str
    cancel: str


@dataclass(frozen=True)
class Settled:
    """How an intent stands after asking Stripe, and whether the wallet was credited just now."""

    status: str
    credited: bool = False


def gateway_of(settings: Settings) -> StripeGateway | None:
    """Return our account at Stripe, where the environment names one.

    Without the webhooks' secret every webhook is refused, and payments are found by asking alone.
    """
    key, secret = settings.stripe_api_key.get_secret_value(), settings.stripe_webhook_secret.get_secret_value()
    return StripeGateway(key, secret, settings.stripe_api_base) if key else None


def start_top_up(home: Home, gateway: StripeGateway, request: TopUpRequest, pages: Pages) -> CheckoutIntentRow:
    """Return the session in which a customer pays; the same request again returns the same session."""
    intent = run_write(home.engine, lambda session: _intent_of(home, session, request))
    crash_point("topup:after_intent")
    if intent.session_id is not None:
        return intent
    if intent.status != "created":
        raise TopUpRefusedError(f"this top-up was {intent.status}: {intent.reason}; ask again with a new key")
    try:
        checkout = _ask(home, gateway, intent, pages)
    except GatewayRefusedError as error:
        reason = str(error)
        run_write(home.engine, lambda session: _end(session, intent.id, "refused", reason))
        raise TopUpRefusedError(reason) from error
    crash_point("topup:after_answer")
    run_write(home.engine, lambda session: settle(home, session, gateway, intent.id, checkout))
    crash_point("topup:after_commit")
    return intent_by_id(home, intent.id)


def intent_by_id(home: Home, intent_id: str) -> CheckoutIntentRow:
    """Return an intent as it stands."""
    with read_session(home.engine) as session:
        row = session.get_one(CheckoutIntentRow, intent_id)
        session.expunge(row)
        return row


def _intent_of(home: Home, session: Session, request: TopUpRequest) -> CheckoutIntentRow:
    """Return the intent of a request, made now if it is new."""
    known = session.exec(
        select(CheckoutIntentRow).where(
            CheckoutIntentRow.customer == request.customer, CheckoutIntentRow.client_key == request.client_key
        )
    ).first()
    if known is not None:
        if known.request_hash != request.hash:
            raise TopUpConflictError(request.client_key)
        session.expunge(known)
        return known
    catalog = Catalog.from_facts(facts.as_of(session))
    _check(catalog, request)
    name = f"topup-{secrets.token_hex(16)}"
    row = CheckoutIntentRow(
        id=name,
        customer=request.customer,
        contract=request.contract,
        amount_minor=request.amount_minor,
        currency=catalog.currency,
        client_key=request.client_key,
        request_hash=request.hash,
        idempotency_key=f"hourbook-checkout-{name}",
        status="created",
        # Stripe reckons by the real time, also where a home's clock is fixed.
        created_at=home.clock(),
        asked_at=home.clock(),
    )
    session.add(row)
    session.flush()
    session.expunge(row)
    return row


def _check(catalog: Catalog, request: TopUpRequest) -> None:
    if request.customer not in catalog.customers:
        raise UnknownCustomerError(request.customer)
    if not 0 < request.amount_minor <= LARGEST_MINOR:
        most = format_grouped(LARGEST_MINOR, catalog.currency)
        raise TopUpRefusedError(f"a top-up is more than 0 and at most {most} {catalog.currency}")
    contract = catalog.contracts.get(request.contract)
    if request.contract and (contract is None or contract.customer != request.customer):
        raise TopUpRefusedError(
            f"{request.customer} has no contract {request.contract!r}; leave it out or name its own"
        )


def _ask(home: Home, gateway: StripeGateway, intent: CheckoutIntentRow, pages: Pages) -> Checkout:
    """Ask Stripe for the intent's session; where its key may be forgotten or does not fit, look for the session."""
    if home.clock() - intent.created_at < KEY_LIFE:
        request = CheckoutRequest(
            intent.id,
            intent.customer,
            intent.amount_minor,
            intent.currency,
            f"Hourbook {intent.customer}",
            pages.success,
            pages.cancel,
            intent.idempotency_key,
        )
        try:
            return gateway.create_checkout(request)
        except KeyUsedError:  # with other parameters: our own address changed in between
            pass
        except GatewayUnknownError:
            # What was made before the answer got lost is there; Stripe may repeat the same error for a day.
            found = gateway.find_checkout(intent.id, intent.created_at)
            if found is None:
                raise
            return found
    found = gateway.find_checkout(intent.id, intent.created_at)
    if found is None and home.clock() - intent.created_at < GIVEN_UP_AFTER:
        raise GatewayBusyError("the outcome of the first try is not known yet; ask again later")
    if found is None:
        raise GatewayRefusedError("the first try never reached Stripe, and its key is too old to be used again")
    return found


def settle(home: Home, session: Session, gateway: StripeGateway, intent_id: str, checkout: Checkout) -> Settled:
    """Record how a session stands at Stripe; where it is paid, credit the wallet, once."""
    intent = session.get_one(CheckoutIntentRow, intent_id)
    differences = _differences(intent, gateway, checkout)
    if differences:
        raise PaymentMismatchError(intent_id, differences)
    intent.session_id, intent.asked_at = checkout.id, home.clock()
    intent.url = intent.url or checkout.url
    session.add(intent)
    if intent.status == "paid":
        return Settled("paid")
    if checkout.payment_status != "paid":
        intent.status, intent.reason = _unpaid(intent, checkout), ""
        session.flush()
        return Settled(intent.status)
    _refuse_foreign_payment(session, intent, checkout.payment_intent)
    _credit(home, session, intent, checkout.payment_intent)
    crash_point("topup:before_credit")
    return Settled("paid", credited=True)


def _refuse_foreign_payment(session: Session, intent: CheckoutIntentRow, payment_intent: str) -> None:
    if not payment_intent:
        raise PaymentMismatchError(intent.id, ["paid without a payment"])
    row = CheckoutIntentRow
    other = session.exec(select(row.id).where(row.payment_intent == payment_intent, row.id != intent.id)).first()
    if other:
        raise PaymentMismatchError(intent.id, [f"its payment was credited for {other}"])


def _unpaid(intent: CheckoutIntentRow, checkout: Checkout) -> str:
    # States only go forward: what was processing is never merely open again.
    if checkout.status == "expired":
        return "expired"
    if checkout.status == "complete":
        return "failed" if intent.status == "failed" else "processing"
    return "open" if intent.status == "created" else intent.status


def _credit(home: Home, session: Session, intent: CheckoutIntentRow, payment_intent: str) -> None:
    catalog = Catalog.from_facts(facts.as_of(session))
    receipt = TopUp(
        intent.customer,
        intent.amount_minor,
        f"stripe:{payment_intent}",
        home.today(catalog.zone()),
        intent.contract,
        account=CLEARING,
    )
    intent.payment_intent, intent.status, intent.paid_at = payment_intent, "paid", home.now()
    # The unique index on the payment stands in the way of a second credit before money moves.
    session.flush()
    top_up(session, catalog, receipt, home.now())


def _differences(intent: CheckoutIntentRow, gateway: StripeGateway, checkout: Checkout) -> list[str]:
    pairs = [
        ("amount", checkout.amount_minor, intent.amount_minor),
        ("currency", checkout.currency, intent.currency),
        ("customer", checkout.customer, intent.customer),
        ("intent", checkout.intent_id, intent.id),
        ("session", checkout.id, intent.session_id or checkout.id),
        ("payment", checkout.payment_intent, intent.payment_intent or checkout.payment_intent),
        ("live mode", checkout.live, gateway.live),
    ]
    return [f"{name} {paid!r} instead of {wanted!r}" for name, paid, wanted in pairs if paid != wanted]


def _end(session: Session, intent_id: str, status: str, reason: str) -> None:
    intent = session.get_one(CheckoutIntentRow, intent_id)
    if intent.status == "created":
        intent.status, intent.reason = status, reason
        session.add(intent)


def note_failed(session: Session, intent_id: str) -> None:
    """Note that a delayed payment did not come; a payment that comes after all is credited still."""
    intent = session.get_one(CheckoutIntentRow, intent_id)
    if intent.status in {"open", "processing"}:
        intent.status = "failed"
        session.add(intent)


def intent_of_event(session: Session, event: PaymentEvent) -> CheckoutIntentRow | None:
    """Return the intent that an event is about, by session, payment or the name that we gave it."""
    by_session = CheckoutIntentRow.session_id == event.session_id
    by_payment = CheckoutIntentRow.payment_intent == event.payment_intent
    by_name = CheckoutIntentRow.id == event.intent_id
    # "" equals no column: sessions and payments that are unknown are NULL.
    return session.exec(select(CheckoutIntentRow).where(or_(by_session, by_payment, by_name))).first()


def waiting_intents(session: Session, now: datetime) -> list[CheckoutIntentRow]:
    """Return intents that Stripe should be asked about, those asked longest ago first."""
    row = CheckoutIntentRow
    unanswered = and_(col(row.status) == "created", col(row.asked_at) < now - UNANSWERED_AFTER)
    unsettled = and_(col(row.status) != "created", col(row.asked_at) < now - ASKED_AGAIN_AFTER)
    recent = col(row.created_at) > now - ASKED_FOR
    wanted = select(row).where(col(row.status).in_(WAITING), recent, or_(unanswered, unsettled))
    found = list(session.exec(wanted.order_by(col(row.asked_at)).limit(ASKED_AT_ONCE)))
    session.expunge_all()
    return found


def ask_about(home: Home, gateway: StripeGateway, intent: CheckoutIntentRow) -> Settled:
    """Ask Stripe how an intent stands, and record it; also for intents whose request got no answer."""
    if intent.session_id is None:
        found = gateway.find_checkout(intent.id, intent.created_at)
    else:
        found = gateway.fetch_checkout(intent.session_id)
    if found is not None:
        return run_write(home.engine, lambda session: settle(home, session, gateway, intent.id, found))
    return run_write(home.engine, lambda session: _nothing_found(home, session, intent.id))


def note_asked(home: Home, intent_id: str) -> None:
    """Put an intent at the end of those to ask about: one that cannot be settled must not hold up the others."""

    def work(session: Session) -> None:
        intent = session.get_one(CheckoutIntentRow, intent_id)
        intent.asked_at = home.clock()
        session.add(intent)

    run_write(home.engine, work)


def _nothing_found(home: Home, session: Session, intent_id: str) -> Settled:
    if home.clock() - session.get_one(CheckoutIntentRow, intent_id).created_at >= GIVEN_UP_AFTER:
        _end(session, intent_id, "given_up", "Stripe never heard of it")
    intent = session.get_one(CheckoutIntentRow, intent_id)
    intent.asked_at = home.clock()
    session.add(intent)
    return Settled(intent.status)
