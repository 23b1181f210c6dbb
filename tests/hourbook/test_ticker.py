"""The ticker that asks what is due, and a real server with it."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import time_machine

from hourbook import jobs
from hourbook.applying import apply_files
from hourbook.database import create_home, run_write
from hourbook.jobs import make_scheduler, scheduled_jobs
from hourbook.keys import create_key
from hourbook.settings import Home, Settings, system_clock

from .job_stories import SHANGHAI, START, Calendar, arrears, drafts, runs, wait_until
from .small_operator import FACTS, make_home, use

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def calendar() -> Calendar:
    return Calendar(START)


@pytest.fixture
def home(tmp_path: Path, calendar: Calendar) -> Iterator[Home]:
    made = make_home(tmp_path, calendar)
    yield made
    made.close()


def test_the_ticker_charges_usage_that_arrives_within_seconds(home: Home, calendar: Calendar) -> None:
    with scheduled_jobs(home, Settings(accrue_every_seconds=1)):
        use(home, calendar.now - timedelta(hours=2))
        wait_until(lambda: arrears(home) == 100)
        use(home, calendar.now - timedelta(hours=1))
        wait_until(lambda: arrears(home) == 200)


def test_a_job_that_fails_is_logged_and_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    turns: list[int] = []

    def fail(_: Home) -> list[str]:
        turns.append(1)
        raise OSError("the disk is full")

    monkeypatch.setattr(jobs, "draft_finished_months", fail)
    monkeypatch.setattr(jobs, "DRAFT_EVERY_SECONDS", 1)
    with caplog.at_level(logging.ERROR, "hourbook.jobs"), scheduled_jobs(home, Settings()):
        wait_until(lambda: len(turns) > 1)
    assert "job draft failed" in caplog.text


def test_days_late_a_turn_is_not_dropped(tmp_path: Path) -> None:
    with time_machine.travel(datetime(2026, 11, 30, 15, tzinfo=UTC)) as world:
        home = make_home(tmp_path, system_clock)
        use(home, datetime(2026, 11, 30, 10, tzinfo=UTC))
        with scheduled_jobs(home, Settings(accrue_every_seconds=1)) as scheduler:
            wait_until(lambda: arrears(home) == 100)
            assert runs(home) == []
            world.shift(timedelta(days=3))
            scheduler.wakeup()
            wait_until(lambda: runs(home) == [("draft", "2026-11")])
        home.close()


def test_turns_that_are_late_are_never_dropped_and_never_overlap(home: Home) -> None:
    scheduler = make_scheduler(home, Settings())
    scheduler.start(paused=True)
    try:
        for job in scheduler.get_jobs():
            assert (job.coalesce, job.misfire_grace_time, job.max_instances) == (True, None, 1)
        assert {job.id for job in scheduler.get_jobs()} == {"accrue", "collect", "compact", "draft", "seal", "starts"}
    finally:
        scheduler.shutdown()


# A real server


def hourbook(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", "from hourbook.cli.main import run; run()", "--home", str(home), *arguments]


def usage_file(folder: Path, number: int, *, core_hours: int) -> Path:
    """A file with one event: so many cores for an hour."""
    data = {
        "cluster": "hpc1",
        "partition": "cpu",
        "account": "grp",
        "user": "alice",
        "state": "completed",
        "start": "2026-11-21T12:00:00+08:00",
        "end": "2026-11-21T13:00:00+08:00",
        "resources": {"cpus": core_hours, "nodes": 1},
    }
    event = {"specversion": "1.0", "id": f"job-{number}", "source": "test", "type": "hourbook.usage.v1", "data": data}
    file = folder / f"usage-{number}.json"
    file.write_text(json.dumps([event]), encoding="utf-8")
    return file


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def balance_over_http(port: int, key: str) -> str:
    """What a customer owes, as the server tells it; "" while it does not answer yet."""
    url = f"http://127.0.0.1:{port}/v1/customers/u-north/balance"
    try:
        with urlopen(Request(url, headers={"Authorization": f"Bearer {key}"}), timeout=5) as answer:
            return str(json.load(answer)["arrears"])
    except OSError:
        return ""


@pytest.mark.slow
def test_usage_imported_beside_a_running_server_is_in_the_balance_within_seconds(tmp_path: Path) -> None:
    home = create_home(tmp_path / "home", datetime(2026, 12, 1, 10, tzinfo=SHANGHAI))
    (tmp_path / "operator.toml").write_text(FACTS.format(zone="Asia/Shanghai"), encoding="utf-8")
    apply_files(home, [tmp_path / "operator.toml"])
    use(home, START)
    key = run_write(home.engine, lambda session: create_key(session, "finance", home.now()))
    port = free_port()
    environment = {**os.environ, "HOURBOOK_ACCRUE_EVERY_SECONDS": "1"}
    command = hourbook(home.path, "serve", "--port", str(port))
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: server.poll() is not None or balance_over_http(port, key) == "1.00", 60)
        assert server.poll() is None
        wait_until(lambda: drafts(home, "2026-11") == [("u-north", 100)], 60)
        file = usage_file(tmp_path, 1, core_hours=4)
        subprocess.run(hourbook(home.path, "import", "events", str(file)), cwd=ROOT, check=True, capture_output=True)
        wait_until(lambda: balance_over_http(port, key) == "5.00", 10)
        assert server.poll() is None
    finally:
        server.terminate()
        ended = server.wait(timeout=30)
        home.close()
    assert ended in {0, -signal.SIGTERM}
    assert runs(home) == [("draft", "2026-11")]
