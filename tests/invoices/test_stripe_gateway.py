"""The one module that speaks to Stripe, driven through the real SDK against our own small Stripe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from invoices.stripe_gateway import (
    CheckoutRequest,
    GatewayBusyError,
    GatewayRefusedError,
    GatewayUnknownError,
    KeyUsedError,
    StripeGateway,
    UntrustedEventError,
)
from tests.fakes.stripe_server import FakeStripe, Fault, running

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def fake() -> Iterator[FakeStripe]:
    with running(FakeStripe(clock=NOW.timestamp)) as made:
        yield made


@pytest.fixture
def gateway(fake: FakeStripe) -> StripeGateway:
    return StripeGateway(fake.api_key, fake.webhook_secret, fake.address, timeout_seconds=0.5, retries=0)


def request(intent: str = "topup-1", amount: int = 5000, key: str = "key-1", currency: str = "CNY") -> CheckoutRequest:
    return CheckoutRequest(intent, "u-north", amount, currency, "Hourbook", "http://us/ok", "http://us/no", key)


def test_a_session_says_what_we_asked_for(gateway: StripeGateway, fake: FakeStripe) -> None:
    made = gateway.create_checkout(request())
    assert (made.amount_minor, made.currency, made.intent_id, made.customer) == (5000, "CNY", "topup-1", "u-north")
    assert (made.status, made.payment_status, made.payment_intent, made.live) == ("open", "unpaid", "", False)
    assert made.url.startswith(fake.address)
    assert gateway.fetch_checkout(made.id) == made


def test_the_same_key_gives_the_same_session(gateway: StripeGateway, fake: FakeStripe) -> None:
    assert gateway.create_checkout(request()) == gateway.create_checkout(request())
    assert len(fake.sessions) == 1


def test_a_key_with_other_parameters_is_told_from_a_refusal(gateway: StripeGateway) -> None:
    gateway.create_checkout(request())
    with pytest.raises(KeyUsedError):
        gateway.create_checkout(request(amount=6000))


def test_what_stripe_refuses_was_not_done(gateway: StripeGateway, fake: FakeStripe) -> None:
    with pytest.raises(GatewayRefusedError):
        gateway.create_checkout(request(currency="ZZZ"))
    assert fake.sessions == {}


@pytest.mark.parametrize(
    ("fault", "error", "sessions"),
    [
        ("slow_after", GatewayUnknownError, 1),
        ("cut_after", GatewayUnknownError, 1),
        ("error_after", GatewayUnknownError, 1),
        ("error_before", GatewayUnknownError, 0),
        ("busy", GatewayBusyError, 0),
        ("too_many", GatewayBusyError, 0),
    ],
)
def test_an_answer_that_says_nothing_is_no_refusal(
    gateway: StripeGateway, fake: FakeStripe, fault: Fault, error: type[Exception], sessions: int
) -> None:
    fake.faults.append(fault)
    with pytest.raises(error):
        gateway.create_checkout(request())
    assert len(fake.sessions) == sessions
    found = gateway.find_checkout("topup-1", NOW)
    assert (found is not None) == bool(sessions)


def test_a_key_that_stripe_does_not_take_is_no_refusal_either(fake: FakeStripe) -> None:
    wrong = StripeGateway("sk_test_other", fake.webhook_secret, fake.address, retries=0)
    with pytest.raises(GatewayUnknownError, match="our key"):
        wrong.create_checkout(request())


def test_nobody_answers_at_all(fake: FakeStripe) -> None:
    nobody = StripeGateway(fake.api_key, fake.webhook_secret, "http://127.0.0.1:9", retries=0)
    with pytest.raises(GatewayUnknownError):
        nobody.create_checkout(request())


def test_a_session_is_found_among_many_by_the_intent_it_was_made_for(gateway: StripeGateway, fake: FakeStripe) -> None:
    first = fake.sessions[gateway.create_checkout(request("topup-0")).id]
    for number in range(1, 120):  # more than one page of a list
        fake.sessions[f"cs_{number}"] = {**first, "id": f"cs_{number}", "client_reference_id": f"topup-{number}"}
    found = gateway.find_checkout("topup-3", NOW)
    assert found is not None
    assert found.intent_id == "topup-3"
    assert gateway.find_checkout("topup-120", NOW) is None
    assert gateway.find_checkout("topup-3", NOW - timedelta(days=3)) is None


def test_a_payment_leads_to_its_session(gateway: StripeGateway, fake: FakeStripe) -> None:
    made = gateway.create_checkout(request())
    other = gateway.create_checkout(request("topup-2", key="key-2"))
    fake.pay(other.id)
    fake.pay(made.id)
    paid = gateway.checkout_of_payment(fake.taken[1][0])
    assert paid is not None
    assert (paid.id, paid.payment_status, paid.payment_intent) == (made.id, "paid", fake.taken[1][0])
    assert gateway.checkout_of_payment("pi_of_somebody_else") is None


def test_an_event_is_read_from_its_signed_body(gateway: StripeGateway, fake: FakeStripe) -> None:
    made = gateway.create_checkout(request())
    payment, charge, session = (gateway.read_event(*fake.signed(event), NOW) for event in fake.pay(made.id))
    assert (session.kind, session.session_id) == ("checkout.session.completed", made.id)
    assert (payment.kind, payment.session_id) == ("payment_intent.succeeded", "")
    assert {event.payment_intent for event in (payment, charge, session)} == {fake.taken[0][0]}
    assert {event.intent_id for event in (payment, charge, session)} == {"topup-1"}
    assert {(event.amount_minor, event.currency) for event in (payment, charge, session)} == {(5000, "CNY")}


def forgeries(fake: FakeStripe) -> dict[str, tuple[bytes, str]]:
    event = fake.pay(next(iter(fake.sessions)))[-1]
    body, header = fake.signed(event)
    old, future = fake.signed(event, at=NOW.timestamp() - 301), fake.signed(event, at=NOW.timestamp() + 301)
    stamp = header.partition(",")[0]
    live = fake.signed({**event, "livemode": True})
    return {
        "another secret": fake.signed(event, secret="whsec_other"),  # noqa: S106 - of the fake
        "a byte of the body altered": (body.replace(b"5000", b"5001"), header),
        "an old timestamp": old,
        "a timestamp of the future": future,
        "a timestamp altered to now": (body, old[1].replace(old[1].partition(",")[0], stamp)),
        "two signatures, both wrong": (body, f"{stamp},v1={'0' * 64},v1={'1' * 64}"),
        "no signature": (body, stamp),
        "an empty header": (body, ""),
        "no timestamp": (body, header.partition(",")[2]),
        "a timestamp that is no number": (body, header.replace("t=", "t=x")),
        "an older scheme": (body, header.replace("v1=", "v0=")),
        "bytes that are no text": (b"\xff" + body, header),
        "no JSON": (b"{", fake.signature(b"{")),
        "a list": (b"[]", fake.signature(b"[]")),
        "no event": (b'{"object":"charge"}', fake.signature(b'{"object":"charge"}')),
        "live mode": live,
        "another account": fake.signed({**event, "account": "acct_other"}),
    }


FORGERIES = (
    "another secret",
    "a byte of the body altered",
    "an old timestamp",
    "a timestamp of the future",
    "a timestamp altered to now",
    "two signatures, both wrong",
    "no signature",
    "an empty header",
    "no timestamp",
    "a timestamp that is no number",
    "an older scheme",
    "bytes that are no text",
    "no JSON",
    "a list",
    "no event",
    "live mode",
    "another account",
)


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_webhook_is_refused(gateway: StripeGateway, fake: FakeStripe, forgery: str) -> None:
    gateway.create_checkout(request())
    made = forgeries(fake)
    assert set(made) == set(FORGERIES)
    with pytest.raises(UntrustedEventError):
        gateway.read_event(*made[forgery], NOW)


def test_a_webhook_at_the_edge_of_its_time_is_taken(gateway: StripeGateway, fake: FakeStripe) -> None:
    made = gateway.create_checkout(request())
    event = fake.pay(made.id)[-1]
    for seconds in (-300, 300):
        body, header = fake.signed(event, at=NOW.timestamp() + seconds)
        assert json.loads(gateway.read_event(body, header, NOW).body)["id"] == event["id"]


def test_secrets_do_not_show_where_the_gateway_is_printed(gateway: StripeGateway, fake: FakeStripe) -> None:
    assert fake.api_key not in repr(gateway)
    assert fake.webhook_secret not in repr(gateway)
