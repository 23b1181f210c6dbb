"""Whatever is sent, the server stands: no malformed event makes it fail, and every good neighbour counts once."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from hourbook.accruing import accrue_open_months
from tests.faults.malformed import Sent, requests
from tests.hourbook.served import copy_home, served
from tests.serving import Server, start_server

BEFORE = 24  # jobs that the home holds to begin with
NOVEMBER = {"from": "2026-11-01", "to": "2026-11-30", "by": "cluster"}
SAMPLE = 400
EVENTS = 100_000
BATCH = 100
BOMBS = 20
MEMORY_MIB = 1_024  # that a server may take, whatever is sent
WAIT_SECONDS = 120


def check(sent: Sent, status: int, answer: dict[str, object]) -> None:
    assert status in sent.statuses, f"{sent.kind} {sent.headers} {sent.body[:200]!r} was answered {status}: {answer}"
    if status == httpx.codes.ACCEPTED and sent.good:
        assert (answer["accepted"], answer["rejected"]) == (sent.good, sent.bad)


def test_a_sample_of_all_that_is_malformed_does_no_harm(tmp_path: Path) -> None:
    with served(tmp_path) as hourbook:
        good = 0
        for _, sent in requests(seed=7, events=SAMPLE, batch=10, bombs=0):
            headers = {**hourbook.bearer("collector"), "Content-Type": sent.kind, **sent.headers}
            answer = hourbook.client.post("/v1/events", content=sent.body, headers=headers)
            check(sent, answer.status_code, answer.json())
            good += sent.good
        accrue_open_months(hourbook.home)
        rows = hourbook.get("/v1/usage", "finance", **NOVEMBER).json()["rows"]
        assert sum(row["jobs"] for row in rows if row["cluster"] == "hpc1") == BEFORE + good


@pytest.mark.endurance
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_malformed_events_do_no_harm(tmp_path: Path) -> None:
    home, keys = copy_home(tmp_path)
    server = start_server(home)
    told: Counter[int] = Counter()
    made = good = 0
    most = 0
    try:
        with httpx.Client(
            base_url=server.url, timeout=120, headers={"Authorization": f"Bearer {keys['collector']}"}
        ) as client:
            for source, sent in requests(seed=1, events=EVENTS, batch=BATCH, bombs=BOMBS):
                answer = client.post(
                    "/v1/events", content=sent.body, headers={"Content-Type": sent.kind, **sent.headers}
                )
                check(sent, answer.status_code, answer.json())
                told[answer.status_code] += 1
                made, good = made + sent.bad, source.good
                most = max(most, memory_mib(server))
        assert server.process.poll() is None
        assert made >= EVENTS
        assert {202, 400, 413, 415} <= told.keys()
        wait_for_jobs(server, keys["finance"], BEFORE + good)
        assert most < MEMORY_MIB
    finally:
        server.kill()


def memory_mib(server: Server) -> int:
    """The most memory that the server's process ever held."""
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peak) // 1024


def wait_for_jobs(server: Server, key: str, expected: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        asked = httpx.get(
            f"{server.url}/v1/usage", params=NOVEMBER, headers={"Authorization": f"Bearer {key}"}, timeout=120
        )
        rows = asked.raise_for_status().json()["rows"]
        found = sum(row["jobs"] for row in rows if row["cluster"] == "hpc1")
        assert found <= expected, "usage was counted twice"
        if found == expected:
            return
        assert time.monotonic() < deadline, f"{found} jobs, not {expected}"
        time.sleep(0.5)
