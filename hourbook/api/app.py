"""The web application: `/v1` for programs, pages for people, over one home."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hourbook.api import completeness, customers, event_words, events, invoices, logs, stripe, usage
from hourbook.api.access import Doorkeeper
from hourbook.api.bodies import error_response
from hourbook.errors import (
    INTERNAL,
    MEANINGS,
    UNAVAILABLE,
    InvalidRequestError,
    Meaning,
    NotFoundError,
    cause_of,
    meaning_of,
    message_of,
)
from hourbook.intake import Intake
from hourbook.jobs import scheduled_jobs
from hourbook.serving import takes_payments
from hourbook.settings import Home, Settings
from hourbook.topups import gateway_of
from hourbook.web import pages, payments
from hourbook.web.rendering import error_page

log = logging.getLogger(__name__)

STRIPE_CHECKOUT = "https://checkout.stripe.com"


def create_app(home: Home, settings: Settings) -> FastAPI:
    """Make the application that serves a home."""
    app = FastAPI(
        title="Hourbook",
        summary="Usage in, balances and documents out.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.home = home
    app.state.settings = settings
    app.state.doorkeeper = Doorkeeper(home)
    app.state.intake = Intake(home, settings)
    for resource in (events, logs, event_words, completeness, usage, customers, invoices):
        app.include_router(resource.router)
    app.include_router(events.public)
    pages.add_to(app)
    app.state.gateway = gateway_of(settings)
    if app.state.gateway is not None:
        for paying in (stripe, payments):
            app.include_router(paying.router)
    app.state.safe_headers = _safe_headers(settings)
    app.add_middleware(_Headers, headers=app.state.safe_headers)
    _answer_errors(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run what goes on beside the requests."""
    with scheduled_jobs(app.state.home, app.state.settings):
        yield


def _answer_errors(app: FastAPI) -> None:
    for kind in (*MEANINGS, Exception):
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)


def _answer(request: Request, error: Exception) -> Response:
    meaning = meaning_of(error)
    if meaning is INTERNAL:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    elif meaning.code == UNAVAILABLE.code:
        # One line each: while a disk is full there may be thousands.
        log.error("%s %s was refused: %s (%s)", request.method, request.url.path, meaning.message, cause_of(error))
    return _refusal(request, meaning, message_of(error))


def _answer_http(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: no such path, or not by this method."""
    status = error.status_code if isinstance(error, HTTPException) else INTERNAL.status
    if status == MEANINGS[NotFoundError].status:
        return _answer(request, NotFoundError())
    headers = error.headers if isinstance(error, HTTPException) else None
    detail = error.detail if isinstance(error, HTTPException) else INTERNAL.message
    return _refusal(request, Meaning(INTERNAL.status.__class__(status), "refused", headers=headers), detail)


def _answer_invalid(request: Request, error: Exception) -> Response:
    """Say which part of a request is wrong, without repeating its value."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    text = "; ".join(f"{' '.join(str(part) for part in one['loc'])}: {one['msg']}" for one in found)
    return _refusal(request, MEANINGS[InvalidRequestError], text)


def _refusal(request: Request, meaning: Meaning, message: str) -> Response:
    api = request.url.path.startswith("/v1/")
    response = error_response(meaning, message) if api else error_page(request, meaning)
    # What nobody expected is answered outside of the middleware.
    for name, value in request.app.state.safe_headers.items():
        response.headers.setdefault(name, value)
    return response


class _Headers:
    """Put the headers that keep browsers safe on every answer that does not say otherwise."""

    def __init__(self, app: ASGIApp, *, headers: Mapping[str, str]) -> None:
        self.app = app
        self.headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its answer."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] += [(name, value) for name, value in self.headers if name not in given]
            await send(message)

        await self.app(scope, receive, with_headers)


def _safe_headers(settings: Settings) -> dict[str, str]:
    """Return what tells a browser to run nothing, frame nothing, and keep nothing of what it shows."""
    targets = f"'self' {STRIPE_CHECKOUT}" if takes_payments(settings) else "'self'"
    policy = (
        f"default-src 'none'; style-src 'self'; img-src 'self'; form-action {targets}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
    }
