"""A collector's key that names its clusters sends usage of these only, in whatever name and by whatever way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from hourbook.accruing import accrue_open_months
from hourbook.database import read_session, run_write
from hourbook.intake import Intake, Outcome, Submission
from hourbook.keys import create_key
from hourbook.retrying import retry_quarantine
from hourbook.settings import Settings
from metering import store as metering
from tests.hourbook.served import Served, served, usage_event

CODE = "not_reported_by_key"


@pytest.fixture
def hourbook(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as one:
        key = run_write(one.home.engine, lambda s: create_key(s, "collector", one.home.now(), clusters=["hpc1"]))
        yield Served(one.home, one.client, {**one.keys, "hpc1": key})


def sent(hourbook: Served, *events: dict[str, Any], who: str = "hpc1") -> list[str]:
    """Send events; return of each why it was rejected, and "" of those that were accepted."""
    answer = hourbook.client.post("/v1/events", json=list(events), headers=hourbook.bearer(who))
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert body["accepted"] + body["rejected"] == len(events)
    return [item.get("code", "") for item in body["items"]]


def usage_of(hourbook: Served, cluster: str) -> int:
    accrue_open_months(hourbook.home)
    answer = hourbook.get("/v1/usage", "finance", **{"from": "2026-11-01", "to": "2026-11-30", "by": "cluster"})
    return sum(row["jobs"] for row in answer.json()["rows"] if row["cluster"] == cluster)


def test_an_event_of_another_cluster_is_rejected_and_its_neighbours_count(hourbook: Served) -> None:
    before = usage_of(hourbook, "hpc1")
    other = usage_event(101, cluster="ai9")
    assert sent(hourbook, usage_event(100), other, usage_event(102)) == ["", CODE, ""]
    assert (usage_of(hourbook, "hpc1"), usage_of(hourbook, "ai9")) == (before + 2, 0)
    with read_session(hourbook.home.engine) as session:
        (entry,) = metering.quarantine(session, status="open")
        assert (entry.code, entry.month, entry.event_id) == (CODE, "2026-11", "job-101")
        assert "this key reports of hpc1 only" in entry.message


def test_a_source_that_speaks_for_another_cluster_is_none_of_its_own(hourbook: Served) -> None:
    foreign = {**usage_event(100), "source": "slurm:ai9"}
    own = {**usage_event(100), "source": "slurm:hpc1"}
    assert sent(hourbook, foreign, own) == [CODE, ""]


def test_a_key_that_names_no_cluster_reports_of_any(hourbook: Served) -> None:
    assert sent(hourbook, usage_event(100, cluster="ai9"), usage_event(101), who="collector") == ["", ""]


def test_reading_quarantine_again_does_not_let_it_in_but_its_own_sender_settles_it(hourbook: Served) -> None:
    other = usage_event(101, cluster="ai9")
    sent(hourbook, other)
    assert retry_quarantine(hourbook.home).resolved == 0
    assert usage_of(hourbook, "ai9") == 0
    assert sent(hourbook, other, who="collector") == [""]
    assert usage_of(hourbook, "ai9") == 1
    with read_session(hourbook.home.engine) as session:
        assert not metering.quarantine(session, status="open")


def test_a_log_of_another_cluster_is_refused_whole(hourbook: Served) -> None:
    headers = {**hourbook.bearer("hpc1"), "Content-Type": "text/plain"}
    answer = hourbook.client.post("/v1/logs/slurm/ai9", content=b"JobIDRaw|Cluster", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


def test_bodies_of_several_keys_that_wait_together_are_judged_each_by_its_own(hourbook: Served) -> None:
    intake = Intake(hourbook.home, Settings())
    other = orjson.dumps([usage_event(200), usage_event(201, cluster="ai9")])
    bodies = [
        Submission(other, "json", gzipped=False, key_id=key, opening=b"[", clusters=clusters)
        for key, clusters in (("any", ()), ("hpc1", ("hpc1",)), ("ai9", ("ai9",)))
    ]
    outcomes = intake._take_in(bodies)  # noqa: SLF001 - together, for sure
    refused = [[one.place for one in outcome.refused] for outcome in outcomes if isinstance(outcome, Outcome)]
    assert refused == [[], [1], [0]]
