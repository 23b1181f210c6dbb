"""What every route needs: the home that is served, its settings, and bodies read up to a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Path, Request

from hourbook.errors import TooLargeError
from hourbook.settings import Home, Settings

MAX_ID = 64


def home_of(request: Request) -> Home:
    """Return the home that is served."""
    home: Home = request.app.state.home
    return home


def settings_of(request: Request) -> Settings:
    """Return the settings that it is served with."""
    settings: Settings = request.app.state.settings
    return settings


def takes_payments(settings: Settings) -> bool:
    """Tell whether customers can pay through the provider."""
    return bool(settings.stripe_api_key.get_secret_value())


async def _served(request: Request) -> Home:
    # On the event loop: a thread of its own would cost more than the look.
    return home_of(request)


ServedHome = Annotated[Home, Depends(_served)]
CustomerId = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$", max_length=MAX_ID)]
DocumentNumber = Annotated[str, Path(pattern=r"^[A-Z]{3}-[0-9]{4}-[0-9]{5,9}$", max_length=MAX_ID)]


def _nothing(_size: int) -> None:
    """Take no account of the bytes that are read."""


async def read_body(request: Request, limit: int, take: Callable[[int], None] = _nothing) -> bytes:
    """Read a body, and stop as soon as it is longer than the limit, whatever its header says.

    `take` is told of the bytes before they are kept, and may refuse them.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        take(len(part))
        parts.append(part)
    return b"".join(parts)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the body is longer than {limit:,} bytes; send it in parts")
