"""The schedule: what is due and not done is done once, whatever time, other processes or a kill do meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from base.period import month_days, month_period, next_month_start
from hourbook import jobs
from hourbook.accruing import accrue_open_months
from hourbook.applying import apply_files
from hourbook.closing import close_month, draft_month
from hourbook.crash import CRASH_VARIABLE
from hourbook.database import read_session
from hourbook.jobs import Accruer, draft_finished_months
from hourbook.receiving import TopUp, receive
from hourbook.refreshing import refresh
from hourbook.settings import Home
from invoices import store as invoices
from ledger.store import transactions

from .job_stories import SHANGHAI, START, Calendar, arrears, drafts, runs
from .small_operator import make_home, use

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def calendar() -> Calendar:
    return Calendar(START)


@pytest.fixture
def home(tmp_path: Path, calendar: Calendar) -> Iterator[Home]:
    made = make_home(tmp_path, calendar)
    yield made
    made.close()


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
