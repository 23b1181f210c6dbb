"""The schedule: what is due and not done is done once, whatever time, other processes or a kill do meanwhile."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.request import Request, urlopen
from zoneinfo import ZoneInfo

import pytest
import time_machine
from sqlalchemy import text

from base.period import month_days, month_period, next_month_start
from hourbook import jobs
from hourbook.accruing import accrue_open_months
from hourbook.applying import apply_files
from hourbook.closing import close_month, draft_month
from hourbook.crash import CRASH_VARIABLE
from hourbook.database import create_home, read_session, run_write
from hourbook.jobs import Accruer, draft_finished_months, make_scheduler, scheduled_jobs
from hourbook.keys import create_key
from hourbook.receiving import TopUp, receive
from hourbook.refreshing import refresh
from hourbook.settings import Home, Settings, system_clock
from invoices import store as invoices
from ledger.store import balances, transactions

from .small_operator import FACTS, make_home, use

ROOT = Path(__file__).resolve().parents[2]
SHANGHAI = ZoneInfo("Asia/Shanghai")
START = datetime(2026, 11, 21, 12, tzinfo=SHANGHAI)


class Calendar:
    """The clock of a home, moved by the story."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now.astimezone(UTC)


@pytest.fixture
def calendar() -> Calendar:
    return Calendar(START)


@pytest.fixture
def home(tmp_path: Path, calendar: Calendar) -> Iterator[Home]:
    made = make_home(tmp_path, calendar)
    yield made
    made.close()


def runs(home: Home) -> list[tuple[str, str]]:
    """Every (job, period) that is recorded as done."""
    with home.engine.connect() as connection:
        return [(job, period) for job, period in connection.execute(text("SELECT job, period_key FROM job_run"))]


def drafts(home: Home, month: str) -> list[tuple[str, int]]:
    """The drafts of a month: customer and total."""
    with read_session(home.engine) as session:
        return [(row.customer, row.total_minor) for row in invoices.drafts(session, month)]


def arrears(home: Home, customer: str = "u-north") -> int:
    with read_session(home.engine) as session:
        found = balances(session, customer=customer)
    return sum(amount for key, amount in found.items() if key.code == "assets:receivable:arrears")


# Accruing


def test_usage_is_charged_at_the_next_turn_and_then_nothing_is_left_to_do(home: Home, calendar: Calendar) -> None:
    accrue = Accruer(home)
    accrue()
    use(home, calendar.now - timedelta(hours=2), core_hours=3)
    assert accrue()
    assert arrears(home) == 300
    assert not accrue()
    assert not accrue()


def test_a_receipt_configuration_and_a_new_day_each_give_something_to_do(
    home: Home, calendar: Calendar, tmp_path: Path
) -> None:
    accrue = Accruer(home)
    use(home, calendar.now - timedelta(hours=2), core_hours=3)
    accrue()
    receive(home, TopUp("u-north", 1000, "bank 1", calendar.now.date()))
    assert accrue()
    assert arrears(home) == 0
    (tmp_path / "more.toml").write_text('[[suppliers]]\nid = "gz"\nname = "广州"\n', encoding="utf-8")
    apply_files(home, [tmp_path / "more.toml"])
    assert accrue()
    calendar.now += timedelta(days=1)
    assert accrue()
    assert not accrue()


def test_usage_that_another_process_has_sealed_is_charged_all_the_same(home: Home, calendar: Calendar) -> None:
    accrue = Accruer(home)
    accrue()
    use(home, calendar.now - timedelta(hours=2))
    refresh(home)
    assert accrue()
    assert arrears(home) == 100


def test_what_arrives_while_charging_is_not_forgotten(
    home: Home, calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    accrue = Accruer(home)

    def slow(of: Home) -> None:
        accrue_open_months(of)
        use(of, calendar.now - timedelta(hours=2))

    monkeypatch.setattr(jobs, "accrue_open_months", slow)
    assert accrue()
    monkeypatch.undo()
    assert accrue()
    assert arrears(home) == 100


def test_a_turn_that_failed_is_made_up_for_by_the_next(
    home: Home, calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    accrue = Accruer(home)
    use(home, calendar.now - timedelta(hours=2))

    def fail(_: Home) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(jobs, "accrue_open_months", fail)
    with pytest.raises(OSError, match="full"):
        accrue()
    monkeypatch.undo()
    assert accrue()
    assert arrears(home) == 100


# Drafting


@pytest.mark.parametrize(
    ("month", "days"), [("2026-02", 28), ("2028-02", 29), ("2026-04", 30), ("2026-12", 31), ("2026-01", 31)]
)
def test_a_month_is_drafted_from_its_last_midnight_on_once(tmp_path: Path, month: str, days: int) -> None:
    end = month_period(month, SHANGHAI).end
    calendar = Calendar(end - timedelta(microseconds=1))
    home = make_home(tmp_path, calendar)
    assert month_days(month)[1].day == days
    use(home, end - timedelta(hours=5), core_hours=3)
    assert draft_finished_months(home) == []
    calendar.now = end
    assert draft_finished_months(home) == [month]
    assert drafts(home, month) == [("u-north", 300)]
    assert draft_finished_months(home) == []
    assert runs(home) == [("draft", month)]
    home.close()


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Pacific/Apia", "Asia/Kathmandu"])
def test_in_every_zone_each_month_of_a_year_is_drafted_once_hour_after_hour(tmp_path: Path, zone: str) -> None:
    where = ZoneInfo(zone)
    first = month_period("2026-02", where).start
    calendar = Calendar(first)
    home = make_home(tmp_path, calendar, zone=zone)
    use(home, first + timedelta(hours=1))
    drafted: list[tuple[str, date]] = []
    month = date(2026, 2, 1)
    while month < date(2026, 12, 1):
        month = next_month_start(month)
        border = month_period(f"{month:%Y-%m}", where).start
        # The hours round the border and round both changes of the clock.
        for hours in (-26, -1, 0, 1, 2, 3, 24 * 7, 24 * 24):
            calendar.now = border + timedelta(hours=hours)
            drafted += [(done, home.today(where)) for done in draft_finished_months(home)]
    assert drafted == [(f"2026-{number:02}", date(2026, number + 1, 1)) for number in range(2, 12)]
    home.close()


def test_a_clock_that_jumps_back_and_forth_over_midnight_makes_one_draft(home: Home, calendar: Calendar) -> None:
    use(home, START)
    midnight = datetime(2026, 12, 1, tzinfo=SHANGHAI)
    drafted = []
    for minutes in (-30, 30, -15, 15, -60, 60, 0):
        calendar.now = midnight + timedelta(minutes=minutes)
        drafted += draft_finished_months(home)
    assert drafted == ["2026-11"]


@pytest.mark.parametrize("days", [3, 100])
def test_what_was_missed_while_nothing_ran_is_caught_up_oldest_first(home: Home, calendar: Calendar, days: int) -> None:
    calendar.now = datetime(2026, 11, 30, 12, tzinfo=SHANGHAI)
    use(home, calendar.now)
    assert draft_finished_months(home) == []
    calendar.now += timedelta(days=days)
    expected = ["2026-11"] if days == 3 else ["2026-11", "2026-12", "2027-01", "2027-02"]
    assert draft_finished_months(home) == expected
    assert draft_finished_months(home) == []


def test_a_closed_month_is_not_drafted(home: Home, calendar: Calendar) -> None:
    use(home, START)
    calendar.now = datetime(2026, 12, 1, 1, tzinfo=SHANGHAI)
    close_month(home, "2026-11")
    assert draft_finished_months(home) == []
    assert (drafts(home, "2026-11"), runs(home)) == ([], [])


def test_a_month_closed_between_the_question_and_the_draft_keeps_its_documents_alone(
    home: Home, calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(home, START)
    calendar.now = datetime(2026, 12, 1, 1, tzinfo=SHANGHAI)

    def overtaken(of: Home, month: str) -> object:
        drafted = draft_month(of, month)
        close_month(of, month)
        return drafted

    monkeypatch.setattr(jobs, "draft_month", overtaken)
    assert draft_finished_months(home) == []
    assert (drafts(home, "2026-11"), runs(home)) == ([], [])


def test_drafting_posts_nothing_and_issues_nothing(home: Home, calendar: Calendar) -> None:
    use(home, START)
    calendar.now = datetime(2026, 12, 1, 1, tzinfo=SHANGHAI)
    draft_finished_months(home)
    with read_session(home.engine) as session:
        assert invoices.documents(session) == []
        assert list(transactions(session)) == []


DRAFTER = """
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from hourbook.database import open_home
from hourbook.jobs import draft_finished_months

now = []
home = replace(open_home(Path(sys.argv[1])), clock=lambda: now[-1])
print("ready", flush=True)
for line in sys.stdin:
    now.append(datetime.fromisoformat(line.strip()))
    print(",".join(draft_finished_months(home)), flush=True)
"""


def drafter(home: Home, crash_at: str = "") -> subprocess.Popen[str]:
    """A process of its own that drafts whenever it is told an instant."""
    environment = {**os.environ, CRASH_VARIABLE: crash_at}
    command = [sys.executable, "-c", DRAFTER, str(home.path)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def tell(process: subprocess.Popen[str], now: datetime) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{now.astimezone(UTC).isoformat()}\n")
    process.stdin.flush()


def answers(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """The months that processes say they drafted."""
    return [month for process in processes if process.stdout for month in process.stdout.readline().split(",")]


def test_of_three_processes_that_draft_at_once_one_has_the_effect(home: Home) -> None:
    use(home, START)
    processes = [drafter(home) for _ in range(3)]
    drafted: list[str] = []
    month = date(2026, 11, 1)
    for _ in range(6):
        month = next_month_start(month)
        for minutes in (0, 60, 30):
            for process in processes:
                tell(process, datetime(month.year, month.month, 1, tzinfo=SHANGHAI) + timedelta(minutes=minutes))
            drafted += [one.strip() for one in answers(processes) if one.strip()]
    for process in processes:
        process.communicate(timeout=60)
    assert drafted == ["2026-11", "2026-12", "2027-01", "2027-02", "2027-03", "2027-04"]
    assert sorted(runs(home)) == [("draft", one) for one in drafted]


def test_without_the_claim_a_month_would_be_drafted_twice(
    home: Home, calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A deliberately broken build: the test above must be able to fail.
    monkeypatch.setattr(jobs, "claim", lambda *_: True)
    use(home, START)
    calendar.now = datetime(2026, 12, 1, 1, tzinfo=SHANGHAI)
    assert [*draft_finished_months(home), *draft_finished_months(home)] == ["2026-11", "2026-11"]


@pytest.mark.parametrize("point", ["draft:before_write", "draft:before_commit", "draft:after_commit"])
def test_killed_while_drafting_and_started_again_it_is_one_draft(home: Home, calendar: Calendar, point: str) -> None:
    use(home, START, core_hours=3)
    calendar.now = datetime(2026, 12, 1, 1, tzinfo=SHANGHAI)
    process = drafter(home, point)
    tell(process, calendar.now)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    done = point == "draft:after_commit"
    assert (drafts(home, "2026-11"), runs(home)) == (([("u-north", 300)], [("draft", "2026-11")]) if done else ([], []))
    assert draft_finished_months(home) == ([] if done else ["2026-11"])
    assert (drafts(home, "2026-11"), runs(home)) == ([("u-north", 300)], [("draft", "2026-11")])


# The ticker


def wait_until(holds: object, seconds: float = 15) -> None:
    assert callable(holds)
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


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
        assert {job.id for job in scheduler.get_jobs()} == {"accrue", "draft"}
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
        with urlopen(Request(url, headers={"Authorization": f"Bearer {key}"}), timeout=5) as answer:  # noqa: S310 - ours
            return str(json.load(answer)["arrears"])
    except OSError:
        return ""


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
        wait_until(lambda: balance_over_http(port, key) == "1.00", 60)
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
