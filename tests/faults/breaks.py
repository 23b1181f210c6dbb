"""Builds that are broken on purpose: a proof that cannot catch them shows nothing. Only a test's process has them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import polars as pl

import metering.lake
from hourbook.api.app import create_app
from metering.lake import EventLake

VARIABLE = "HOURBOOK_TEST_BREAK"
LATE_SECONDS = 0.3
# Longer than a server lives: whoever was killed after an append had not told the inbox yet.
LONG_SECONDS = 3


def put_in(environment: Mapping[str, str]) -> None:
    """Break what the environment asks to be broken."""
    if broken := environment.get(VARIABLE):
        BREAKS[broken]()


def answer_before_commit() -> None:
    """Acknowledge usage first and record it a moment later."""
    import hourbook.api.app as module

    def hasty(*arguments: Any) -> Any:  # noqa: ANN401 - an application
        app = create_app(*arguments)
        app.add_middleware(_Hasty)
        return app

    module.create_app = hasty  # type: ignore[assignment]  # `serve` imports it when it starts


class _Hasty:
    """Answer at once that all was accepted, and pass the request on later."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != "/v1/events":
            await self.app(scope, receive, send)
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        said = orjson.loads(body)
        items = [{"status": "accepted"}] * (len(said) if isinstance(said, list) else 1)
        answer = orjson.dumps({"batch": 0, "accepted": len(items), "rejected": 0, "items": items})
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": answer})
        await asyncio.sleep(LATE_SECONDS)

        async def again() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def nowhere(_message: Any) -> None:  # noqa: ANN401
            return None

        await self.app(scope, again, nowhere)


def forget_before_lake() -> None:
    """Let the inbox forget a batch while it is still on its way to the lake."""
    append, sealed_batch = EventLake.append, EventLake.sealed_batch
    promised = [0]
    on_the_way = threading.Lock()

    def late(lake: EventLake, events: pl.DataFrame, batch_seq: int) -> None:
        with on_the_way:
            time.sleep(LATE_SECONDS)
            append(lake, events, batch_seq)

    def hasty(lake: EventLake, events: pl.DataFrame, batch_seq: int) -> bool:
        promised[0] = batch_seq
        threading.Thread(target=late, args=(lake, events, batch_seq), daemon=True).start()
        return True

    EventLake.append = hasty  # type: ignore[assignment, method-assign]
    EventLake.sealed_batch = lambda lake: max(promised[0], sealed_batch(lake))  # type: ignore[assignment, method-assign]


def append_again() -> None:
    """Bring a batch to the lake without asking whether it is there, and take long over telling the inbox."""
    append, sealed_batch = EventLake.append, EventLake.sealed_batch
    asks = metering.lake._sealed  # noqa: SLF001
    appended: set[int] = set()  # by this process

    def blind(lake: EventLake, events: pl.DataFrame, batch_seq: int) -> bool:
        metering.lake._sealed = lambda _table: 0  # type: ignore[assignment]  # noqa: SLF001
        try:
            done = append(lake, events, batch_seq)
        finally:
            metering.lake._sealed = asks  # noqa: SLF001
        appended.add(batch_seq)
        time.sleep(LONG_SECONDS)
        return done

    EventLake.append = blind  # type: ignore[assignment, method-assign]
    EventLake.sealed_batch = lambda lake: sealed_batch(lake) if appended else 0  # type: ignore[assignment, method-assign]


def never_force() -> None:
    """Leave it to the operating system when the lake reaches the disk."""
    setattr(metering.lake, "force_to_disk", lambda _folder, _version: None)  # noqa: B010 - it is imported there


BREAKS: Mapping[str, Callable[[], None]] = {
    each.__name__: each for each in (answer_before_commit, forget_before_lake, append_again, never_force)
}
SEEN_WHEN_KILLED = ("answer_before_commit", "forget_before_lake", "append_again")
