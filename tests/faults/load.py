"""Usage and payments sent to a server that is killed again and again, and what each sender was told of them."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.fakes.stripe_server import FakeStripe

CUSTOMER = "u-north"
TOPUPS = f"/v1/customers/{CUSTOMER}/topups"
WEBHOOK = "/v1/stripe/webhook"
DAYS = 4
PAUSE_SECONDS = 0.2
PATIENCE_SECONDS = 60
# What a server that is there may say to a request that it did not do: try again.
AGAIN = frozenset({409, 429, 503})
Body = dict[str, Any]


class Gone(Exception):  # noqa: N818 - it is no error that a killed server does not answer
    """There was no answer: what was asked for may be done or not."""


@dataclass
class Said:
    """What was sent, and what was acknowledged. Each sender writes under its own names."""

    sent: dict[str, list[Body]] = field(default_factory=dict)  # event id -> every revision of it that was sent
    acknowledged: dict[tuple[str, int], int] = field(default_factory=dict)  # event id and revision -> when
    paid: set[str] = field(default_factory=set)  # payments whose webhook was answered
    receipts: dict[str, int] = field(default_factory=dict)  # reference -> minor units, of those that were sent
    received: set[str] = field(default_factory=set)  # references that the command line said it received
    odd: list[str] = field(default_factory=list)  # answers that nothing here explains
    refused: int = 0  # answers that said: again later


@dataclass(frozen=True)
class Caller:
    """One connection at a time to wherever the server is."""

    port: int
    key: str

    def ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Post a body; raises `Gone` where the answer did not come whole."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", path, body, {"Authorization": f"Bearer {self.key}", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Gone from error
        finally:
            connection.close()

    def events(self, events: list[Body]) -> tuple[int, bytes]:
        """Post usage, as one event or as a batch."""
        single = len(events) == 1
        kind = "application/cloudevents+json" if single else "application/cloudevents-batch+json"
        return self.ask("/v1/events", orjson.dumps(events[0] if single else events), {"Content-Type": kind})


def event(name: str, *, number: int, revision: int = 1) -> Body:
    """An attempt of an hour on one of a few days; a later revision held more cores."""
    day = f"2026-11-{5 + number % DAYS:02}"
    data = {
        "cluster": "hpc1",
        "partition": "cpu",
        "account": "grp",
        "user": f"user-{number % 5}",
        "state": "completed",
        "start": f"{day}T03:00:00+08:00",
        "end": f"{day}T04:00:00+08:00",
        "revision": revision,
        "resources": {"cpus": 1 + number % 7 + 10 * (revision - 1), "nodes": 1},
    }
    return {"specversion": "1.0", "id": name, "source": "test:hpc1", "type": "hourbook.usage.v1", "data": data}


def send_events(said: Said, caller: Caller, name: str, size: tuple[int, int], stop: threading.Event) -> None:
    """Send usage until told to stop; what got no answer is mostly sent again and sometimes left as it is."""
    chance = random.Random(name)  # noqa: S311 - a run that can be repeated
    number = 0
    while not stop.is_set():
        fresh = []
        for _ in range(chance.randint(*size)):
            number += 1
            fresh.append(event(f"{name}-{number}", number=number))
        corrected = [
            event(one["id"], number=int(one["id"].rpartition("-")[2]), revision=2)
            for one in fresh
            if chance.random() < 0.05
        ]
        for events in (fresh, corrected):
            if events:
                note_sent(said, events)
                _until_told(said, caller, events, chance, stop)
        time.sleep(chance.uniform(0, PAUSE_SECONDS))


def note_sent(said: Said, events: Iterable[Body]) -> None:
    """Write down what is about to be sent."""
    for one in events:
        said.sent.setdefault(one["id"], []).append(one)


def note_acknowledged(said: Said, events: Iterable[Body], answer: bytes) -> None:
    """Write down what a server acknowledged, and when, by the machine's steady clock."""
    now = time.monotonic_ns()
    for one, item in zip(events, orjson.loads(answer)["items"], strict=True):
        if item["status"] == "accepted":
            said.acknowledged[one["id"], one["data"]["revision"]] = now
        else:
            said.odd.append(f"{one['id']}: {item}")


def _until_told(said: Said, caller: Caller, events: list[Body], chance: random.Random, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            status, answer = caller.events(events)
        except Gone:
            if chance.random() < 0.2:
                return
            time.sleep(0.01)
            continue
        if status == 202:
            note_acknowledged(said, events, answer)
            return
        if status not in AGAIN:
            said.odd.append(f"{status} {answer[:300]!r}")
            return
        said.refused += 1
        time.sleep(0.02)


def pay(said: Said, caller: Caller, stripe: FakeStripe, name: str, stop: threading.Event) -> None:
    """Pay through Stripe again and again; its webhooks come several times, until each is answered."""
    chance = random.Random(name)  # noqa: S311
    number = 0
    while not stop.is_set():
        number += 1
        amount = orjson.dumps({"amount": f"{chance.randint(1, 50)}.00"})
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"{name}-{number}"}
        answer = _persist(said, lambda: caller.ask(TOPUPS, amount, headers), 201, stop)  # noqa: B023 - called at once
        if answer is None:
            return
        events = stripe.pay(orjson.loads(answer)["url"].rpartition("/")[2])
        for told in stripe.storm(events, number, most_copies=2):
            webhook = stripe.signed(told)
            if not _bring(said, caller, webhook, stop):
                return
        said.paid.add(events[0]["data"]["object"]["id"])
        time.sleep(chance.uniform(0, 0.1))


def _bring(said: Said, caller: Caller, webhook: tuple[bytes, str], stop: threading.Event) -> bool:
    body, signature = webhook
    headers = {"Stripe-Signature": signature, "Content-Type": "application/json"}
    return _persist(said, lambda: caller.ask(WEBHOOK, body, headers), 200, stop) is not None


def _persist(said: Said, ask: Callable[[], tuple[int, bytes]], wanted: int, stop: threading.Event) -> bytes | None:
    """Ask until it is answered as wanted; None where it was stopped before."""
    while not stop.is_set():
        try:
            status, answer = ask()
        except Gone:
            time.sleep(0.01)
            continue
        if status == wanted:
            return answer
        if status not in AGAIN:
            said.odd.append(f"{status} {answer[:300]!r}")
        said.refused += 1
        time.sleep(0.05)
    return None


@contextmanager
def running(work: Iterable[Callable[[threading.Event], None]]) -> Iterator[None]:
    """Let every sender work in a thread of its own until the end of the block."""
    stop = threading.Event()
    threads = [threading.Thread(target=one, args=(stop,)) for one in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
