"""The customer page in a real browser: signing in, what is seen on a desk and on a phone, the PDF, signing out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.hourbook.served import NORTH, SOUTH, STATEMENT, copy_home
from tests.serving import Server, start_server

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DESK, PHONE = ViewportSize(width=1180, height=900), ViewportSize(width=390, height=844)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str]]]:
    if CHROMIUM is None:
        pytest.skip("needs chromium, which is not installed here (Debian: apt-get install chromium fonts-noto-cjk)")
    home, keys = copy_home(tmp_path_factory.mktemp("browser"))
    server = start_server(home)
    yield server, dict(keys)
    server.kill()


@pytest.fixture(scope="module")
def browser(site: tuple[Server, dict[str, str]]) -> Iterator[Browser]:
    assert site
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def visit(
    site: tuple[Server, dict[str, str]], browser: Browser, who: str, size: ViewportSize
) -> tuple[Page, list[str]]:
    """Sign in as somebody in a fresh browser; what the browser complains about is collected."""
    server, keys = site
    page = browser.new_context(viewport=size, base_url=server.url, locale="zh-CN").new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("/")
    expect(page.locator("h1")).to_have_text("登录")
    page.get_by_label("访问密钥").fill(keys[who])
    page.get_by_role("button", name="登录").click()
    return page, complaints


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_customer_signs_in_and_sees_where_it_stands(
    site: tuple[Server, dict[str, str]], browser: Browser, size: ViewportSize, language: str
) -> None:
    page, complaints = visit(site, browser, "own", size)
    expect(page).to_have_url(f"{site[0].url}/customers/{NORTH}")
    if language == "en":
        page.get_by_role("link", name="English").click()
    expect(page.locator("h1")).to_have_text({"zh": "北方大学", "en": "North University"}[language])
    expect(page.locator("#available")).to_have_text("¥712.00")
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    # The style sheet came through its policy, and figures stand in columns.
    assert "tnum" in page.evaluate("getComputedStyle(document.body).fontFeatureSettings")
    for box in [one.bounding_box() for one in page.locator(".card").all()]:
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]


def test_bars_are_drawn_as_high_as_their_days(site: tuple[Server, dict[str, str]], browser: Browser) -> None:
    page, _ = visit(site, browser, "own", DESK)
    bars = page.locator(".chart").first.locator(".bar")
    expect(bars).to_have_count(30)
    heights = [round(bar.bounding_box()["height"]) for bar in bars.all()]  # type: ignore[index]
    plot = page.locator(".plot svg").first.bounding_box()
    assert plot is not None
    # One attempt a day from 5 to 28 November, every fourth the other customer's, each ¥16 of a scale to 20.
    full = round(plot["height"] * 16 / 20)
    assert sorted(set(heights)) == [0, full]
    assert heights.count(full) == 18


def test_the_pdf_comes_through_the_page(site: tuple[Server, dict[str, str]], browser: Browser) -> None:
    page, _ = visit(site, browser, "own", PHONE)
    link = page.get_by_role("link", name=STATEMENT)
    expect(link).to_be_visible()
    answer = page.request.get(f"{site[0].url}{link.get_attribute('href')}")
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.body().startswith(b"%PDF")


def test_another_customers_page_is_not_there_and_signing_out_ends_it(
    site: tuple[Server, dict[str, str]], browser: Browser
) -> None:
    page, _ = visit(site, browser, "own", DESK)
    answer = page.goto(f"/customers/{SOUTH}")
    assert answer is not None
    assert answer.status == 404
    expect(page.locator("h1")).to_have_text("找不到此页")
    page.goto("/")
    page.get_by_role("button", name="退出").click()
    expect(page.locator("h1")).to_have_text("登录")
    page.goto(f"/customers/{NORTH}")
    expect(page).to_have_url(f"{site[0].url}/login")


def test_finance_reaches_every_customer_from_its_list(site: tuple[Server, dict[str, str]], browser: Browser) -> None:
    page, complaints = visit(site, browser, "finance", PHONE)
    expect(page.locator("h1")).to_have_text("客户")
    page.get_by_role("link", name="南方科技").click()
    expect(page.locator("#available")).to_have_text("¥404.00")
    assert complaints == []
