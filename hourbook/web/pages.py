"""The pages for people: sign in, a customer's page, finance's lists. Plain HTML without scripts."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, FastAPI, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from hourbook import facts
from hourbook.database import read_session, run_write
from hourbook.keys import caller_of_key, end_session, start_session
from hourbook.serving import CustomerId, DocumentNumber, ServedHome, home_of
from hourbook.viewing import draw, listed_documents, pdf_response, whose
from hourbook.web import usage_pages
from hourbook.web.figures import customer_figures, customer_lines
from hourbook.web.rendering import customer_values, language_of, render_page
from hourbook.web.signing import (
    Finance,
    Form,
    SignedIn,
    SomeVisitor,
    Visitor,
    end_cookie,
    keep_awake,
    new_token,
    set_cookie,
)
from invoices import store as invoices
from pricing.catalog import Catalog

router = APIRouter(include_in_schema=False)


def add_to(app: FastAPI) -> None:
    """Add the pages to the application."""
    app.include_router(router)
    app.include_router(usage_pages.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")


@router.get("/")
def start(visitor: SomeVisitor) -> Response:
    """Lead everybody to their own page."""
    if visitor.caller is None:
        return RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    own = f"/customers/{visitor.caller.customer}" if visitor.caller.customer else "/customers"
    if visitor.caller.role == "operator":
        own = "/gaps"
    return RedirectResponse(own, HTTPStatus.SEE_OTHER)


@router.get("/login")
def login_page(request: Request, visitor: SomeVisitor) -> Response:
    """Show the form to sign in."""
    return _login(request, visitor)


@router.post("/login")
async def login(request: Request, visitor: SomeVisitor, form: Form) -> Response:
    """Sign in with a key; the browser gets a new token, so that one planted before is worth nothing."""
    return await run_in_threadpool(_sign_in, request, visitor, form.get("key", "").strip())


def _sign_in(request: Request, visitor: Visitor, key: str) -> Response:
    home = home_of(request)
    with read_session(home.engine) as session:
        caller = caller_of_key(session, key)
    if caller is None or caller.role == "collector":
        return _login(request, visitor, "login_collector" if caller else "login_wrong")
    run_write(home.engine, lambda session: end_session(session, visitor.token))
    token = run_write(home.engine, lambda session: start_session(session, caller, home.clock()))
    response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
    set_cookie(request, response, token)
    return response


def _login(request: Request, visitor: Visitor, problem: str = "") -> Response:
    token = visitor.token or new_token()
    page = render_page(request, "login.html", Visitor(token, None), problem=problem)
    page.status_code = HTTPStatus.UNAUTHORIZED if problem else HTTPStatus.OK
    if not visitor.token:
        set_cookie(request, page, token)
    return page


@router.post("/logout")
async def logout(request: Request, visitor: SomeVisitor, form: Form, home: ServedHome) -> Response:
    """Sign out; the token is worth nothing from now on, wherever a copy of it may be."""
    del form  # only its token counts
    await run_in_threadpool(run_write, home.engine, lambda session: end_session(session, visitor.token))
    response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    end_cookie(request, response)
    return response


@router.get("/customers")
def customer_list(request: Request, caller: Finance, visitor: SomeVisitor, later: BackgroundTasks) -> Response:
    """Show finance all customers."""
    del caller  # it is finance
    home = home_of(request)
    later.add_task(keep_awake, home, visitor)
    with read_session(home.engine) as session:
        catalog = Catalog.from_facts(facts.as_of(session))
        lines = customer_lines(home, session, catalog)
    return render_page(request, "customers.html", visitor, here="customers", lines=lines, currency=catalog.currency)


@router.get("/customers/{customer}")
def customer_page(
    request: Request, customer: CustomerId, caller: SignedIn, visitor: SomeVisitor, later: BackgroundTasks
) -> Response:
    """Show where a customer stands."""
    whose(caller, customer)
    home = home_of(request)
    later.add_task(keep_awake, home, visitor)
    with read_session(home.engine) as session:
        page = customer_figures(home, session, customer)
    language = language_of(request, page.customer.language)
    return render_page(request, "customer.html", visitor, page.customer.language, **customer_values(page, language))


@router.get("/documents")
def document_list(
    request: Request,
    caller: Finance,
    visitor: SomeVisitor,
    later: BackgroundTasks,
    month: Annotated[str | None, Query(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")] = None,
) -> Response:
    """Show finance the documents of a month, the latest where none is named."""
    del caller  # it is finance
    home = home_of(request)
    later.add_task(keep_awake, home, visitor)
    with read_session(home.engine) as session:
        months = [row.month for row in reversed(invoices.closes(session)) if row.status == "closed"]
        shown = month or next(iter(months), "")
        documents = listed_documents(session, month=shown) if shown else []
        zone = Catalog.from_facts(facts.as_of(session)).zone()
    listing = {"months": months, "month": shown, "documents": documents, "today": home.today(zone)}
    return render_page(request, "documents.html", visitor, None, here="documents", **listing)


@router.get("/documents/{number}/pdf")
def document_pdf(number: DocumentNumber, caller: SignedIn, home: ServedHome, later: BackgroundTasks) -> Response:
    """Show a document."""
    drawn = draw(home, caller, number)
    later.add_task(drawn.note, home)
    return pdf_response(drawn)
