"""A home under load: servers that can be killed, senders of usage and money, and what is wrong in the end."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from hourbook.applying import apply_files
from hourbook.auditing import audit
from hourbook.database import run_write
from hourbook.keys import create_key
from hourbook.settings import Home
from tests.fakes.stripe_server import FakeStripe
from tests.fakes.stripe_server import running as stripe_running
from tests.hourbook.small_operator import FACTS

from .breaks import VARIABLE
from .load import AGAIN, CUSTOMER, Body, Caller, Gone, Said, note_acknowledged, pay, send_events
from .preforked import Child, Preforked, preforked
from .stored import lost_and_doubled, payments_astray

NOW = datetime.fromisoformat("2026-11-25T10:00:00+08:00")
RECEIPT_MINOR = 1200
REST = 5000  # events in one request
STARTED_SECONDS = 120  # so long a server may take to answer, on a machine that has much else to do
ALIVE_SECONDS = 0.6  # a server at most, from its first answer to its end
PAYERS = 4
ACKNOWLEDGED = 202


@dataclass(frozen=True)
class Site:
    """A home, what runs on it, and what was said about it."""

    home: Home
    programs: Preforked
    stripe: FakeStripe
    said: Said
    caller: Caller
    payer: Caller
    chance: random.Random
    logs: Path
    broken: str = ""

    def start(self) -> Child:
        """Start a server."""
        own = self.own() | {
            "HOURBOOK_ACCRUE_EVERY_SECONDS": "1",
            "HOURBOOK_STRIPE_API_KEY": self.stripe.api_key,
            "HOURBOOK_STRIPE_WEBHOOK_SECRET": self.stripe.webhook_secret,
            "HOURBOOK_STRIPE_API_BASE": self.stripe.address,
        }
        return self.programs.start(["serve", "--port", str(self.caller.port)], own, self.logs / "server.log")

    def wait(self, server: Child) -> None:
        """Wait until a server answers."""
        end = time.monotonic() + STARTED_SECONDS
        while True:
            try:
                self.caller.ask("/v1/events", b"", {})
            except Gone:
                assert server.alive(), server.said()[-3000:]
                assert time.monotonic() < end, "the server does not answer"
                time.sleep(0.02)
            else:
                return

    def kill_often(self, times: int, enough: Callable[[], bool] = lambda: True) -> None:
        """Start a server and kill it at any moment, now and then while it starts, so many times.

        On a slow machine a server does little in its life; it is killed on, up to three times as often, until `enough`.
        """
        killed = 0
        while killed < times or (killed < 3 * times and not enough()):
            server = self.start()
            if self.chance.random() < 0.15:
                time.sleep(self.chance.uniform(0.01, 0.4))
            else:
                self.wait(server)
                time.sleep(self.chance.uniform(0, ALIVE_SECONDS))
            server.kill()
            killed += 1

    def senders(self) -> list[Callable[[threading.Event], None]]:
        """Everyone who sends, each over a connection of its own."""
        batches = [partial(send_events, self.said, self.caller, f"batch{n}", (5, 60)) for n in range(3)]
        singles = [partial(send_events, self.said, self.caller, f"single{n}", (1, 1)) for n in range(2)]
        payers = [partial(pay, self.said, self.payer, self.stripe, f"payer{n}") for n in range(PAYERS)]
        return [*batches, *singles, *payers, self.receive]

    def receive(self, stop: threading.Event) -> None:
        """Record receipts by the command line, killing that too now and then; repeat what was not acknowledged."""
        chance = random.Random("receipts")  # noqa: S311
        number = 0
        longest = 1.0
        while not stop.is_set():
            number += 1
            name = f"bank-{number}"
            self.said.receipts[name] = RECEIPT_MINOR
            while name not in self.said.received and not stop.is_set():
                output = self.logs / f"topup-{number}-{time.monotonic_ns()}.log"
                started = time.monotonic()
                command = self.programs.start(["topup", CUSTOMER, "12.00", "--reference", name], self.own(), output)
                if chance.random() < 0.5:
                    time.sleep(chance.uniform(0.05, longest))
                    if command.alive():
                        command.kill()
                else:
                    command.wait(STARTED_SECONDS)
                    longest = time.monotonic() - started
                if f"({name})" in command.said():
                    self.said.received.add(name)

    def own(self) -> dict[str, str]:
        """The environment of a command."""
        return {
            "HOURBOOK_HOME": str(self.home.path),
            "HOURBOOK_DATABASE_URL": os.environ.get("HOURBOOK_DATABASE_URL", ""),
            VARIABLE: self.broken,
        }

    def send_the_rest(self) -> None:
        """Send everything that was not acknowledged once more, to a server that lives."""
        known = self.said.acknowledged
        every = [one for revisions in self.said.sent.values() for one in revisions]
        missing = [one for one in every if (one["id"], one["data"]["revision"]) not in known]
        for first in range(0, len(missing), REST):
            some = missing[first : first + REST]
            note_acknowledged(self.said, some, self._taken(some))

    def _taken(self, events: list[Body]) -> bytes:
        """Send events until they are acknowledged."""
        end = time.monotonic() + STARTED_SECONDS
        while True:
            with suppress(Gone):
                status, answer = self.caller.events(events)
                if status == ACKNOWLEDGED:
                    return answer
                assert status in AGAIN, answer
            assert time.monotonic() < end, "the server takes nothing"
            time.sleep(0.1)


@contextmanager
def site(
    home: Home, folder: Path, seed: int, *, broken: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[Site]:
    """Set everything up around a home."""
    facts = folder / "operator.toml"
    facts.write_text(FACTS.format(zone="Asia/Shanghai"), encoding="utf-8")
    apply_files(home, [facts])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = [run_write(home.engine, partial(create_key, role=role, now=home.now())) for role in ("collector", "finance")]
    caller, payer = (Caller(port, key) for key in keys)
    with preforked(environment or {}) as programs, stripe_running(FakeStripe()) as stripe:
        chance = random.Random(seed)  # noqa: S311 - printed, so that a run can be repeated
        yield Site(home, programs, stripe, Said(), caller, payer, chance, folder, broken)


def new_seed() -> int:
    seed = int(os.environ.get("HOURBOOK_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
    print(f"HOURBOOK_TEST_SEED={seed}")  # noqa: T201 - shown where the test fails
    return seed


def complaints(here: Site) -> list[str]:
    """Say what is wrong with what the home holds, after everything unacknowledged was sent again."""
    said = here.said
    server = here.start()
    here.wait(server)
    if wrong := lost_and_doubled(here.home, said):
        server.kill()
        return wrong
    here.send_the_rest()
    server.kill()
    wrong += lost_and_doubled(here.home, said) + payments_astray(here.home, said, here.stripe.taken) + said.odd
    print(  # noqa: T201 - how much was proved
        f"{len(said.sent)} events sent, {len(said.acknowledged)} acknowledged, {len(said.paid)} payments and "
        f"{len(said.received)} receipts acknowledged, {said.refused} refused for the moment"
    )
    return wrong + [str(finding) for finding in audit(here.home).findings]
