"""Who may do what: every route of the application × every kind of caller, in one table.

A route without a row fails, and so does a row without a route. What is refused changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from fastapi.testclient import TestClient
from starlette.routing import Mount

from hourbook.keys import form_token
from hourbook.refreshing import refresh
from tests.hourbook.served import (
    INVOICE,
    NORTH,
    STATEMENT,
    WHO,
    Served,
    content_of_database,
    make_key,
    revoke,
    served,
    usage_event,
)

NOVEMBER = "from=2026-11-01&to=2026-11-30"
PAY = "/customers/{customer}/topup"
EVENTS = orjson.dumps([usage_event(900)])
EVENT, JOB = "/v1/events/{source:path}/{event_id:path}", "test%3Ahpc1/job-1"
STATEMENTS = b'[{"cluster": "hpc1", "source": "test:hpc1", "hour": "2026-11-30T00:00:00Z", "events": 0}]'
WAIVER = (
    b'{"cluster": "hpc1", "from": "2026-11-29T00:00:00Z", "to": "2026-11-29T01:00:00Z", "reason": "r", "by": "lin"}'
)


@dataclass(frozen=True)
class Row:
    """A route, how it is called for the data of the customer u-north, and what each caller is answered."""

    method: str
    route: str
    url: str
    answers: tuple[int, int, int, int, int, int]  # anonymous, revoked, other, own, finance, collector
    body: bytes = b""
    operator: int = 403  # who tends usage sees no balances and no documents

    def answer(self, who: str) -> int:
        """The status that a caller is answered."""
        return self.operator if who == "operator" else self.answers[WHO.index(who)]


# What programs call, with a key. `other` is another customer's key.
API = (
    Row("POST", "/v1/events", "/v1/events", (401, 401, 403, 403, 403, 202), EVENTS),
    # Allowed, and then refused: there are no jobs in it.
    Row("POST", "/v1/logs/slurm/{cluster}", "/v1/logs/slurm/hpc1", (401, 401, 403, 403, 403, 422), b"{}"),
    Row("GET", EVENT, f"/v1/events/{JOB}", (401, 401, 404, 200, 200, 200), operator=200),
    # Allowed, and then refused: an attempt is retracted once, a gap or a runaway must be there.
    Row(
        "POST",
        f"{EVENT}/amendments",
        f"/v1/events/{JOB}/amendments",
        (401, 401, 403, 403, 422, 403),
        b'{"word": "revert", "reason": "r", "by": "lin"}',
        operator=422,
    ),
    Row("POST", "/v1/backfills", "/v1/backfills?reason=r&by=lin", (401, 401, 403, 403, 422, 403), b"[]", operator=422),
    Row("POST", "/v1/statements", "/v1/statements", (401, 401, 403, 403, 403, 202), STATEMENTS),
    Row("GET", "/v1/gaps", "/v1/gaps?month=2026-11", (401, 401, 403, 403, 200, 200), operator=200),
    Row("POST", "/v1/gaps/waivers", "/v1/gaps/waivers", (401, 401, 403, 403, 422, 403), WAIVER, operator=422),
    Row("GET", "/v1/runaways", "/v1/runaways", (401, 401, 403, 403, 200, 403), operator=200),
    Row(
        "POST",
        "/v1/runaways/acceptances",
        "/v1/runaways/acceptances",
        (401, 401, 403, 403, 422, 403),
        b'{"cluster": "hpc1", "reason": "r", "by": "lin"}',
        operator=422,
    ),
    Row("GET", "/v1/usage", f"/v1/usage?{NOVEMBER}", (401, 401, 200, 200, 200, 403), operator=200),
    Row("GET", "/v1/usage", f"/v1/usage?{NOVEMBER}&by=sku", (401, 401, 200, 200, 200, 403)),
    Row("GET", "/v1/usage", f"/v1/usage?{NOVEMBER}&customer={NORTH}", (401, 401, 404, 200, 200, 403)),
    Row("GET", "/v1/customers/{customer}/balance", f"/v1/customers/{NORTH}/balance", (401, 401, 404, 200, 200, 403)),
    Row("GET", "/v1/invoices", "/v1/invoices?month=2026-11", (401, 401, 200, 200, 200, 403)),
    Row("GET", "/v1/invoices", f"/v1/invoices?customer={NORTH}", (401, 401, 404, 200, 200, 403)),
    Row("GET", "/v1/invoices/{number}", f"/v1/invoices/{STATEMENT}", (401, 401, 404, 200, 200, 403)),
    Row("GET", "/v1/invoices/{number}/pdf", f"/v1/invoices/{STATEMENT}/pdf", (401, 401, 404, 200, 200, 403)),
    # Allowed, and then refused for want of an Idempotency-Key and of a signature.
    Row(
        "POST",
        "/v1/customers/{customer}/topups",
        f"/v1/customers/{NORTH}/topups",
        (401, 401, 404, 400, 400, 403),
        b'{"amount": "10.00"}',
    ),
    Row("POST", "/v1/stripe/webhook", "/v1/stripe/webhook", (400, 400, 400, 400, 400, 400), b"{}", operator=400),
    Row("GET", "/v1/schemas/usage", "/v1/schemas/usage", (200, 200, 200, 200, 200, 200), operator=200),
    Row("GET", "/v1/openapi.json", "/v1/openapi.json", (200, 200, 200, 200, 200, 200), operator=200),
)
# What people open, signed in. 303 leads to the login page; a collector's key cannot sign in.
PAGES = (
    Row("GET", "/", "/", (303, 303, 303, 303, 303, 303), operator=303),
    Row("GET", "/login", "/login", (200, 200, 200, 200, 200, 200), operator=200),
    Row("GET", "/customers", "/customers", (303, 303, 403, 403, 200, 303)),
    Row("GET", "/customers/{customer}", f"/customers/{NORTH}", (303, 303, 404, 200, 200, 303), operator=404),
    Row("GET", "/gaps", "/gaps?month=2026-11", (303, 303, 403, 403, 200, 303), operator=200),
    Row("GET", "/events", "/events?source=test%3Ahpc1&id=job-1", (303, 303, 404, 200, 200, 303), operator=200),
    Row("GET", "/documents", "/documents", (303, 303, 403, 403, 200, 303)),
    Row("GET", "/documents/{number}/pdf", f"/documents/{STATEMENT}/pdf", (303, 303, 404, 200, 200, 303), operator=404),
    # Without the token of a form of ours, whoever calls.
    Row("POST", "/login", "/login", (403, 403, 403, 403, 403, 403), b"key=hb_"),
    Row("POST", "/logout", "/logout", (403, 403, 403, 403, 403, 403), b"x=1"),
    Row("POST", PAY, PAY.format(customer=NORTH), (303, 303, 403, 403, 403, 303), b"amount=1"),
    # From a form of ours, with an amount that is none.
    Row(
        "POST",
        PAY,
        PAY.format(customer=NORTH),
        (303, 303, 404, 422, 422, 303),
        b"form_token={token}&amount=x",
        operator=404,
    ),
    Row("GET", "/topup/success", "/topup/success", (200, 200, 200, 200, 200, 200), operator=200),
    Row("GET", "/topup/cancelled", "/topup/cancelled", (200, 200, 200, 200, 200, 200), operator=200),
    Row("GET", "/static", "/static/hourbook.css", (200, 200, 200, 200, 200, 200), operator=200),
)
REFUSED = {303, 400, 401, 403, 404, 422}
CALLS = [pytest.param(row, who, id=f"{row.method} {row.url} by {who}") for row in (*API, *PAGES) for who in WHO]


@pytest.fixture(scope="module")
def hourbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("matrix"), stripe=True) as one:
        yield one


@pytest.fixture(scope="module")
def browsers(hourbook: Served) -> Mapping[str, TestClient]:
    """A browser for each kind of caller, signed in where its key can; the revoked one was, before."""
    soon_revoked = make_key(hourbook.home, "customer", NORTH)
    keys = {**hourbook.keys, "revoked": soon_revoked}
    found = {who: signed_in(hourbook, keys[who]) for who in WHO}
    revoke(hourbook.home, soon_revoked)
    return found


def signed_in(hourbook: Served, key: str) -> TestClient:
    browser = TestClient(hourbook.client.app, raise_server_exceptions=False, follow_redirects=False)
    browser.get("/login")
    browser.post("/login", data={"key": key, "form_token": form_token(browser.cookies["hourbook"])})
    return browser


def routes_of(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Every method and path that the application answers, those of included routers too."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router.routes)
        elif isinstance(route, Mount):
            yield "GET", route.path
        else:
            yield from ((method, route.path) for method in route.methods - {"HEAD"})


def test_every_route_has_a_row_and_every_row_a_route(hourbook: Served) -> None:
    app: Any = hourbook.client.app
    assert {(row.method, row.route) for row in (*API, *PAGES)} == set(routes_of(app.routes))


@pytest.mark.parametrize(("row", "who"), CALLS)
def test_every_caller_gets_exactly_what_is_its_own(
    hourbook: Served, browsers: Mapping[str, TestClient], row: Row, who: str
) -> None:
    refresh(hourbook.home)  # what callers before sent waits no more, so that nothing but this call can change anything
    before = content_of_database(hourbook.home)
    browser = browsers[who] if row in PAGES else hourbook.client
    kind = "application/json" if row in API else "application/x-www-form-urlencoded"
    headers = {**(hourbook.bearer(who) if row in API else {}), "Content-Type": kind}
    token = form_token(browser.cookies.get("hourbook") or "").encode()
    answer = browser.request(row.method, row.url, content=row.body.replace(b"{token}", token), headers=headers)
    assert answer.status_code == row.answer(who), answer.text
    if answer.status_code in REFUSED:
        assert content_of_database(hourbook.home) == before
        assert b"\xe5\x8c\x97\xe6\x96\xb9" not in answer.content  # the customer's name


def test_who_is_not_signed_in_is_led_to_the_login_page(browsers: Mapping[str, TestClient]) -> None:
    for who, place in {
        "anonymous": "/login",
        "revoked": "/login",
        "own": f"/customers/{NORTH}",
        "finance": "/customers",
    }.items():
        assert browsers[who].get("/").headers["location"] == place


def test_a_key_in_a_header_opens_no_page_and_a_cookie_no_api(
    hourbook: Served, browsers: Mapping[str, TestClient]
) -> None:
    assert hourbook.get(f"/customers/{NORTH}", "finance").status_code == 303
    assert browsers["finance"].get(f"/v1/customers/{NORTH}/balance").status_code == 401


def test_a_customer_never_finds_the_others_document(browsers: Mapping[str, TestClient]) -> None:
    others, missing = (browsers["own"].get(f"/documents/{number}/pdf") for number in (INVOICE, "INV-2026-99999"))
    assert (others.status_code, missing.status_code) == (404, 404)
    assert others.text == missing.text


def test_no_path_and_no_method_besides_are_answered(hourbook: Served) -> None:
    for path in (
        "/v1/",
        "/v1/nothing",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/nothing",
        "/static/../pages.py",
        "/static/",
    ):
        assert hourbook.get(path, "finance").status_code == 404
    for method, path in (("DELETE", f"/v1/invoices/{STATEMENT}"), ("PUT", "/v1/events"), ("GET", "/v1/events")):
        assert hourbook.client.request(method, path, headers=hourbook.bearer("finance")).status_code == 405
