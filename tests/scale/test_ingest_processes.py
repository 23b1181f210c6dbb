"""Several processes take usage in on one PostgreSQL, one of them is killed: what was acknowledged counts once."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import orjson
import pytest
from sqlalchemy import func
from sqlmodel import col, select

from hourbook.applying import apply_files
from hourbook.database import read_session
from hourbook.sealing import LEASE
from hourbook.settings import Home
from metering import store as metering
from metering.lake import EventLake
from tests.homes import NewHome
from tests.hourbook.served import FACTS, make_key, usage_event
from tests.serving import Server, start_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLOCK = datetime(2026, 12, 1, 2, tzinfo=UTC)
PROCESSES = 3
SENDERS = 4
BATCH = 40
SECONDS = 8.0
PATIENCE_SECONDS = 60.0


@dataclass
class Sent:
    """What was acknowledged, and by whom."""

    numbers: Iterator[int] = field(default_factory=itertools.count)
    acknowledged: list[range] = field(default_factory=list)
    repeated: int = 0

    def send(self, servers: list[Server], key: str, stop: threading.Event, first: int) -> None:
        """Send batch after batch; whoever gets no answer sends the same to the next process."""
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/cloudevents-batch+json"}
        turn = first
        with httpx.Client(headers=headers, timeout=30) as client:
            while not stop.is_set():
                begin = next(self.numbers) * BATCH
                batch = range(begin, begin + BATCH)
                body = orjson.dumps([usage_event(number, day=1 + number % 28) for number in batch])
                while not self._posted(client, servers[turn % len(servers)], body):
                    turn += 1
                    self.repeated += 1
                self.acknowledged.append(batch)

    @staticmethod
    def _posted(client: httpx.Client, server: Server, body: bytes) -> bool:
        try:
            answer = client.post(f"{server.url}/v1/events", content=body)
        except httpx.HTTPError:
            return False
        if answer.status_code in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
            time.sleep(0.05)
            return False
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return True


@pytest.fixture
def home(new_home: NewHome, tmp_path: Path) -> Home:
    made = new_home(tmp_path / "home", CLOCK)
    facts = tmp_path / "facts.toml"
    facts.write_text(FACTS, encoding="utf-8")
    apply_files(made, [facts])
    return made


def start(home: Home) -> Server:
    return start_server(home.path, database_url=home.engine.url.render_as_string(hide_password=False))


def sealers_at_once(home: Home, stop: threading.Event) -> list[str]:
    """Watch who seals: the lease has one holder at any moment, and who that is changes."""
    seen = []
    while not stop.wait(0.02):
        with read_session(home.engine) as session:
            if holder := metering.lease_holder(session, LEASE, datetime.now(UTC)):
                seen.append(holder)
    return seen


@pytest.mark.parametrize("new_home", ["postgresql"], indirect=True)
def test_of_three_processes_one_may_be_killed_and_all_that_was_acknowledged_counts_once(home: Home) -> None:
    key = make_key(home, "collector")
    finance = make_key(home, "finance")
    sent, stop = Sent(), threading.Event()
    with ExitStack() as stack, ThreadPoolExecutor(SENDERS + 1) as pool:
        servers = [start(home) for _ in range(PROCESSES)]
        for server in servers:
            stack.callback(server.process.wait)
            stack.callback(server.process.kill)
        watching = pool.submit(sealers_at_once, home, stop)
        work = [pool.submit(sent.send, servers, key, stop, first) for first in range(SENDERS)]
        time.sleep(SECONDS / 2)
        servers[0].kill()
        time.sleep(SECONDS / 2)
        stop.set()
        for one in work:
            one.result(PATIENCE_SECONDS)
        holders = {holder.split(" ")[1] for holder in watching.result()}
        expected = sum(len(batch) for batch in sent.acknowledged)
        assert sent.repeated, "the kill came between a request and its answer"
        _wait_for(servers[1], finance, expected)
    assert holders <= {str(server.process.pid) for server in servers}
    _holds_each_once(home, sent, expected)


def _wait_for(server: Server, key: str, expected: int) -> None:
    """Wait until usage shows every job; more than that would be one counted twice."""
    end = time.monotonic() + PATIENCE_SECONDS
    asked = {"from": "2026-11-01", "to": "2026-11-30", "by": "cluster"}
    found = -1
    while time.monotonic() < end:
        answer = httpx.get(
            f"{server.url}/v1/usage", params=asked, headers={"Authorization": f"Bearer {key}"}, timeout=60
        )
        if answer.status_code == httpx.codes.OK and answer.json()["rows"]:
            found = int(answer.json()["rows"][0]["jobs"])
            assert found <= expected, "usage was counted twice"
            if found == expected:
                return
        time.sleep(0.2)
    raise AssertionError(f"{found} jobs, not {expected}")


def _holds_each_once(home: Home, sent: Sent, expected: int) -> None:
    """Compare the lake itself: every event, its numbers without a gap, and no more than what was sent."""
    rows = EventLake(home.lake).scan().select("id", "recorded_seq").collect()
    assert rows["id"].n_unique() == expected
    assert {f"job-{number}" for batch in sent.acknowledged for number in batch} == set(rows["id"])
    assert sorted(rows["recorded_seq"]) == list(range(1, rows.height + 1))
    batch = metering.InboxBatchRow
    with read_session(home.engine) as session:
        batches, last = session.exec(select(func.count(), func.max(col(batch.batch_seq)))).one()
    assert batches == last, "batch numbers have no gap"


@pytest.mark.parametrize("new_home", ["postgresql"], indirect=True)
def test_usage_that_two_processes_receive_at_once_counts_once(home: Home) -> None:
    key = make_key(home, "collector")
    finance = make_key(home, "finance")
    body = orjson.dumps([usage_event(number) for number in range(BATCH)])
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/cloudevents-batch+json"}
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        servers = [start(home) for _ in range(2)]
        for server in servers:
            stack.callback(server.process.wait)
            stack.callback(server.process.kill)
        urls = [f"{server.url}/v1/events" for server in servers] * 8
        answers = list(pool.map(lambda url: httpx.post(url, content=body, headers=headers, timeout=60), urls))
        assert {answer.status_code for answer in answers} == {httpx.codes.ACCEPTED}
        _wait_for(servers[1], finance, BATCH)
        time.sleep(timedelta(seconds=2).total_seconds())  # whatever was to be counted twice would be by now
        _wait_for(servers[0], finance, BATCH)
