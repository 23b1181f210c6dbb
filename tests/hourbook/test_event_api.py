"""`GET /v1/events/{source}/{id}` and the operator's words, statements and gaps over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from hourbook.database import read_session, run_write
from hourbook.event_history import Revision, event_history
from hourbook.importing import accept_payload
from hourbook.keys import Caller, create_key
from hourbook.refreshing import refresh
from metering.cloud_events import read_events
from metering.statement_sums import checksum
from tests.hourbook.served import MONTH, STATEMENT, Served, served, usage_event

SOURCE, JOB = "test:hpc1", "job-1"  # north's; job-3 is south's
STRANGE = "jobs/4711:1795294603/50%25 ü"


@pytest.fixture(scope="module")
def hourbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("events")) as one:
        event = {**usage_event(40), "source": "https://lab/one", "id": STRANGE}
        payload = orjson.dumps(event)
        accept_payload(one.home, payload, read_events(payload, format="json", now=one.home.now()), kind="x", origin="x")
        refresh(one.home)
        yield one


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as one:
        yield one


def path_of(source: str, event_id: str) -> str:
    return f"/v1/events/{quote(source, safe='')}/{quote(event_id, safe='')}"


def post(hourbook: Served, path: str, body: Any, who: str = "finance") -> Any:  # noqa: ANN401
    return hourbook.client.post(path, json=body, headers=hourbook.bearer(who))


def say(hourbook: Served, word: str, **more: Any) -> Any:  # noqa: ANN401
    body = {"word": word, "reason": "ticket 88", "by": "lin", **more}
    return post(hourbook, f"{path_of(SOURCE, JOB)}/amendments", body)


def test_an_event_is_followed_to_the_line_that_bills_it(hourbook: Served) -> None:
    found = hourbook.get(path_of(SOURCE, JOB), "own").json()
    assert [(row["revision"], row["status"]) for row in found["revisions"]] == [("0", "kept")]
    lines = {share["document"].partition(" ")[0] for share in found["billed"]}
    assert lines == {STATEMENT}
    assert sorted((share["sku"], share["quantity"]) for share in found["billed"]) == [
        ("card-hour", "2"),
        ("core-hour", "80"),
    ]


def test_ids_with_slashes_colons_and_anything_are_reached(hourbook: Served) -> None:
    found = hourbook.get(path_of("https://lab/one", STRANGE), "finance")
    assert (found.status_code, found.json()["id"]) == (200, STRANGE)
    for wrong in (f"/v1/events/https://lab/one/{STRANGE}", "/v1/events/test%3Ahpc1/", path_of(SOURCE, "job-99")):
        assert hourbook.get(wrong, "finance").status_code == 404


def test_an_event_is_looked_for_on_the_date_on_which_it_starts(hourbook: Served) -> None:
    found = hourbook.get(path_of(SOURCE, JOB), "own").json()
    date = found["revisions"][0]["start"][:10]
    assert date == "2026-11-05"  # in UTC
    assert hourbook.get(path_of(SOURCE, JOB), "own", date=date).json() == found
    assert hourbook.get(path_of(SOURCE, JOB), "own", date="2026-11-06").status_code == 404
    assert hourbook.get(path_of(SOURCE, JOB), "own", date="today").status_code == 422


def test_a_customer_sees_its_own_events_only_and_a_collector_no_money(hourbook: Served) -> None:
    assert hourbook.get(path_of(SOURCE, "job-3"), "own").status_code == 404
    assert hourbook.get(path_of(SOURCE, "job-3"), "other").status_code == 200
    assert hourbook.get(path_of(SOURCE, JOB), "collector").json()["billed"] == []
    key = run_write(hourbook.home.engine, lambda s: create_key(s, "collector", hourbook.home.now(), clusters=["ai9"]))
    narrow = Served(hourbook.home, hourbook.client, {"narrow": key})
    assert narrow.get(path_of(SOURCE, JOB), "narrow").status_code == 404
    said = {"cluster": "hpc1", "source": SOURCE, "hour": "2026-11-30T00:00:00Z", "events": 0}
    assert post(narrow, "/v1/statements", [said], "narrow").status_code == 403


def test_a_collector_of_one_cluster_sees_only_rows_of_that_cluster(hourbook: Served) -> None:
    with read_session(hourbook.home.engine) as session:
        known = event_history(hourbook.home, session, SOURCE, JOB, billed=False)
    (row,) = known.revisions
    elsewhere = replace(row, usage={**row.usage, "cluster": "ai9"})
    both = replace(known, revisions=(row, elsewhere), quarantined=({"id": "Q-1"},))

    def seen(*clusters: str) -> tuple[str, tuple[Revision, ...], int] | None:
        found = both.seen_by(Caller("key", "collector", clusters=clusters))
        return (found.cluster, found.revisions, len(found.quarantined)) if found else None

    assert seen("hpc1") == ("hpc1", (row,), 1)
    assert seen("ai9") == ("ai9", (elsewhere,), 0)
    assert seen("hpc7") is None
    assert seen() == ("hpc1", (row, elsewhere), 1)


def test_a_preview_tells_the_effect_and_a_word_is_recorded_with_its_author(fresh: Served) -> None:
    preview = say(fresh, "amend", set={"cpus": 20}, dry_run=True)
    assert (preview.status_code, preview.json()["batch"], preview.json()["adjusts"]) == (200, 0, [MONTH])
    done = say(fresh, "amend", set={"cpus": 20})
    assert (done.status_code, done.json()["effects"]) == (201, preview.json()["effects"])
    found = fresh.get(path_of(SOURCE, JOB), "finance").json()
    word = found["revisions"][-1]
    assert (word["revision"], word["status"], word["evidence"]["reason"]) == ("word 1", "kept", "ticket 88")
    assert word["evidence"]["by"].startswith("lin (key ")
    assert "by" not in fresh.get(path_of(SOURCE, JOB), "own").json()["revisions"][-1]["evidence"]
    assert say(fresh, "revert").status_code == 201
    assert {row["status"] for row in fresh.get(path_of(SOURCE, JOB), "own").json()["revisions"]} == {"kept", "reverted"}


def test_a_word_that_cannot_be_is_refused_by_name(hourbook: Served) -> None:
    for body, code in (
        ({"word": "amend", "set": {"start": "x"}}, "refused_amendment"),
        ({"word": "revert"}, "refused_amendment"),
        ({"word": "retract", "set": {"cpus": 1}}, "invalid_request"),
        ({"word": "forget"}, "invalid_request"),
    ):
        answer = post(hourbook, f"{path_of(SOURCE, JOB)}/amendments", {"reason": "r", "by": "lin", **body})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)


def test_usage_that_no_log_holds_is_backfilled_and_marked(fresh: Served) -> None:
    def send(event: dict[str, Any], **more: str) -> Any:  # noqa: ANN401
        return fresh.client.post(
            "/v1/backfills",
            params={"reason": "disk lost", "by": "lin", **more},
            content=orjson.dumps([event]),
            headers=fresh.bearer("finance"),
        )

    lost = {**usage_event(90), "source": "operator"}
    assert send(lost, dry_run="true").status_code == 200
    assert send(lost).status_code == 201
    found = fresh.get(path_of("operator", "job-90"), "finance").json()
    assert [(row["revision"], row["evidence"]["word"]) for row in found["revisions"]] == [("word 1", "backfill")]
    assert "recorded already" in send(lost).json()["error"]["message"]
    assert "recorded already" in send(usage_event(1)).json()["error"]["message"]
    assert "none is taken" in send({**lost, "type": "other"}).json()["error"]["message"]


def test_statements_make_gaps_and_a_person_waives_them(fresh: Served) -> None:
    said = {
        "cluster": "hpc1",
        "source": SOURCE,
        "hour": "2026-11-06T18:00:00Z",
        "events": 1,
        "checksum": checksum([(SOURCE, "job-2", 0)]),
    }
    assert post(fresh, "/v1/statements", [said], "collector").json() == {
        "statements": 1,
        "new": 1,
        "not_compared": [],
    }
    assert gap_of(fresh) == "complete"
    post(fresh, "/v1/statements", {**said, "events": 2}, "collector")
    assert gap_of(fresh) == "too_few"
    hours = {"cluster": "hpc1", "from": "2026-11-06T18:00:00Z", "to": "2026-11-06T19:00:00Z"}
    waived = post(fresh, "/v1/gaps/waivers", {**hours, "reason": "r", "by": "lin"})
    assert (waived.status_code, gap_of(fresh)) == (201, "waived")
    assert post(fresh, "/v1/gaps/waivers", {**hours, "reason": "r", "by": "lin"}).json()["error"]["code"] == "no_gap"


def test_where_nothing_is_expected_or_compared_the_answer_says_so(fresh: Served) -> None:
    def gaps(who: str, **asked: str) -> Any:  # noqa: ANN401
        found = fresh.get("/v1/gaps", who, month=MONTH, **asked).json()
        return found["statements_expected"], found["not_compared"]

    assert gaps("finance") == (False, [])
    said = {"cluster": "hcp1", "source": SOURCE, "hour": "2026-11-06T18:00:00Z", "events": 0}
    assert post(fresh, "/v1/statements", [said], "collector").json()["not_compared"] == ["hcp1"]
    assert gaps("operator") == (False, ["hcp1"])
    assert gaps("finance", cluster="hpc1") == (False, [])
    key = run_write(fresh.home.engine, lambda s: create_key(s, "collector", fresh.home.now(), clusters=["hpc1"]))
    fresh.client.post("/v1/statements", json={**said, "cluster": "hpc1"}, headers={"Authorization": f"Bearer {key}"})
    narrow = Served(fresh.home, fresh.client, {"narrow": key})
    found = narrow.get("/v1/gaps", "narrow", month=MONTH).json()
    assert (found["statements_expected"], found["not_compared"]) == (True, [])


def gap_of(hourbook: Served) -> str:
    runs = hourbook.get("/v1/gaps", "finance", month=MONTH).json()["runs"]
    (found,) = [run["state"] for run in runs if run["first_hour"] == "2026-11-06T18:00:00Z"]
    return str(found)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"cluster": "hpc1"}',
        b'[{"cluster":"hpc1","source":"s","hour":"2026-11-06T17:30:00Z","events":0}]',
        b'[{"cluster":"hpc1","source":"s","hour":"2026-11-06T17:00:00","events":0}]',
        b'[{"cluster":"hpc1","source":"s","hour":"2026-11-06T17:00:00Z","events":-1}]',
        b'[{"cluster":"hpc1","source":"s","hour":"2026-11-06T17:00:00Z","events":1,"checksum":"xyz"}]',
        b'[{"cluster":"hpc1","source":"s","hour":"2026-11-06T17:00:00Z","events":1,"extra":1}]',
    ],
)
def test_a_statement_that_cannot_be_read_is_refused_whole(hourbook: Served, body: bytes) -> None:
    answer = hourbook.client.post("/v1/statements", content=body, headers=hourbook.bearer("collector"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "refused_statement")
