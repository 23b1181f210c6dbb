"""Top-ups through Stripe: one session and one credit, whatever is lost, repeated or killed in between."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hourbook.accruing import accrue_open_months
from hourbook.audit import verify
from hourbook.crash import CRASH_VARIABLE
from hourbook.database import write_session
from hourbook.receiving import UnknownCustomerError
from hourbook.settings import Home
from hourbook.stripe_events import catch_up
from hourbook.topups import TopUpConflictError, TopUpRefusedError, TopUpRequest, start_top_up
from invoices.stripe_gateway import Checkout, CheckoutRequest, GatewayBusyError, GatewayUnknownError, StripeGateway
from tests.fakes.stripe_server import Fault

from .payment_stories import PAGES, Shop, open_shop
from .small_operator import use

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with open_shop(tmp_path) as made:
        yield made
        assert verify(made.home.engine) == []


def test_a_top_up_leads_to_a_session_at_stripe_and_credits_nothing_yet(shop: Shop) -> None:
    intent = shop.start(10_600)
    session = shop.fake.sessions[intent.session_id or ""]
    assert (session["amount_total"], session["currency"]) == (10_600, "cny")
    assert (session["success_url"], session["cancel_url"]) == (PAGES.success, PAGES.cancel)
    assert intent.url == session["url"]
    assert (intent.status, shop.wallet()) == ("open", 0)


def test_a_paid_top_up_is_posted_as_money_at_the_provider_against_liability_and_vat(shop: Shop) -> None:
    for event in shop.fake.pay(shop.start_session(10_600)):
        shop.deliver(event)
    assert shop.held("assets:clearing:stripe") == 10_600
    assert shop.held("liabilities:contract", "u-north") == -10_000
    assert shop.held("liabilities:vat_pending", "u-north") == -600
    assert shop.held("assets:bank") == 0


def test_the_same_request_again_is_the_same_session_also_after_it_was_paid(shop: Shop) -> None:
    first = shop.start()
    assert shop.start().url == first.url
    shop.fake.pay(first.session_id or "")
    catch_up(shop.home, shop.gateway)
    again = shop.start()
    assert (again.id, again.session_id, again.url) == (first.id, first.session_id, first.url)
    assert len(shop.fake.sessions) == 1


def test_the_same_request_sent_by_many_at_once_is_one_session(shop: Shop) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: shop.start(), range(16)))
    assert len({(intent.id, intent.session_id, intent.url) for intent in made}) == 1
    assert (len(shop.fake.sessions), shop.rows("checkout_intent")) == (1, 1)


def test_a_payment_told_of_by_many_at_once_is_credited_once(shop: Shop) -> None:
    events = shop.fake.storm(shop.fake.pay(shop.start_session()), 1)
    with ThreadPoolExecutor(8) as pool:
        settled = list(pool.map(shop.deliver, events))
    assert sum(one.credited for one in settled) == 1
    assert shop.wallet() == 10_600


def test_the_same_key_for_another_amount_is_refused(shop: Shop) -> None:
    shop.start(10_600)
    with pytest.raises(TopUpConflictError):
        shop.start(10_700)
    with pytest.raises(TopUpConflictError):
        shop.start(10_600, contract="HT-1")
    assert len(shop.fake.sessions) == 1


def test_keys_of_two_customers_have_nothing_to_do_with_each_other(shop: Shop) -> None:
    assert shop.start(10_600).id != shop.start(20_000, customer="u-south").id
    assert len(shop.fake.sessions) == 2


@pytest.mark.parametrize(
    ("amount", "customer", "contract", "error"),
    [
        (0, "u-north", "", TopUpRefusedError),
        (-1, "u-north", "", TopUpRefusedError),
        (100_000_000, "u-north", "", TopUpRefusedError),
        (100, "u-nobody", "", UnknownCustomerError),
        (100, "u-north", "HT-2", TopUpRefusedError),
        (100, "u-north", "HT-9", TopUpRefusedError),
    ],
)
def test_what_cannot_be_topped_up_is_refused_before_stripe_is_asked(
    shop: Shop, amount: int, customer: str, contract: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        shop.start(amount, customer=customer, contract=contract)
    assert shop.rows("checkout_intent") == 0
    assert shop.fake.requests == []


def test_no_transaction_is_open_while_stripe_is_asked(shop: Shop) -> None:
    @dataclass(frozen=True)
    class Watching(StripeGateway):
        home: Home = shop.home

        def create_checkout(self, request: CheckoutRequest) -> Checkout:
            with write_session(self.home.engine):
                return super().create_checkout(request)

    watching = Watching(shop.fake.api_key, shop.fake.webhook_secret, shop.fake.address)
    assert start_top_up(shop.home, watching, TopUpRequest("u-north", 100, "key-1"), PAGES).status == "open"


@pytest.mark.parametrize("fault", ["slow_after", "cut_after"])
def test_a_lost_answer_is_resolved_at_once_by_asking(shop: Shop, fault: Fault) -> None:
    shop.fake.faults.append(fault)
    assert shop.start().session_id in shop.fake.sessions
    assert len(shop.fake.sessions) == 1


def test_an_error_that_stripe_repeats_for_a_day_does_not_hide_the_session_that_was_made(shop: Shop) -> None:
    shop.fake.faults.append("error_after")
    assert shop.start().session_id in shop.fake.sessions


def test_an_unknown_outcome_is_resolved_by_the_next_try_with_the_same_key(shop: Shop) -> None:
    shop.fake.faults += ["cut_after", "error_before"]
    with pytest.raises(GatewayUnknownError):
        shop.start()
    assert (shop.status(), len(shop.fake.sessions)) == ("created", 1)
    assert shop.start().session_id in shop.fake.sessions
    assert len(shop.fake.sessions) == 1


def test_an_unknown_outcome_is_resolved_by_the_schedule_without_any_try(shop: Shop) -> None:
    shop.fake.faults += ["cut_after", "error_before"]
    with pytest.raises(GatewayUnknownError):
        shop.start()
    shop.later(minutes=3)
    catch_up(shop.home, shop.gateway)
    assert (shop.status(), len(shop.fake.sessions)) == ("open", 1)


@pytest.mark.parametrize("fault", ["busy", "too_many"])
def test_a_request_under_way_may_be_sent_again(shop: Shop, fault: Fault) -> None:
    shop.fake.faults.append(fault)
    with pytest.raises(GatewayBusyError):
        shop.start()
    assert shop.start().status == "open"


def test_a_day_later_when_stripe_has_forgotten_the_key_no_second_session_is_made(shop: Shop) -> None:
    shop.fake.faults += ["cut_after", "error_before"]
    with pytest.raises(GatewayUnknownError):
        shop.start()
    shop.later(hours=30)
    assert shop.start().session_id in shop.fake.sessions
    assert len(shop.fake.sessions) == 1


def test_a_request_that_never_reached_stripe_is_given_up_after_a_day(shop: Shop) -> None:
    shop.fake.faults += ["error_before", "error_before"]
    with pytest.raises(GatewayUnknownError):
        shop.start()
    shop.later(hours=24)
    with pytest.raises(GatewayBusyError):
        shop.start()
    assert catch_up(shop.home, shop.gateway) == 0
    assert shop.status() == "created"
    shop.later(hours=2)
    catch_up(shop.home, shop.gateway)
    assert shop.status() == "given_up"
    with pytest.raises(TopUpRefusedError, match="new key"):
        shop.start()
    assert shop.fake.sessions == {}
    assert shop.start(key="key-2").status == "open"


def test_an_address_of_ours_that_changed_meanwhile_makes_no_second_session(shop: Shop) -> None:
    shop.fake.faults += ["cut_after", "error_before"]
    with pytest.raises(GatewayUnknownError):
        shop.start()
    moved = PAGES.__class__("https://new/topup/success", "https://new/topup/cancelled")
    intent = start_top_up(shop.home, shop.gateway, TopUpRequest("u-north", 10_600, "key-1"), moved)
    assert list(shop.fake.sessions) == [intent.session_id]


def test_a_payment_is_credited_even_if_every_webhook_is_lost(shop: Shop) -> None:
    shop.fake.pay(shop.start_session())
    shop.later(minutes=6)
    assert catch_up(shop.home, shop.gateway) == 1
    assert (shop.status(), shop.wallet()) == ("paid", 10_600)
    shop.later(minutes=6)
    assert catch_up(shop.home, shop.gateway) == 0
    assert shop.wallet() == 10_600


def test_a_session_that_ran_out_credits_nothing(shop: Shop) -> None:
    for event in shop.fake.expire(shop.start_session()):
        shop.deliver(event)
    assert (shop.status(), shop.wallet()) == ("expired", 0)


def test_a_top_up_settles_arrears_with_the_next_accrual(shop: Shop) -> None:
    use(shop.home, shop.now[0] - timedelta(hours=5), core_hours=7)
    accrue_open_months(shop.home)
    assert shop.held("assets:receivable:arrears", "u-north") == 700
    for event in shop.fake.pay(shop.start_session(10_600)):
        shop.deliver(event)
    accrue_open_months(shop.home)
    assert shop.held("assets:receivable:arrears", "u-north") == 0
    assert shop.wallet() == 10_600 - 700


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_what_stripe_took_is_what_stands_in_clearing_whatever_happens_on_the_way(shop: Shop, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a story that can be repeated
    events = []
    for number in range(8):
        customer = chance.choice(["u-north", "u-south"])
        session_id = shop.start_session(chance.randint(1, 99_999), key=f"key-{number}", customer=customer)
        ending = chance.choice(["paid", "delayed", "failed", "expired", "open"])
        if ending in {"delayed", "failed"}:
            events += shop.fake.pay(session_id, delayed=True)
        if ending == "paid":
            events += shop.fake.pay(session_id)
        if ending == "delayed":
            events += shop.fake.succeed_later(session_id)
        if ending == "failed":
            events += shop.fake.fail_later(session_id)
        if ending == "expired":
            events += shop.fake.expire(session_id)
    storm = shop.fake.storm(events, seed, most_copies=3)
    for event in storm[: len(storm) // 2]:
        shop.deliver(event)
    shop.later(minutes=10)
    catch_up(shop.home, shop.gateway)
    for event in storm[len(storm) // 2 :]:
        shop.deliver(event)
    taken = sum(amount for _, amount, _ in shop.fake.taken)
    assert taken > 0
    assert shop.held("assets:clearing:stripe") == taken
    assert shop.wallet("u-north") + shop.wallet("u-south") == taken


PROGRAM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from hourbook.database import open_home
from hourbook.stripe_events import receive_event
from hourbook.topups import Pages, TopUpRequest, start_top_up
from invoices.stripe_gateway import StripeGateway

home, gateway = open_home(Path(sys.argv[1])), StripeGateway("sk_test_fake", "whsec_fake", sys.argv[2])
if len(sys.argv) == 3:
    pages = Pages("http://us/topup/success", "http://us/topup/cancelled")
    start_top_up(home, gateway, TopUpRequest("u-north", 10600, "key-1"), pages)
else:
    event = gateway.read_event(sys.argv[3].encode(), sys.argv[4], datetime.now(UTC))
    receive_event(home, gateway, event)
"""


def run_and_die(shop: Shop, point: str, *arguments: str) -> None:
    """Run the program in a process of its own, which is killed at a point that it must reach."""
    command = [sys.executable, "-c", PROGRAM, str(shop.home.path), shop.fake.address, *arguments]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, CRASH_VARIABLE: point}, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("point", ["topup:after_intent", "topup:after_answer", "topup:after_commit"])
def test_killed_while_asking_for_a_session_and_asked_again_there_is_one(shop: Shop, point: str) -> None:
    shop.now[0] = datetime.now(UTC)
    run_and_die(shop, point)
    assert len(shop.fake.sessions) == (point != "topup:after_intent")
    shop.later(seconds=30)
    assert shop.start().session_id in shop.fake.sessions
    assert len(shop.fake.sessions) == 1
    assert shop.rows("checkout_intent") == 1


@pytest.mark.slow
@pytest.mark.parametrize("point", ["webhook:after_keep", "topup:before_credit", "webhook:after_credit"])
def test_killed_while_crediting_and_told_again_it_is_one_credit(shop: Shop, point: str) -> None:
    shop.now[0] = datetime.now(UTC)
    event = shop.fake.pay(shop.start_session())[-1]
    body, header = shop.fake.signed(event)
    run_and_die(shop, point, body.decode(), header)
    assert shop.rows("stripe_event") == 1
    assert shop.wallet() == (10_600 if point == "webhook:after_credit" else 0)
    shop.deliver(event)
    assert shop.wallet() == 10_600


@pytest.mark.slow
def test_killed_before_the_answer_was_kept_the_webhook_alone_brings_the_credit(shop: Shop) -> None:
    shop.now[0] = datetime.now(UTC)
    run_and_die(shop, "topup:after_answer")
    assert shop.status() == "created"
    for event in shop.fake.pay(next(iter(shop.fake.sessions))):
        shop.deliver(event)
    assert (shop.status(), shop.wallet()) == ("paid", 10_600)
