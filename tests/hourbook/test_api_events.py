"""`POST /v1/events`: durable before the answer, item by item, and refused as a whole only where it is no batch."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from hourbook.accruing import accrue_open_months
from hourbook.database import read_session
from hourbook.intake import MAX_BYTES, MAX_EVENTS, Intake
from hourbook.settings import Settings
from metering import store as metering
from metering.usage_schema import json_schema
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
    assert post(hourbook, b"[" + b"0," * MAX_EVENTS + b"0]").status_code == 413
    assert post(hourbook, b"[" + b" " * MAX_BYTES + b"]").status_code == 413
    # A body that does not say how long it is is counted as it comes.
    chunks = (b" " * 1024 * 1024 for _ in range(20))
    sent = {**hourbook.bearer("collector"), "Content-Type": BATCH}
    answer = hourbook.client.post("/v1/events", content=chunks, headers=sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert post(hourbook, b"[]", **{"Content-Encoding": "br"}).status_code == 415
    assert content_of_database(hourbook.home) == before


def test_exactly_as_many_events_as_allowed_are_taken(hourbook: Served) -> None:
    answer = post(hourbook, b"[" + b"0," * (MAX_EVENTS - 1) + b"0]")
    assert (answer.status_code, answer.json()["rejected"]) == (202, MAX_EVENTS)


@pytest.mark.parametrize("kind", [BATCH, LINES])
def test_a_packed_body_is_unpacked(hourbook: Served, kind: str) -> None:
    body = orjson.dumps([usage_event(100)]) if kind == BATCH else orjson.dumps(usage_event(100))
    answer = post(hourbook, gzip.compress(body), kind, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["items"]) == (202, [{"status": "accepted"}])


PACKED = gzip.compress(b"[]", mtime=0)
BOMB = gzip.compress(b"[" + b" " * MAX_BYTES + b"]", mtime=0)
REFUSED_PACKED = {
    "a bomb that says so": (BOMB, 413),
    "a bomb that says it is short": (BOMB[:-4] + PACKED[-4:], 413),
    "two in one": (PACKED * 2, 400),
    "cut off": (PACKED[:-1], 400),
    "more after it": (PACKED + PACKED[-4:], 400),
    "not packed": (b"[]", 400),
    "nothing": (b"", 400),
    "its first bytes": (PACKED[:2], 400),
}


@pytest.mark.parametrize(("packed", "status"), REFUSED_PACKED.values(), ids=REFUSED_PACKED)
def test_a_packed_body_that_is_too_long_or_not_whole_is_refused(hourbook: Served, packed: bytes, status: int) -> None:
    before = content_of_database(hourbook.home)
    assert post(hourbook, packed, **{"Content-Encoding": "gzip"}).status_code == status
    assert content_of_database(hourbook.home) == before


@pytest.mark.parametrize("full", [{"ingest_unsealed_events": 1}, {"ingest_waiting_mib": 16}])
def test_whoever_comes_when_too_much_waits_is_asked_to_come_again(tmp_path: Path, full: dict[str, int]) -> None:
    with served(tmp_path) as hourbook:
        app: Any = hourbook.client.app
        app.state.intake = Intake(hourbook.home, Settings(**full))  # type: ignore[arg-type]
        with app.state.intake.room.reserved() as take:
            # Somebody else's body fills the room, or somebody else's events wait for the sealer.
            take(16 * 1024 * 1024 if "ingest_waiting_mib" in full else 0)
            if "ingest_unsealed_events" in full:
                assert post(hourbook, orjson.dumps([usage_event(100)])).status_code == 202
            before = content_of_database(hourbook.home)
            answer = post(hourbook, orjson.dumps([usage_event(101)]))
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
            assert int(answer.headers["retry-after"]) > 0
            assert content_of_database(hourbook.home) == before
        accrue_open_months(hourbook.home)
        assert post(hourbook, orjson.dumps([usage_event(101)])).status_code == 202


def test_a_batch_that_was_kept_in_part_succeeds_when_it_is_sent_again(hourbook: Served) -> None:
    wrong = usage_event(101, start="2026-11-25T00:00:00")
    assert post(hourbook, orjson.dumps([usage_event(100), wrong])).json()["rejected"] == 1
    again = post(hourbook, orjson.dumps([usage_event(100), usage_event(101)]))
    assert again.json()["items"] == [{"status": "accepted"}] * 2
    accrue_open_months(hourbook.home)
    assert jobs(hourbook) == 26
    with read_session(hourbook.home.engine) as session:
        assert [entry.status for entry in metering.quarantine(session)] == ["resolved"]


def test_the_schema_of_an_event_is_there_for_everybody(hourbook: Served) -> None:
    answer = hourbook.client.get("/v1/schemas/usage")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/schema+json")
    assert answer.json() == json_schema()


def test_usage_shows_within_seconds_where_the_server_runs(tmp_path: Path) -> None:
    with served(tmp_path, jobs=True) as hourbook:
        assert post(hourbook, orjson.dumps([usage_event(100)])).status_code == 202
        deadline = time.monotonic() + 20
        while jobs(hourbook) != 25:
            assert time.monotonic() < deadline
            time.sleep(0.1)
