"""What the stories about payments share: a home, our small Stripe, and both clocks in the test's hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import text

from hourbook.api.app import create_app
from hourbook.database import read_session, run_write
from hourbook.keys import Role, create_key
from hourbook.settings import Home, Settings
from hourbook.stripe_events import receive_event
from hourbook.topups import CheckoutIntentRow, Pages, Settled, TopUpRequest, start_top_up
from invoices.stripe_gateway import StripeGateway
from ledger.store import balances
from tests.fakes.stripe_server import Event, FakeStripe, running

from .small_operator import make_home

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
WEBHOOK = "/v1/stripe/webhook"
TOPUPS = "/v1/customers/u-north/topups"
PAGES = Pages("http://us/topup/success", "http://us/topup/cancelled")


@dataclass
class Shop:
    """Hourbook and Stripe, side by side."""

    home: Home
    fake: FakeStripe
    gateway: StripeGateway
    now: list[datetime]

    def later(self, **time: int) -> None:
        """Let time go by, for us and for Stripe."""
        self.now[0] += timedelta(**time)

    def start(
        self, amount_minor: int = 10_600, *, key: str = "key-1", customer: str = "u-north", contract: str = ""
    ) -> CheckoutIntentRow:
        """Ask for a top-up."""
        return start_top_up(self.home, self.gateway, TopUpRequest(customer, amount_minor, key, contract), PAGES)

    def start_session(self, amount_minor: int = 10_600, *, key: str = "key-1", customer: str = "u-north") -> str:
        """Ask for a top-up and return the session that it is paid in."""
        session_id = self.start(amount_minor, key=key, customer=customer).session_id
        assert session_id
        return session_id

    def deliver(self, event: Event) -> Settled:
        """Bring an event."""
        return receive_event(self.home, self.gateway, self.gateway.read_event(*self.fake.signed(event), self.now[0]))

    def held(self, code: str, customer: str = "") -> int:
        """Return what stands on all accounts of a code, debit positive."""
        with read_session(self.home.engine) as session:
            found = balances(session)
        return sum(amount for key, amount in found.items() if key.code == code and customer in {"", key.customer})

    def wallet(self, customer: str = "u-north") -> int:
        """Return what a customer has left of what it paid, tax included."""
        return -self.held("liabilities:contract", customer) - self.held("liabilities:vat_pending", customer)

    def status(self, key: str = "key-1") -> str:
        """Return how a top-up stands."""
        with self.home.engine.connect() as connection:
            found = connection.execute(text("SELECT status FROM checkout_intent WHERE client_key = :key"), {"key": key})
            return str(found.scalar_one())

    def rows(self, table: str) -> int:
        """Count the rows of a table."""
        with self.home.engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608 - ours


@contextmanager
def open_shop(folder: Path) -> Iterator[Shop]:
    """Open Hourbook with a Stripe of its own."""
    now = [NOON]
    home = make_home(folder, lambda: now[0])
    with running(FakeStripe(clock=lambda: now[0].timestamp())) as fake:  # noqa: PLW0108 - now[0] changes
        gateway = StripeGateway(fake.api_key, fake.webhook_secret, fake.address, timeout_seconds=0.5, retries=0)
        yield Shop(home, fake, gateway, now)
    home.close()


@dataclass
class Counter:
    """Hourbook as customers and Stripe reach it."""

    shop: Shop
    client: TestClient
    keys: dict[str, str] = field(default_factory=dict)

    def key(self, role: Role, customer: str = "") -> str:
        """Make a key."""
        home = self.shop.home
        return run_write(home.engine, lambda session: create_key(session, role, home.now(), customer=customer))

    def ask(
        self,
        body: Mapping[str, Any],
        *,
        who: str = "own",
        once: str | None = "k1",
        path: str = TOPUPS,
    ) -> Any:  # noqa: ANN401 - a response
        """Ask for a top-up as somebody."""
        headers = {"Authorization": f"Bearer {self.keys[who]}"} if who else {}
        return self.client.post(path, json=body, headers=headers | ({"Idempotency-Key": once} if once else {}))

    def session(self, amount: str = "106.00", once: str = "k1") -> str:
        """Start a top-up and return the session that it is paid in."""
        answer = self.ask({"amount": amount}, once=once)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["url"].rpartition("/")[2])

    def post(self, event: Event) -> int:
        """Bring an event; return how it was answered."""
        return self.post_raw(*self.shop.fake.signed(event))

    def post_raw(self, body: bytes, signature: str) -> int:
        """Bring what is or is not an event."""
        answer = self.client.post(WEBHOOK, content=body, headers={"Stripe-Signature": signature})
        return int(answer.status_code)


@contextmanager
def open_counter(folder: Path) -> Iterator[Counter]:
    """Open Hourbook to customers and to Stripe."""
    with open_shop(folder) as shop:
        settings = Settings(
            stripe_api_key=SecretStr(shop.fake.api_key),
            stripe_webhook_secret=SecretStr(shop.fake.webhook_secret),
            stripe_api_base=shop.fake.address,
            public_url="http://testserver",
        )
        app = create_app(shop.home, settings)
        app.state.gateway = shop.gateway  # the same account, less patient
        made = Counter(shop, TestClient(app, raise_server_exceptions=False, follow_redirects=False))
        made.keys = {
            "own": made.key("customer", "u-north"),
            "other": made.key("customer", "u-south"),
            "finance": made.key("finance"),
            "collector": made.key("collector"),
        }
        yield made
