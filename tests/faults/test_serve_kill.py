"""A batch that was acknowledged is there after the server was killed at once, and it is there once."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import orjson
import pytest

from tests.hourbook.served import copy_home, usage_event
from tests.serving import Server, start_server

pytestmark = pytest.mark.slow

ROUNDS = 3
BATCH = 250
BEFORE = 24  # jobs that the home holds to begin with
WAIT_SECONDS = 60


def post(server: Server, key: str, body: bytes) -> int:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/cloudevents-batch+json"}
    return httpx.post(f"{server.url}/v1/events", content=body, headers=headers, timeout=60).status_code


def jobs(server: Server, key: str) -> int:
    asked = {"from": "2026-11-01", "to": "2026-11-30", "by": "cluster"}
    answer = httpx.get(
        f"{server.url}/v1/usage", params=asked, headers={"Authorization": f"Bearer {key}"}, timeout=60
    ).raise_for_status()
    return int(answer.json()["rows"][0]["jobs"])


def wait_for_jobs(server: Server, key: str, expected: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while (found := jobs(server, key)) != expected:
        assert found < expected, "usage was counted twice"
        assert time.monotonic() < deadline, f"{found} jobs, not {expected}"
        time.sleep(0.2)


def batch_of(turn: int) -> bytes:
    numbers = range(1000 + turn * BATCH, 1000 + (turn + 1) * BATCH)
    return orjson.dumps([usage_event(number, day=1 + number % 28) for number in numbers])


@pytest.mark.timeout(300)
def test_acknowledged_usage_survives_the_kill_of_the_server_and_counts_once(tmp_path: Path) -> None:
    home, keys = copy_home(tmp_path)
    for turn in range(ROUNDS):
        server = start_server(home)
        assert post(server, keys["collector"], batch_of(turn)) == httpx.codes.ACCEPTED
        server.kill()
    server = start_server(home)
    try:
        wait_for_jobs(server, keys["finance"], BEFORE + ROUNDS * BATCH)
        # Whoever did not see the answer sends again, and the last batch stands in the inbox twice.
        assert post(server, keys["collector"], batch_of(ROUNDS - 1)) == httpx.codes.ACCEPTED
        assert post(server, keys["collector"], batch_of(ROUNDS)) == httpx.codes.ACCEPTED
        wait_for_jobs(server, keys["finance"], BEFORE + (ROUNDS + 1) * BATCH)
    finally:
        server.kill()


@pytest.mark.timeout(300)
def test_a_server_asked_to_stop_finishes_and_leaves_a_whole_home(tmp_path: Path) -> None:
    home, keys = copy_home(tmp_path)
    server = start_server(home)
    assert post(server, keys["collector"], batch_of(0)) == httpx.codes.ACCEPTED
    assert server.stop() in {0, -15}
    server = start_server(home)
    try:
        wait_for_jobs(server, keys["finance"], BEFORE + BATCH)
    finally:
        server.kill()
