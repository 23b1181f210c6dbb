"""Paying over HTTP: starting a top-up, Stripe's webhook, and the pages on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hourbook.accruing import accrue_open_months
from hourbook.api.app import create_app
from hourbook.audit import verify
from hourbook.settings import Settings
from hourbook.stripe_events import catch_up
from tests.fakes.stripe_server import Event

from .payment_stories import TOPUPS, WEBHOOK, Counter, open_counter, open_shop
from .served import content_of_database
from .small_operator import use


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    with open_counter(tmp_path) as made:
        yield made
        assert verify(made.shop.home.engine) == []


# Starting a top-up


def test_a_customer_starts_a_top_up_and_is_told_where_to_pay(counter: Counter) -> None:
    answer = counter.ask({"amount": "106.00"})
    assert answer.status_code == 201
    said = answer.json()
    assert (said["customer"], said["amount"], said["currency"]) == ("u-north", "106.00", "CNY")
    session = counter.shop.fake.sessions[said["url"].rpartition("/")[2]]
    assert session["success_url"] == "http://testserver/topup/success"


def test_the_same_request_gets_the_same_answer_and_another_under_its_key_is_refused(counter: Counter) -> None:
    first = counter.ask({"amount": "106.00"})
    assert counter.ask({"amount": "106.00"}).content == first.content
    assert counter.ask({"amount": "106.00", "contract": "HT-1"}).status_code == 422
    assert counter.ask({"amount": "107.00"}).status_code == 422
    assert len(counter.shop.fake.sessions) == 1


def test_finance_may_start_one_for_a_customer_under_keys_of_its_own(counter: Counter) -> None:
    assert counter.ask({"amount": "106.00"}).status_code == 201
    assert counter.ask({"amount": "200.00"}, who="finance").status_code == 201


@pytest.mark.parametrize(("who", "status"), [("other", 404), ("collector", 403), ("", 401)])
def test_nobody_else_may_start_one(counter: Counter, who: str, status: int) -> None:
    assert counter.ask({"amount": "106.00"}, who=who).status_code == status
    assert counter.shop.rows("checkout_intent") == 0
    assert counter.ask({"amount": "1.00"}, who="finance", path="/v1/customers/u-nobody/topups").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"amount": 106},
        {"amount": 106.5},
        {"amount": True},
        {"amount": "-1.00"},
        {"amount": "0.00"},
        {"amount": "1e3"},
        {"amount": "NaN"},
        {"amount": "１０６"},  # digits of another script
        {"amount": "1.001"},
        {"amount": "1000000.00"},
        {"amount": "9" * 400},
        {"amount": "106.00", "contract": "HT-2"},
        {"amount": "106.00", "customer": "u-south"},
        {"amount": "106.00", "status": "paid"},
        {"amount": "106.00", "success_url": "https://evil.example"},
    ],
)
def test_what_is_no_top_up_is_refused_and_stripe_is_not_asked(counter: Counter, body: dict[str, Any]) -> None:
    assert counter.ask(body).status_code == 422
    assert counter.shop.fake.requests == []
    assert counter.shop.rows("checkout_intent") == 0


@pytest.mark.parametrize("once", [None, "with space", "x" * 201])
def test_without_a_key_that_makes_it_repeatable_no_money_is_asked_for(counter: Counter, once: str | None) -> None:
    assert counter.ask({"amount": "106.00"}, once=once).status_code == 400
    assert counter.shop.rows("checkout_intent") == 0


def test_an_unknown_outcome_is_told_as_such_and_repeated_with_the_same_key(counter: Counter) -> None:
    counter.shop.fake.faults += ["cut_after", "error_before"]
    answer = counter.ask({"amount": "106.00"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "provider_unknown")
    assert answer.headers["retry-after"]
    assert counter.ask({"amount": "106.00"}).status_code == 201
    assert len(counter.shop.fake.sessions) == 1


def test_without_an_account_at_stripe_there_is_nothing_here(tmp_path: Path) -> None:
    with open_shop(tmp_path) as shop:
        client = TestClient(create_app(shop.home, Settings()))
        assert client.post(WEBHOOK).status_code == 404
        assert client.post(TOPUPS).status_code == 404


# The webhook


@pytest.mark.parametrize("seed", range(5))
def test_one_payment_told_of_five_times_in_any_order_by_different_events_is_one_credit(
    counter: Counter, seed: int
) -> None:
    events = counter.shop.fake.pay(counter.session())
    assert {event["type"] for event in events} >= {"payment_intent.succeeded", "checkout.session.completed"}
    storm = [*events, *counter.shop.fake.storm(events, seed, most_copies=5)]
    assert {counter.post(event) for event in storm} == {200}
    assert counter.shop.wallet() == 10_600
    assert counter.shop.held("assets:clearing:stripe") == 10_600
    assert counter.shop.rows("funding_source") == 1


def test_an_unpaid_session_credits_nothing_until_the_payment_arrives(counter: Counter) -> None:
    session_id = counter.session()
    assert [counter.post(event) for event in counter.shop.fake.pay(session_id, delayed=True)] == [200]
    assert (counter.shop.status("customer:k1"), counter.shop.wallet()) == ("processing", 0)
    counter.shop.later(days=3)
    assert {counter.post(event) for event in counter.shop.fake.succeed_later(session_id)} == {200}
    assert (counter.shop.status("customer:k1"), counter.shop.wallet()) == ("paid", 10_600)


def test_events_in_the_wrong_order_lead_to_the_same_end(counter: Counter) -> None:
    session_id = counter.session()
    early = counter.shop.fake.pay(session_id, delayed=True)
    late = counter.shop.fake.succeed_later(session_id)
    assert {counter.post(event) for event in [*reversed(late), *early]} == {200}
    assert (counter.shop.status("customer:k1"), counter.shop.wallet()) == ("paid", 10_600)


def test_a_delayed_payment_that_fails_credits_nothing(counter: Counter) -> None:
    session_id = counter.session()
    events = [*counter.shop.fake.pay(session_id, delayed=True), *counter.shop.fake.fail_later(session_id)]
    for each in ([*events], [*reversed(events)]):
        assert {counter.post(event) for event in each} == {200}
    assert (counter.shop.status("customer:k1"), counter.shop.wallet()) == ("failed", 0)


def test_the_next_top_up_settles_arrears_at_once(counter: Counter) -> None:
    use(counter.shop.home, counter.shop.now[0] - timedelta(hours=5), core_hours=7)
    accrue_open_months(counter.shop.home)
    for event in counter.shop.fake.pay(counter.session()):
        counter.post(event)
    assert counter.shop.held("assets:receivable:arrears", "u-north") == 0
    assert counter.shop.wallet() == 10_600 - 700


def altered(event: Event, **changes: Any) -> Event:  # noqa: ANN401 - whatever an event holds
    thing = {**event["data"]["object"], **changes}
    return {**event, "data": {"object": thing}}


def forgeries(counter: Counter) -> dict[str, tuple[bytes, str]]:
    fake = counter.shop.fake
    event = fake.pay(counter.session())[-1]
    body, header = fake.signed(event)
    now = counter.shop.now[0].timestamp()
    return {
        "another secret": fake.signed(event, secret="whsec_other"),  # noqa: S106 - of the fake
        "an altered body": (body.replace(b"10600", b"90600"), header),
        "an old timestamp": fake.signed(event, at=now - 301),
        "a timestamp of the future": fake.signed(event, at=now + 301),
        "no signature": (body, ""),
        "live mode": fake.signed({**event, "livemode": True}),
        "another account": fake.signed({**event, "account": "acct_1"}),
        "another amount": fake.signed(altered(event, amount_total=90_600)),
        "no amount": fake.signed(altered(event, amount_total=None)),
        "another currency": fake.signed(altered(event, currency="jpy")),
        "more than a megabyte": fake.signed({**event, "padding": "x" * 1_100_000}),
        "no event": (b"{}", fake.signature(b"{}")),
    }


FORGERIES = (
    "another secret",
    "an altered body",
    "an old timestamp",
    "a timestamp of the future",
    "no signature",
    "live mode",
    "another account",
    "another amount",
    "no amount",
    "another currency",
    "more than a megabyte",
    "no event",
)


def test_what_is_not_stripes_word_is_refused_and_nothing_is_written(counter: Counter) -> None:
    made = forgeries(counter)
    assert set(made) == set(FORGERIES)
    before = content_of_database(counter.shop.home)
    for name, (body, header) in made.items():
        assert counter.post_raw(body, header) == 400, name
    assert content_of_database(counter.shop.home) == before


def test_a_webhook_without_or_with_two_signature_headers_is_refused(counter: Counter) -> None:
    body, header = counter.shop.fake.signed(counter.shop.fake.pay(counter.session())[-1])
    assert counter.client.post(WEBHOOK, content=body).status_code == 400
    doubled = [("Stripe-Signature", header), ("Stripe-Signature", header)]
    assert counter.client.post(WEBHOOK, content=body, headers=doubled).status_code == 400
    assert counter.shop.rows("stripe_event") == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_total": 90_600},
        {"amount_total": 1},
        {"currency": "jpy"},
        {"livemode": True},
        {"metadata": {"hourbook_customer": "u-south"}},
        {"metadata": {}},
        {"payment_intent": None},
    ],
)
def test_what_stripe_itself_has_otherwise_than_we_asked_for_is_not_credited(
    counter: Counter, changes: dict[str, Any]
) -> None:
    session_id = counter.session()
    event = counter.shop.fake.pay(session_id)[-1]
    counter.shop.fake.sessions[session_id].update(changes)
    assert counter.post(event) == 400
    assert (counter.shop.wallet(), counter.shop.wallet("u-south")) == (0, 0)
    assert counter.shop.status("customer:k1") == "open"


def test_a_payment_credited_for_one_top_up_is_not_credited_for_another(counter: Counter) -> None:
    first, second = counter.session(), counter.session(once="k2")
    for event in counter.shop.fake.pay(first):
        counter.post(event)
    event = counter.shop.fake.pay(second)[-1]
    counter.shop.fake.sessions[second]["payment_intent"] = counter.shop.fake.taken[0][0]
    assert counter.post(event) == 400
    assert counter.shop.wallet() == 10_600


def test_a_payment_that_nobody_here_asked_for_is_kept_and_never_acknowledged(counter: Counter) -> None:
    session_id = counter.session()
    stranger = {**counter.shop.fake.sessions[session_id], "id": "cs_stranger", "client_reference_id": "of another shop"}
    counter.shop.fake.sessions["cs_stranger"] = {**stranger, "metadata": {}}
    for event in counter.shop.fake.pay("cs_stranger"):
        assert counter.post(event) == 404
        assert counter.post(event) == 404
    assert counter.shop.rows("stripe_event") == 3
    assert catch_up(counter.shop.home, counter.shop.gateway) == 0
    assert counter.shop.wallet() == 0


def test_an_event_of_another_kind_is_kept_and_acknowledged(counter: Counter) -> None:
    event = {**counter.shop.fake.pay(counter.session())[-1], "type": "customer.updated"}
    assert counter.post(event) == 200
    assert (counter.shop.rows("stripe_event"), counter.shop.wallet()) == (1, 0)


def test_while_stripe_cannot_be_asked_the_event_is_kept_and_dealt_with_later(counter: Counter) -> None:
    event = counter.shop.fake.pay(counter.session())[-1]
    counter.shop.fake.faults.append("error_before")
    assert counter.post(event) == 503
    assert (counter.shop.rows("stripe_event"), counter.shop.wallet()) == (1, 0)
    assert catch_up(counter.shop.home, counter.shop.gateway) == 1
    assert counter.shop.wallet() == 10_600
    assert counter.post(event) == 200
    assert counter.shop.wallet() == 10_600


# The pages


def sign_in(counter: Counter, who: str) -> str:
    """Sign in and return what a form of this browser must carry."""
    token = form_token(counter.client.get("/login").text)
    answer = counter.client.post("/login", data={"key": counter.keys[who], "form_token": token})
    assert answer.status_code == 303
    return form_token(counter.client.get("/customers/u-north" if who == "own" else "/").text or "")


def form_token(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    return found[1] if found else ""


def test_a_customer_pays_from_its_page(counter: Counter) -> None:
    accrue_open_months(counter.shop.home)
    token = sign_in(counter, "own")
    answer = counter.client.post("/customers/u-north/topup", data={"amount": "106.00", "form_token": token})
    assert answer.status_code == 303
    session_id = answer.headers["location"].rpartition("/")[2]
    assert answer.headers["location"] == counter.shop.fake.sessions[session_id]["url"]
    for event in counter.shop.fake.pay(session_id):
        assert counter.post(event) == 200
    assert counter.shop.wallet() == 10_600


def test_a_form_that_is_not_ours_asks_for_no_money(counter: Counter) -> None:
    accrue_open_months(counter.shop.home)
    token = sign_in(counter, "own")
    for data in ({"amount": "106.00"}, {"amount": "106.00", "form_token": "0" * 64}):
        assert counter.client.post("/customers/u-north/topup", data=data).status_code == 403
    other = counter.client.post("/customers/u-south/topup", data={"amount": "106.00", "form_token": token})
    assert other.status_code == 404
    wrong = counter.client.post("/customers/u-north/topup", data={"amount": "lots", "form_token": token})
    assert wrong.status_code == 422
    counter.client.cookies.clear()
    away = counter.client.post("/customers/u-north/topup", data={"amount": "106.00", "form_token": token})
    assert (away.status_code, away.headers.get("location", "")) in {(303, "/login"), (403, "")}
    assert counter.shop.rows("checkout_intent") == 0


@pytest.mark.parametrize("path", ["/topup/success", "/topup/cancelled"])
@pytest.mark.parametrize(("language", "said"), [("zh", "余额"), ("en", "The balance follows")])
def test_the_way_back_from_stripe_says_that_the_balance_follows_the_payment_and_credits_nothing(
    counter: Counter, path: str, language: str, said: str
) -> None:
    session_id = counter.session()
    page = counter.client.get(f"{path}?session_id={session_id}&lang={language}")
    assert page.status_code == 200
    assert said in page.text
    assert counter.shop.wallet() == 0
