"""Signing in to the pages: the cookie, who it belongs to, and forms that only our own pages can send."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Request, Response

from hourbook.database import read_session, run_write
from hourbook.errors import FormRefusedError, MalformedError, NotAllowedError, NotSignedInError, WrongTypeError
from hourbook.keys import (
    SECRET_BYTES,
    SESSION_LONGEST,
    Caller,
    caller_of_session,
    form_token,
    is_form_token,
    note_visit,
    visit_is_due,
)
from hourbook.serving import ServedHome, home_of, read_body, settings_of
from hourbook.settings import Home

FORM_TYPE = "application/x-www-form-urlencoded"
MAX_FORM_BYTES = 16 * 1024
MAX_FIELDS = 20
TOKEN_FIELD = "form_token"  # noqa: S105 - the name of a field


@dataclass(frozen=True)
class Visitor:
    """Whoever looks at a page: the browser's token, and the caller where somebody is signed in."""

    token: str
    caller: Caller | None

    @property
    def form_token(self) -> str:
        """What forms on this visitor's pages carry."""
        return form_token(self.token) if self.token else ""


def cookie_name(request: Request) -> str:
    """Return the cookie's name; where pages are served over TLS, one that no other host can set."""
    return "__Host-hourbook" if _over_tls(request) else "hourbook"


def set_cookie(request: Request, response: Response, token: str) -> None:
    """Hand the browser its token, out of reach of scripts and of other sites."""
    response.set_cookie(
        cookie_name(request),
        token,
        max_age=int(SESSION_LONGEST.total_seconds()),
        secure=_over_tls(request),
        httponly=True,
        samesite="strict",
    )


def end_cookie(request: Request, response: Response) -> None:
    """Take the browser's token back."""
    response.delete_cookie(cookie_name(request), secure=_over_tls(request), httponly=True, samesite="strict")


def _over_tls(request: Request) -> bool:
    return settings_of(request).public_url.startswith("https://")


def new_token() -> str:
    """Return a token for a browser that has none; it stands for nobody."""
    return secrets.token_hex(SECRET_BYTES)


def visitor_of(request: Request) -> Visitor:
    """Return who looks at a page; a session is good while its key is."""
    token = request.cookies.get(cookie_name(request), "")
    if not token:
        return Visitor("", None)
    home = home_of(request)
    with read_session(home.engine) as session:
        return Visitor(token, caller_of_session(session, token, home.clock()))


SomeVisitor = Annotated[Visitor, Depends(visitor_of)]


def signed_in(visitor: SomeVisitor) -> Caller:
    """Let only those pass who are signed in."""
    if visitor.caller is None:
        raise NotSignedInError
    return visitor.caller


SignedIn = Annotated[Caller, Depends(signed_in)]


def finance_only(caller: SignedIn) -> Caller:
    """Let only finance pass."""
    if caller.role != "finance":
        raise NotAllowedError("this page is finance's")
    return caller


Finance = Annotated[Caller, Depends(finance_only)]


def who_tends_usage(caller: SignedIn) -> Caller:
    """Let finance and who runs the clusters pass."""
    if caller.role not in {"finance", "operator"}:
        raise NotAllowedError("this page is for finance and for who runs the clusters")
    return caller


Tending = Annotated[Caller, Depends(who_tends_usage)]


def keep_awake(home: Home, visitor: Visitor) -> None:
    """Note a visit, now and then; done after the page was sent, as reading never waits to write."""
    now = home.clock()
    with read_session(home.engine) as session:
        due = visit_is_due(session, visitor.token, now)
    if due:
        run_write(home.engine, lambda session: note_visit(session, visitor.token, now))


async def form_of(request: Request, visitor: SomeVisitor, _home: ServedHome) -> dict[str, str]:
    """Return the fields of a form that one of our own pages sent for this visitor; refuse any other."""
    _check_origin(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise WrongTypeError(f"a form is sent as {FORM_TYPE}")
    fields = _fields(await read_body(request, MAX_FORM_BYTES))
    if not visitor.token or not is_form_token(visitor.token, fields.pop(TOKEN_FIELD, "")):
        raise FormRefusedError("this form is too old; open the page again")
    return fields


Form = Annotated[dict[str, str], Depends(form_of)]


def _fields(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise MalformedError("this form cannot be read") from error
    if len({name for name, _ in pairs}) < len(pairs):
        raise MalformedError("this form has a field twice")
    return dict(pairs)


def _check_origin(request: Request) -> None:
    """Refuse what another site's page sends; a browser names the origin of every form."""
    origin = request.headers.get("origin")
    ours = {request.headers.get("host", ""), urlsplit(settings_of(request).public_url).netloc}
    if origin is not None and urlsplit(origin).netloc not in ours:
        raise FormRefusedError("this form comes from another site")
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise FormRefusedError("this form comes from another site")
