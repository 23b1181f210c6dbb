"""What a server has acknowledged is in `GET /v1/usage` within five seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import start_server

from .served import copy_home, usage_event

SECONDS = 5


@pytest.mark.slow
def test_acknowledged_usage_is_in_the_figures_within_five_seconds(tmp_path: Path) -> None:
    home, keys = copy_home(tmp_path)
    # Nothing is accrued meanwhile: sealing has a turn of its own.
    server = start_server(home, accrue_every_seconds=600)
    time.sleep(2)  # every job has had its first turn
    waited = []

    def ask(who: str, method: str, path: str, **given: Any) -> Any:  # noqa: ANN401 - JSON
        headers = {"Authorization": f"Bearer {keys[who]}"}
        answer = httpx.request(method, f"{server.url}{path}", headers=headers, timeout=30, **given)
        assert answer.is_success, answer.text
        return answer.json()

    try:
        for number in range(3):
            before = _jobs(ask("finance", "GET", "/v1/usage", params={"from": "2026-11-29", "to": "2026-11-29"}))
            ask("collector", "POST", "/v1/events", json=[usage_event(900 + number, day=29)])
            acknowledged = time.monotonic()
            while True:
                now = _jobs(ask("finance", "GET", "/v1/usage", params={"from": "2026-11-29", "to": "2026-11-29"}))
                if now > before or time.monotonic() - acknowledged > 3 * SECONDS:
                    break
                time.sleep(0.05)
            assert now == before + 1
            waited.append(time.monotonic() - acknowledged)
    finally:
        server.kill()
    assert max(waited) < SECONDS


def _jobs(body: dict[str, list[dict[str, int]]]) -> int:
    return sum(row["jobs"] for row in body["rows"])
