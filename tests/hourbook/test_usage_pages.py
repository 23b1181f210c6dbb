"""The pages for who tends usage: the calendar of gaps and runaways, and one event; in both languages."""

from __future__ import annotations

import re
from collections.abc import Iterator

import orjson
import pytest
from fastapi.testclient import TestClient

from hourbook.amending import say_word
from hourbook.applying import apply_files
from hourbook.completeness import state_hours
from hourbook.importing import accept_payload
from hourbook.keys import form_token
from hourbook.refreshing import refresh
from hourbook.web.usage_pages import SIGNS
from hourbook.web.words import WORDS
from metering.amendments import Word
from metering.cloud_events import read_events
from metering.completeness import STATES, Statement
from metering.identity import STATUSES
from tests.hourbook.served import FACTS, MONTH, STATEMENT, Served, served, usage_event


@pytest.fixture(scope="module")
def hourbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A cluster that reports from the last day on: one hour is stated and has not arrived, one job never ended."""
    folder = tmp_path_factory.mktemp("pages")
    with served(folder) as one:
        facts = folder / "facts.toml"
        reports = 'name = "hpc1"\nreports = [{ effective_from = 2026-11-30 }]'
        facts.write_text(FACTS.replace('name = "hpc1"', reports, 1), encoding="utf-8")
        apply_files(one.home, [facts])
        hours = [Statement.model_validate(said(hour)) for hour in range(16)]
        state_hours(one.home, hours, "test")
        runaway = usage_event(77, end=None, as_of="2026-11-30T00:00:00+08:00", state="running", time_limit_seconds=60)
        runaway["data"] = {name: value for name, value in runaway["data"].items() if value is not None}
        payload = orjson.dumps(runaway)
        accept_payload(one.home, payload, read_events(payload, format="json", now=one.home.now()), kind="x", origin="x")
        refresh(one.home)
        yield one


def said(hour: int) -> dict[str, object]:
    stated = {"events": 3, "checksum": "1" * 16} if hour == 4 else {"events": 0}
    return {"cluster": "hpc1", "source": "test:hpc1", "hour": f"2026-11-30T{hour:02}:00:00Z", **stated}


@pytest.fixture(scope="module")
def browser(hourbook: Served) -> TestClient:
    return signed_in(hourbook, "operator")


def signed_in(hourbook: Served, who: str) -> TestClient:
    browser = TestClient(hourbook.client.app, raise_server_exceptions=False, follow_redirects=True)
    browser.get("/login")
    form = {"key": hourbook.keys[who], "form_token": form_token(browser.cookies["hourbook"])}
    browser.post("/login", data=form)
    return browser


def test_who_runs_clusters_starts_at_the_calendar(browser: TestClient) -> None:
    page = browser.get("/")
    assert page.url.path == "/gaps"
    assert "/customers" not in page.text


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_calendar_shows_every_hour_its_legend_and_the_gap(browser: TestClient, language: str) -> None:
    page = browser.get("/gaps", params={"month": MONTH, "lang": language}).text
    cells = re.findall(r'<td class="(\w+)"', page)
    assert (cells.count("quiet"), cells.count("too_few"), cells.count("missing")) == (15, 1, 0)
    told = WORDS["hour_too_few"][0 if language == "zh" else 1]
    assert (
        f"2026-11-30 04:00 UTC, 1 {WORDS['hours'][0 if language == 'zh' else 1]}: {told.replace('&', '&amp;')}" in page
    )
    assert "(0/3)" in page
    assert 'href="/events?source=test%3Ahpc1&amp;id=job-77"' in page
    assert WORDS["runaway"][0 if language == "zh" else 1] in page


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_calendar_says_where_nothing_is_expected_and_what_is_not_compared(
    hourbook: Served, browser: TestClient, language: str
) -> None:
    place = 0 if language == "zh" else 1
    state_hours(hourbook.home, [Statement.model_validate({**said(0), "cluster": "hcp1"})], "test")
    shown = {
        month: browser.get("/gaps", params={"month": month, "lang": language}).text for month in (MONTH, "2026-09")
    }
    assert [WORDS["none_expected"][place] in page for page in shown.values()] == [False, True]
    assert [WORDS["not_compared"][place] in page for page in shown.values()] == [True, False]
    assert "hcp1" in shown[MONTH]


def test_an_event_is_followed_from_the_page(browser: TestClient) -> None:
    assert "<form" in browser.get("/events").text
    page = browser.get("/events", params={"source": "test:hpc1", "id": "job-1", "lang": "zh"}).text
    assert STATEMENT in page
    assert "计入" in page


@pytest.mark.parametrize("language", ["zh", "en"])
def test_an_unknown_event_leaves_the_form_to_search_again(browser: TestClient, language: str) -> None:
    page = browser.get("/events", params={"source": "test:hpc1", "id": "job-9999", "lang": language})
    assert page.status_code == 404
    assert WORDS["no_event"][0 if language == "zh" else 1] in page.text
    assert 'value="job-9999"' in page.text


def test_a_customer_follows_its_own_events_and_no_others(hourbook: Served) -> None:
    customer = signed_in(hourbook, "own")
    page = customer.get("/events", params={"source": "test:hpc1", "id": "job-1"})
    assert (page.status_code, STATEMENT in page.text) == (200, True)
    assert customer.get("/events", params={"source": "test:hpc1", "id": "job-3"}).status_code == 404
    assert 'href="/events"' in customer.get("/").text
    other = signed_in(hourbook, "other").get("/events", params={"source": "test:hpc1", "id": "job-3"})
    assert (other.status_code, '<html lang="en">' in other.text) == (200, True)  # as its customer reads


def test_a_word_is_told_in_the_language_of_the_page_and_to_customers_without_its_author(hourbook: Served) -> None:
    say_word(hourbook.home, "test:hpc1", "job-2", Word("amend", "ticket 88", "lin", {"cpus": 20}), dry_run=False)
    refresh(hourbook.home)
    asked = {"source": "test:hpc1", "id": "job-2"}
    page = signed_in(hourbook, "own").get("/events", params={**asked, "lang": "zh"}).text
    assert "运营方更正 1" in page
    assert WORDS["row_held_by_word"][0] in page
    assert ("ticket 88" in page, "lin:" in page) == (True, False)
    assert "lin: ticket 88" in signed_in(hourbook, "operator").get("/events", params=asked).text


def test_a_page_that_went_wrong_keeps_navigation_and_sign_out(hourbook: Served, browser: TestClient) -> None:
    for page in (browser.get("/customers"), browser.get("/nothing")):
        assert page.status_code in {403, 404}
        assert 'href="/gaps"' in page.text
        assert 'action="/logout"' in page.text
    assert 'action="/logout"' not in hourbook.client.get("/nothing").text


def test_what_is_shown_is_text_and_never_markup(hourbook: Served, browser: TestClient) -> None:
    event = {**usage_event(78, user="<script>alert(1)</script>"), "id": '"><img src=x>'}
    payload = orjson.dumps(event)
    accept_payload(
        hourbook.home, payload, read_events(payload, format="json", now=hourbook.home.now()), kind="x", origin="<b>x"
    )
    refresh(hourbook.home)
    page = browser.get("/events", params={"source": event["source"], "id": event["id"]})
    assert page.status_code == 200
    assert not re.search(r"<script|<img src=x|<b>x", page.text)


def test_every_state_and_status_has_a_sign_and_words_in_both_languages() -> None:
    assert set(SIGNS) == set(STATES)
    assert len(set(SIGNS.values())) == len(STATES)
    for key in (*(f"hour_{state}" for state in STATES), *(f"row_{status}" for status in STATUSES)):
        assert all(WORDS[key])
