"""A small Stripe of our own: Checkout, idempotency keys, signed webhooks, faults, and a log of money really taken.

It speaks HTTP on loopback, so the real SDK drives it. The test plays the paying customer (`pay`, `fail_later`, …) and
the postman (`signed`); what a bank would know stands in `taken`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl

import uvicorn

Fault = Literal["slow_after", "error_after", "error_before", "busy", "too_many", "cut_after"]
Answer = tuple[int, dict[str, Any]]
Event = dict[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

DAY_SECONDS = 86_400
CURRENCIES = {"cny", "usd", "eur", "jpy"}
CREATED = {"client_reference_id", "success_url", "cancel_url"}


@dataclass
class KnownKey:
    """What was answered to the first request with a key, which is answered again for a day."""

    parameters: str
    answer: Answer
    at: float


@dataclass
class FakeStripe:
    """An account at Stripe, with everything that happened in it."""

    api_key: str = "sk_test_fake"
    webhook_secret: str = "whsec_fake"  # noqa: S105 - of the fake
    clock: Callable[[], float] = time.time
    live: bool = False
    slow_seconds: float = 1.5
    address: str = ""
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    payments: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, KnownKey] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    taken: list[tuple[str, int, str]] = field(default_factory=list)  # payment, amount, currency
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)  # one for each of the next requests
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # What the customer does.

    def pay(self, session_id: str, *, delayed: bool = False) -> list[Event]:
        """Pay in a session, by card or by a method that takes days; return the events that tell of it."""
        session = self.sessions[session_id]
        if session["status"] != "open":
            raise AssertionError(f"a {session['status']} session cannot be paid")
        payment = self._payment(session)
        session.update(status="complete", payment_intent=payment["id"], url=None)
        if delayed:
            return [self._event("checkout.session.completed", session)]
        return [*self._take(session), self._event("checkout.session.completed", session)]

    def succeed_later(self, session_id: str) -> list[Event]:
        """Let a delayed payment arrive."""
        session = self.sessions[session_id]
        return [*self._take(session), self._event("checkout.session.async_payment_succeeded", session)]

    def fail_later(self, session_id: str) -> list[Event]:
        """Let a delayed payment fail."""
        return [self._event("checkout.session.async_payment_failed", self.sessions[session_id])]

    def expire(self, session_id: str) -> list[Event]:
        """Let a session run out unpaid."""
        self.sessions[session_id].update(status="expired", url=None)
        return [self._event("checkout.session.expired", self.sessions[session_id])]

    def _payment(self, session: dict[str, Any]) -> dict[str, Any]:
        payment = {
            "id": f"pi_{next(self.numbers)}",
            "object": "payment_intent",
            "amount": session["amount_total"],
            "currency": session["currency"],
            "status": "processing",
            "livemode": self.live,
            "metadata": session["metadata"],
        }
        self.payments[payment["id"]] = payment
        return payment

    def _take(self, session: dict[str, Any]) -> list[Event]:
        payment = self.payments[session["payment_intent"]]
        payment["status"] = "succeeded"
        session["payment_status"] = "paid"
        self.taken.append((payment["id"], payment["amount"], payment["currency"]))
        charge = {**payment, "id": f"ch_{payment['id']}", "object": "charge", "payment_intent": payment["id"]}
        return [self._event("payment_intent.succeeded", payment), self._event("charge.succeeded", charge)]

    # What the postman does.

    def _event(self, kind: str, thing: dict[str, Any]) -> Event:
        event = {
            "id": f"evt_{next(self.numbers)}",
            "object": "event",
            "api_version": "2026-10-28.endive",
            "created": int(self.clock()),
            "livemode": self.live,
            "type": kind,
            "data": {"object": json.loads(json.dumps(thing))},
        }
        self.events.append(event)
        return event

    def signed(self, event: Event, *, at: float | None = None, secret: str | None = None) -> tuple[bytes, str]:
        """Return an event as it is posted: body and Stripe-Signature header."""
        body = json.dumps(event, indent=2).encode()
        return body, self.signature(body, at=at, secret=secret)

    def signature(self, body: bytes, *, at: float | None = None, secret: str | None = None) -> str:
        """Sign a body, by our own arithmetic."""
        stamp = int(self.clock() if at is None else at)
        key = (secret or self.webhook_secret).encode()
        return f"t={stamp},v1={hmac.new(key, b'%d.%s' % (stamp, body), hashlib.sha256).hexdigest()}"

    @staticmethod
    def storm(events: Sequence[Event], seed: int, *, most_copies: int = 5) -> list[Event]:
        """Return events as a bad network delivers them: repeated and in any order."""
        chance = random.Random(seed)  # noqa: S311 - a shuffle that can be repeated
        posted = [event for event in events for _ in range(chance.randint(1, most_copies))]
        chance.shuffle(posted)
        return posted

    # What the API does.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with the next fault if there is one."""
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        text = body.decode() if scope["method"] == "POST" else scope["query_string"].decode()
        fault = self.faults.popleft() if self.faults else None
        self.requests.append((scope["method"], scope["path"]))
        await self._send(send, self._answer(scope, headers, text, fault), fault)

    async def _send(self, send: Send, answer: Answer, fault: Fault | None) -> None:
        if fault == "slow_after":
            await asyncio.sleep(self.slow_seconds)
        status, content = answer
        text = json.dumps(content).encode()
        length = len(text) + (10 if fault == "cut_after" else 0)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    def _answer(self, scope: Scope, headers: dict[str, str], text: str, fault: Fault | None) -> Answer:
        if headers.get("authorization") != f"Bearer {self.api_key}":
            return _refusal(401, "Invalid API Key provided")
        if fault == "busy":
            return _refusal(409, "another request with this key is under way", kind="idempotency_error")
        if fault == "too_many":
            return _refusal(429, "too many requests")
        if fault == "error_before":
            return _refusal(500, "nothing was done", kind="api_error")
        if scope["method"] == "POST":
            return self._once(scope["path"], headers.get("idempotency-key", ""), text, fault)
        return self._read(scope["path"], dict(parse_qsl(text)))

    def _once(self, path: str, key: str, text: str, fault: Fault | None) -> Answer:
        known = self.keys.get(key)
        if known is not None and self.clock() - known.at < DAY_SECONDS:
            if known.parameters != text:
                return _refusal(400, "Keys can only be used with the same parameters", kind="idempotency_error")
            return known.answer
        answer = self._create(dict(parse_qsl(text))) if path == "/v1/checkout/sessions" else _refusal(404, "no route")
        if fault == "error_after":
            answer = _refusal(500, "done, and then something broke", kind="api_error")
        if key:
            self.keys[key] = KnownKey(text, answer, self.clock())
        return answer

    def _create(self, given: dict[str, str]) -> Answer:
        price = "line_items[0][price_data]"
        amount, currency = int(given[f"{price}[unit_amount]"]), given[f"{price}[currency]"]
        if amount < 1 or currency not in CURRENCIES:
            return _refusal(400, f"Invalid amount {amount} {currency}")
        name = f"cs_test_{next(self.numbers)}"
        self.sessions[name] = {
            "id": name,
            "object": "checkout.session",
            "status": "open",
            "payment_status": "unpaid",
            "payment_intent": None,
            "amount_total": amount * int(given["line_items[0][quantity]"]),
            "currency": currency,
            "url": f"{self.address}/pay/{name}",
            "livemode": self.live,
            "created": int(self.clock()),
            "metadata": {k[9:-1]: v for k, v in given.items() if k.startswith("metadata[")},
            **{each: given[each] for each in CREATED},
        }
        return 200, dict(self.sessions[name])

    def _read(self, path: str, asked: dict[str, str]) -> Answer:
        name = path.rpartition("/")[2]
        if path == "/v1/checkout/sessions":
            return 200, self._list(asked)
        if path.startswith("/v1/checkout/sessions/") and name in self.sessions:
            return 200, dict(self.sessions[name])
        return _refusal(404, f"No such object: {name}")

    def _list(self, asked: dict[str, str]) -> dict[str, Any]:
        found = [one for one in reversed(self.sessions.values()) if _matches(one, asked)]
        after = [one["id"] for one in found].index(asked["starting_after"]) + 1 if "starting_after" in asked else 0
        page = found[after : after + int(asked.get("limit", 10))]
        more = after + len(page) < len(found)
        return {"object": "list", "url": "/v1/checkout/sessions", "has_more": more, "data": page}


def _matches(session: dict[str, Any], asked: dict[str, str]) -> bool:
    payment = asked.get("payment_intent", session["payment_intent"])
    first, last = asked.get("created[gte]", 0), asked.get("created[lte]", session["created"])
    return bool(payment == session["payment_intent"] and int(first) <= session["created"] <= int(last))


def _refusal(status: int, message: str, *, kind: str = "invalid_request_error") -> Answer:
    return status, {"error": {"type": kind, "message": message}}


@contextmanager
def running(fake: FakeStripe) -> Iterator[FakeStripe]:
    """Serve the fake on loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    fake.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(fake, lifespan="off", log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield fake
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
