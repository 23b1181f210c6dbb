"""Requests that nobody should send: broken bytes, wrong schemas, odd encodings, bombs; good events between them."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.hourbook.served import usage_event

BATCH = "application/cloudevents-batch+json"
ONE = "application/cloudevents+json"
LINES = "application/x-ndjson"
FIRST_GOOD = 100_000
BOMB_BYTES = 128 * 1024 * 1024
# What a value may be replaced by; as text, because JSON can say more than Python would.
VALUES = (
    "null", "true", "-1", "-0", "0.5", "1e999", "1e-999", "1" * 400, "9007199254740992", "18446744073709551616", '""',
    '"\\ud800"', '"\\u0000"', '"a\\nb"', '"' + "x" * 5000 + '"', "[]", "{}", "[" * 200 + "]" * 200,
    '{"a":' * 200 + "1" + "}" * 200,
    '"2026-11-22T04:00:00"', '"2026-02-30T04:00:00Z"', '"2999-01-01T00:00:00Z"', '"0000-00-00T00:00:00Z"', '"\u202e"',
)  # fmt: skip


@dataclass
class Sent:
    """A request, and the good events that it holds."""

    body: bytes
    kind: str = BATCH
    headers: dict[str, str] = field(default_factory=dict)
    bad: int = 1  # events or requests that cannot be used
    good: int = 0
    statuses: tuple[int, ...] = (202,)


class Source:
    """Makes requests, always the same ones for a seed, and numbers the good events."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - the same for everybody who runs it
        self.good = 0

    def good_event(self) -> bytes:
        """A good event that was not there before."""
        self.good += 1
        return _json(usage_event(FIRST_GOOD + self.good, day=1 + self.good % 28))

    def bad_event(self) -> bytes:
        """An event that is wrong in one place, or no event at all; always JSON in form."""
        ways: tuple[Callable[[], str], ...] = (self._replaced, self._replaced, self._more, self._less, self._twice)
        if self.random.random() < 0.1:
            return self.random.choice(VALUES).encode()
        return self.random.choice(ways)().encode()

    def _event(self) -> dict[str, Any]:
        return usage_event(self.random.randrange(10**9))

    def _replaced(self) -> str:
        event = self._event()
        part = self.random.choice([event, event["data"], event["data"], event["data"]["resources"]])
        name = self.random.choice(sorted(part))
        part[name] = "REPLACED"
        # A value that is right after all would be a good event that nobody counted: any date is a name, too.
        is_time = name in {"start", "end"}
        wrong = [
            value
            for value in VALUES
            if value not in {"-0", "null", "{}"} and (is_time or value[:2] not in {'"2', '"0'})
        ]
        return json.dumps(event).replace('"REPLACED"', self.random.choice(wrong))

    def _more(self) -> str:
        event = self._event()
        self.random.choice([event, event["data"], event["data"]["resources"]])["surprise"] = 1
        return json.dumps(event)

    def _less(self) -> str:
        event = self._event()
        part = self.random.choice([event, event["data"]])
        del part[self.random.choice(["id", "source", "type", "data"] if part is event else ["user", "start", "end"])]
        return json.dumps(event)

    def _twice(self) -> str:
        return json.dumps(self._event()).replace('"user":', '"user": "first", "user":', 1)

    def batch(self, events: int) -> Sent:
        """A batch in which most is wrong and some is good; it may come as lines, or packed."""
        bad = [self.bad_event() for _ in range(events)]
        good = [self.good_event() for _ in range(1 + events // 20)]
        mixed = bad + good
        self.random.shuffle(mixed)
        lines = self.random.random() < 0.3
        body = b"\n".join(mixed) if lines else b"[" + b",".join(mixed) + b"]"
        packed = {"Content-Encoding": "gzip"} if self.random.random() < 0.3 else {}
        kind = LINES if lines else BATCH
        return Sent(gzip.compress(body, 1) if packed else body, kind, packed, len(bad), len(good))

    def whole(self) -> Sent:
        """A request that cannot be used at all."""
        random = self.random
        text = b"[" + _json(self._event()) + b"]"
        at = random.randrange(1, len(text))
        ways: tuple[Sent, ...] = (
            Sent(random.randbytes(random.randrange(1, 2000)), statuses=(400, 422)),
            Sent(
                random.randbytes(random.randrange(1, 2000)), headers={"Content-Encoding": "gzip"}, statuses=(400, 413)
            ),
            Sent(text[:at], statuses=(400,)),
            Sent(text[:at] + b"\x00" + text[at:], statuses=(202, 400)),
            Sent(b"[" * random.choice([2, 1000, 100_000]), statuses=(400, 422)),
            Sent(b'{"data":' * 50_000, ONE, statuses=(400,)),
            Sent(text.decode().encode("utf-16"), statuses=(400,)),
            Sent(text, "text/plain", statuses=(415,)),
            Sent(text, headers={"Content-Encoding": random.choice(["br", "deflate", "gzip, gzip"])}, statuses=(415,)),
            Sent(b"[" + b"0," * 20_000 + b"0]", statuses=(413,)),
            Sent(b"", statuses=(400,)),
        )
        return random.choice(ways)

    def bomb(self) -> Sent:
        """A small body that unpacks to many times what is taken."""
        packed = _bomb(self.random.choice([b" ", b"[", b"0,", b'{"a":[],', b"\n"]))
        if self.random.random() < 0.5:
            packed = packed[:-4] + (1000).to_bytes(4, "little")  # a bomb does not say what it is
        return Sent(packed, headers={"Content-Encoding": "gzip"}, statuses=(413,))


@cache
def _bomb(unit: bytes) -> bytes:
    return gzip.compress(b"[" + unit * (BOMB_BYTES // len(unit)), 1)


def requests(seed: int, events: int, batch: int, bombs: int) -> Iterator[tuple[Source, Sent]]:
    """Yield requests until so many malformed events or requests were made, the bombs among them."""
    source = Source(seed)
    made = 0
    for _ in range(bombs):
        made += 1
        yield source, source.bomb()
    while made < events:
        sent = source.batch(batch) if source.random.random() < 0.5 else source.whole()
        made += sent.bad
        yield source, sent


def _json(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()
