"""`POST /v1/events`: durable before the answer, item by item, and refused as a whole only where it is no batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from hourbook.accruing import accrue_open_months
from hourbook.api import events
from hourbook.database import read_session
from metering import store as metering
from tests.hourbook.served import Served, content_of_database, served, usage_event

BATCH = "application/cloudevents-batch+json"
ONE = "application/cloudevents+json"
LINES = "application/x-ndjson"


@pytest.fixture
def hourbook(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as one:
        yield one


def post(hourbook: Served, body: bytes, kind: str = BATCH, who: str = "collector", **headers: str) -> Any:  # noqa: ANN401
    sent = {**hourbook.bearer(who), "Content-Type": kind, **headers}
    return hourbook.client.post("/v1/events", content=body, headers=sent)


def jobs(hourbook: Served) -> int:
    answer = hourbook.get("/v1/usage", "finance", **{"from": "2026-11-01", "to": "2026-11-30", "by": "cluster"})
    return int(answer.json()["rows"][0]["jobs"])


def test_a_batch_is_in_the_inbox_when_it_is_acknowledged_and_counts_soon_after(hourbook: Served) -> None:
    before = jobs(hourbook)
    answer = post(hourbook, orjson.dumps([usage_event(100), usage_event(101)]))
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 2
    assert answer.json()["items"] == [{"status": "accepted"}] * 2
    with read_session(hourbook.home.engine) as session:
        batch = metering.inbox_batches(session)[-1]
        assert (batch.batch_seq, batch.events, batch.sealed) == (answer.json()["batch"], 2, False)
    accrue_open_months(hourbook.home)
    assert jobs(hourbook) == before + 2


def test_the_same_batch_again_is_acknowledged_and_changes_nothing(hourbook: Served) -> None:
    body = orjson.dumps([usage_event(100), usage_event(101)])
    assert post(hourbook, body).status_code == post(hourbook, body).status_code == 202
    accrue_open_months(hourbook.home)
    assert jobs(hourbook) == 26


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ONE, orjson.dumps(usage_event(100))),
        (BATCH, orjson.dumps([usage_event(100)])),
        ("application/json", orjson.dumps(usage_event(100))),
        ("application/json; charset=utf-8", orjson.dumps([usage_event(100)])),
        (LINES, b"\n" + orjson.dumps(usage_event(100)) + b"\n\n"),
    ],
)
def test_one_event_a_batch_and_lines_are_all_understood(hourbook: Served, kind: str, body: bytes) -> None:
    answer = post(hourbook, body, kind)
    assert (answer.status_code, answer.json()["items"]) == (202, [{"status": "accepted"}])


def test_an_event_that_cannot_be_used_is_told_by_code_and_kept_while_its_neighbours_count(hourbook: Served) -> None:
    naive = usage_event(101, start="2026-11-25T00:00:00")
    answer = post(hourbook, orjson.dumps([usage_event(100), naive, usage_event(102), "no event"])).json()
    assert [item["status"] for item in answer["items"]] == ["accepted", "rejected", "accepted", "rejected"]
    assert [item.get("code") for item in answer["items"]] == [None, "naive_time", None, "wrong_type"]
    assert (answer["accepted"], answer["rejected"]) == (2, 2)
    with read_session(hourbook.home.engine) as session:
        assert [entry.code for entry in metering.quarantine(session)] == ["naive_time", "wrong_type"]


def test_a_broken_line_is_told_at_its_place_among_the_filled_lines(hourbook: Served) -> None:
    body = b"\n".join([b"", orjson.dumps(usage_event(100)), b"", b"{broken", orjson.dumps(usage_event(101))])
    answer = post(hourbook, body, LINES).json()
    assert [item.get("code") for item in answer["items"]] == [None, "not_json", None]


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        (BATCH, b"", 400, "malformed"),
        (BATCH, b"  \n ", 400, "malformed"),
        (BATCH, b"[{]", 400, "malformed"),
        (BATCH, b"nonsense", 400, "malformed"),
        (BATCH, b'"text"', 400, "malformed"),
        (BATCH, b"\xff\xfe", 400, "malformed"),
        (BATCH, b"{}", 422, "invalid_request"),
        (ONE, b"[]", 422, "invalid_request"),
        (BATCH, b"[]", 422, "invalid_request"),
        ("text/plain", b"[]", 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", b"a=b", 415, "unsupported_media_type"),
        ("", b"[]", 415, "unsupported_media_type"),
    ],
)
def test_what_is_no_batch_is_refused_whole_and_leaves_nothing(
    hourbook: Served, kind: str, body: bytes, status: int, code: str
) -> None:
    before = content_of_database(hourbook.home)
    answer = post(hourbook, body, kind)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert content_of_database(hourbook.home) == before


def test_too_many_events_or_bytes_are_refused_whole(hourbook: Served) -> None:
    before = content_of_database(hourbook.home)
    assert post(hourbook, b"[" + b"0," * events.MAX_EVENTS + b"0]").status_code == 413
    assert post(hourbook, b"[" + b" " * events.MAX_BYTES + b"]").status_code == 413
    # A body that does not say how long it is is counted as it comes.
    chunks = (b" " * 1024 * 1024 for _ in range(20))
    sent = {**hourbook.bearer("collector"), "Content-Type": BATCH}
    answer = hourbook.client.post("/v1/events", content=chunks, headers=sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert post(hourbook, b"[]", **{"Content-Encoding": "gzip"}).status_code == 415
    assert content_of_database(hourbook.home) == before


def test_exactly_as_many_events_as_allowed_are_taken(hourbook: Served) -> None:
    answer = post(hourbook, b"[" + b"0," * (events.MAX_EVENTS - 1) + b"0]")
    assert (answer.status_code, answer.json()["rejected"]) == (202, events.MAX_EVENTS)


def test_usage_shows_within_seconds_where_the_server_runs(tmp_path: Path) -> None:
    with served(tmp_path, jobs=True) as hourbook:
        assert post(hourbook, orjson.dumps([usage_event(100)])).status_code == 202
        deadline = time.monotonic() + 20
        while jobs(hourbook) != 25:
            assert time.monotonic() < deadline
            time.sleep(0.1)
