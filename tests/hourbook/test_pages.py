"""The pages: sign in and out, what a customer sees, forms that only our own pages can send."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from hourbook import keys
from hourbook.api.app import create_app
from hourbook.applying import apply_files
from hourbook.database import create_home
from hourbook.keys import form_token
from hourbook.settings import Settings
from hourbook.web.charts import bar_chart, round_above, share
from hourbook.web.words import WORDS, day, hours, money, quantity
from tests.hourbook.served import (
    INVOICE,
    NORTH,
    SOUTH,
    STATEMENT,
    Served,
    content_of_database,
    make_key,
    revoke,
    served,
)

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def hourbook(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as one:
        yield one


def sign_in(client: TestClient, key: str) -> Any:  # noqa: ANN401 - a response
    client.get("/login")
    return client.post("/login", data={"key": key, "form_token": form_token(client.cookies["hourbook"])})


def page(hourbook: Served, path: str = f"/customers/{NORTH}", who: str = "own", **headers: str) -> str:
    sign_in(hourbook.client, hourbook.keys[who])
    answer = hourbook.client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_signing_in_leads_to_the_customers_own_page(hourbook: Served) -> None:
    answer = sign_in(hourbook.client, hourbook.keys["own"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert hourbook.client.get("/").headers["location"] == f"/customers/{NORTH}"


@pytest.mark.parametrize(("who", "words"), [("revoked", "login_wrong"), ("collector", "login_collector")])
def test_a_key_that_opens_no_page_is_told_so_and_leaves_no_session(hourbook: Served, who: str, words: str) -> None:
    before = content_of_database(hourbook.home)
    answer = sign_in(hourbook.client, hourbook.keys[who])
    assert answer.status_code == 401
    assert WORDS[words][0] in answer.text
    assert hourbook.keys[who] not in answer.text
    assert content_of_database(hourbook.home) == before


def test_the_cookie_is_out_of_reach_and_new_at_every_sign_in(hourbook: Served) -> None:
    hourbook.client.get("/login")
    before = hourbook.client.cookies["hourbook"]
    cookie = sign_in(hourbook.client, hourbook.keys["own"]).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    first = hourbook.client.cookies["hourbook"]
    assert first != before
    sign_in(hourbook.client, hourbook.keys["own"])
    assert hourbook.client.cookies["hourbook"] != first
    # The earlier token is worth nothing any more.
    assert other_browser(hourbook, first).get(f"/customers/{NORTH}").status_code == 303


def other_browser(hourbook: Served, token: str) -> TestClient:
    return TestClient(hourbook.client.app, cookies={"hourbook": token}, follow_redirects=False)


def test_over_tls_the_cookie_belongs_to_this_host_alone(hourbook: Served) -> None:
    settings = Settings(public_url="https://bills.example.com", stripe_api_key=SecretStr(""))
    client = TestClient(create_app(hourbook.home, settings), base_url="https://bills.example.com")
    cookie = client.get("/login").headers["set-cookie"]
    assert cookie.startswith("__Host-hourbook=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie


def test_a_token_planted_before_signing_in_never_becomes_a_session(hourbook: Served) -> None:
    planted = "a" * 64
    hourbook.client.cookies.set("hourbook", planted)
    sent = {"key": hourbook.keys["own"], "form_token": form_token(planted)}
    assert hourbook.client.post("/login", data=sent).status_code == 303
    assert other_browser(hourbook, planted).get(f"/customers/{NORTH}").status_code == 303


def test_signing_out_ends_the_session_wherever_a_copy_of_its_token_is(hourbook: Served) -> None:
    sign_in(hourbook.client, hourbook.keys["own"])
    token = hourbook.client.cookies["hourbook"]
    assert other_browser(hourbook, token).get(f"/customers/{NORTH}").status_code == 200
    assert hourbook.client.post("/logout", data={"form_token": form_token(token)}).headers["location"] == "/login"
    assert other_browser(hourbook, token).get(f"/customers/{NORTH}").status_code == 303


def test_a_session_ends_with_its_key_and_after_a_while(hourbook: Served) -> None:
    sign_in(hourbook.client, hourbook.keys["own"])
    token = hourbook.client.cookies["hourbook"]
    later = replace(hourbook.home, clock=lambda: hourbook.home.clock() + keys.SESSION_IDLE + timedelta(seconds=1))
    idle = TestClient(create_app(later, Settings()), cookies={"hourbook": token}, follow_redirects=False)
    assert idle.get(f"/customers/{NORTH}").status_code == 303
    assert hourbook.client.get(f"/customers/{NORTH}").status_code == 200
    revoke(hourbook.home, hourbook.keys["own"])
    assert hourbook.client.get(f"/customers/{NORTH}").status_code == 303


def test_a_visit_keeps_a_session_awake(hourbook: Served) -> None:
    sign_in(hourbook.client, hourbook.keys["own"])
    token = hourbook.client.cookies["hourbook"]
    for step in range(1, 6):  # five times a little more than half of the idle limit
        at = hourbook.home.clock() + step * (keys.SESSION_IDLE / 2 + timedelta(minutes=1))
        app = create_app(replace(hourbook.home, clock=lambda now=at: now), Settings())  # type: ignore[misc]
        visit = TestClient(app, cookies={"hourbook": token}, follow_redirects=False)
        assert visit.get(f"/customers/{NORTH}").status_code == 200


@pytest.mark.parametrize("path", ["/login", "/logout"])
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"form_token={token}&key=x", {**FORM, "Origin": "https://evil.example"}, 403),
        (b"form_token={token}&key=x", {**FORM, "Origin": "null"}, 403),
        (b"form_token={token}&key=x", {**FORM, "Sec-Fetch-Site": "cross-site"}, 403),
        (b"form_token=0000&key=x", FORM, 403),
        (b"key=x", FORM, 403),
        (b"form_token={token}&key=x", {"Content-Type": "text/plain"}, 415),
        (b'{"form_token": "{token}"}', {"Content-Type": "application/json"}, 415),
        (b"form_token={token}&form_token={token}", FORM, 400),
        (b"form_token", FORM, 400),
        (b"a=%ff", FORM, 400),
        (b"&".join(b"a%d=1" % n for n in range(50)), FORM, 400),
        (b"a=" + b"b" * 20_000, FORM, 413),
    ],
)
def test_a_form_of_another_site_is_refused_and_changes_nothing(
    hourbook: Served, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    sign_in(hourbook.client, hourbook.keys["own"])
    before = content_of_database(hourbook.home)
    token = form_token(hourbook.client.cookies["hourbook"]).encode()
    answer = hourbook.client.post(path, content=body.replace(b"{token}", token), headers=headers)
    assert answer.status_code == status
    assert content_of_database(hourbook.home) == before


def test_a_form_without_any_cookie_is_refused(hourbook: Served) -> None:
    sent = {"key": hourbook.keys["own"], "form_token": form_token("")}
    assert hourbook.client.post("/login", data=sent).status_code == 403


def test_the_page_shows_where_the_customer_stands(hourbook: Served) -> None:
    shown = page(hourbook)
    assert "北方大学" in shown
    assert figure(shown, "available") == "¥712.00"
    assert figure(shown, "days-left").startswith("103")
    assert figure(shown, "burn") == "¥6.86"
    assert shown.count('class="bar') == 3 * 30  # charges, core-hours and card-hours of 30 days
    assert "11月5日: ¥16.00" in shown
    assert "1,440.00" in shown  # core-hours
    assert "物理" in shown  # the project
    assert "bank 1" in shown
    assert "100 核时" in shown  # the pack
    assert f'href="/documents/{STATEMENT}/pdf"' in shown
    assert INVOICE not in shown
    assert SOUTH not in shown


def figure(shown: str, name: str) -> str:
    found = re.search(rf'id="{name}">([^<]*)', shown)
    assert found is not None
    return found[1].strip()


def test_a_credit_line_and_an_open_invoice_are_shown(hourbook: Served) -> None:
    shown = page(hourbook, f"/customers/{SOUTH}", "other")
    assert "Available" in shown  # the customer's language is English
    assert "¥96.00 used / ¥500.00" in shown
    assert '<rect class="fill" width="19.2"' in shown
    assert "open ¥96.00" in shown


def test_the_language_is_the_customers_until_somebody_switches(hourbook: Served) -> None:
    path = f"/customers/{NORTH}"
    assert '<html lang="zh-CN">' in page(hourbook, path, **{"Accept-Language": "en"})
    assert '<html lang="en">' in hourbook.client.get(f"{path}?lang=en").text
    assert "North University" in hourbook.client.get(path).text  # remembered
    assert '<html lang="zh-CN">' in hourbook.client.get(f"{path}?lang=zh").text
    assert '<html lang="zh-CN">' in hourbook.client.get(f"{path}?lang=%22%3E").text


def test_every_word_stands_in_both_languages() -> None:
    templates = (Path(__file__).resolve().parents[2] / "hourbook" / "web" / "templates").glob("*.html")
    used = {name for file in templates for name in re.findall(r"w\('([a-z_-]+)'\)", file.read_text(encoding="utf-8"))}
    assert used <= WORDS.keys()
    assert all(zh and en and zh != en for zh, en in WORDS.values())


def test_finance_sees_every_customer_and_the_months_documents(hourbook: Served) -> None:
    customers = page(hourbook, "/customers", "finance")
    assert f'href="/customers/{NORTH}"' in customers
    assert f'href="/customers/{SOUTH}"' in customers
    assert "¥712.00" in customers
    documents = hourbook.client.get("/documents").text
    assert f'href="/documents/{STATEMENT}/pdf"' in documents
    assert f'href="/documents/{INVOICE}/pdf"' in documents
    assert STATEMENT not in hourbook.client.get("/documents?month=2026-10").text
    assert hourbook.client.get("/documents?month=x").status_code == 422


def test_a_fresh_home_has_pages_that_say_what_to_do(tmp_path: Path) -> None:
    home = create_home(tmp_path / "home")
    client = TestClient(create_app(home, Settings()), follow_redirects=False)
    sign_in(client, make_key(home, "finance"))
    assert "hourbook apply" in client.get("/customers").text
    assert WORDS["no_documents"][0] in client.get("/documents").text
    assert client.get("/customers/u-north").status_code in {404, 503}
    home.close()


def test_names_are_text_whatever_they_hold(hourbook: Served, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\\\"'&"
    change = tmp_path / "evil.toml"
    change.write_text(
        f'[[customers]]\nid = "{NORTH}"\nname = "{evil}"\nkind = "university"\n'
        'projects = [{ id = "physics", name = "<img src=x>" }]\n',
        encoding="utf-8",
    )
    apply_files(hourbook.home, [change])
    shown = page(hourbook)
    assert "<script" not in shown
    assert "<img src=x" not in shown
    assert "&lt;script&gt;alert(1)" in shown


def test_pages_run_no_script_and_nobody_frames_or_keeps_them(hourbook: Served) -> None:
    sign_in(hourbook.client, hourbook.keys["own"])
    for path in ("/login", f"/customers/{NORTH}", "/nothing", f"/documents/{STATEMENT}/pdf"):
        answer = hourbook.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert b"style=" not in answer.content or path.endswith("/pdf")
        assert b"<script" not in answer.content


def test_topping_up_is_offered_only_where_payments_are_taken(tmp_path: Path) -> None:
    for stripe in (False, True):
        folder = tmp_path / str(stripe)
        folder.mkdir()
        with served(folder, stripe=stripe) as hourbook:
            shown = page(hourbook)
            policy = hourbook.client.get("/login").headers["content-security-policy"]
        assert (f'action="/customers/{NORTH}/topup"' in shown) is stripe
        assert ("https://checkout.stripe.com" in policy) is stripe


@pytest.mark.parametrize(
    ("value", "top"),
    [
        ("0", "1"),
        ("0.17", "0.2"),
        ("1", "1"),
        ("13", "15"),
        ("99", "100"),
        ("101", "120"),
        ("1999", "2000"),
        ("0.001", "0.001"),
    ],
)
def test_a_scale_ends_at_the_next_round_number(value: str, top: str) -> None:
    assert round_above(Fraction(value)) == Fraction(top)


def test_bars_are_as_high_as_their_values() -> None:
    chart = bar_chart([Fraction(0), Fraction(5), Fraction(10), Fraction(-1)], ["a", "b", "c", "d"])
    assert [bar.height for bar in chart.bars] == ["0", "50", "100", "0"]
    assert [bar.last for bar in chart.bars] == [False, False, False, True]
    assert [share(1, 3), share(5, 4), share(-1, 4), share(1, 0)] == ["33.33", "100", "0", "0"]


def test_figures_are_written_for_readers() -> None:
    assert money(-120450, "CNY") == "−¥1,204.50"
    assert money(1200, "JPY") == "¥1,200"
    assert hours(Fraction(12345678, 1000)) == "12,345.68"
    assert (quantity("100"), quantity("0.5")) == ("100", "0.5")
    assert (day(date(2026, 11, 3), "zh"), day(date(2026, 11, 3), "en")) == ("11月3日", "3 Nov")
