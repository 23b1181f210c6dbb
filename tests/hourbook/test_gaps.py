"""Hours that a sender states against what arrived: gaps block the close by name until they are filled or waived."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from base.period import Period
from hourbook.completeness import NoGapError, check_hours, month_hours, state_hours, waive
from hourbook.database import read_session
from metering.completeness import HourCheck, State, Statement
from metering.statement_sums import checksum
from tests.hourbook.month_stories import Operator, Run, codes

NOVEMBER = "2026-11"
REPORTS = """
[[clusters]]
name = "hpc1"
timezone = "Asia/Shanghai"
partitions = ["cpu"]
reports = [{ every = "hour", effective_from = 2026-11-30 }]
"""
# hpc1 reports from 30 November, 0:00 UTC on; the month ends at 16:00 UTC in Shanghai.
FIRST = datetime(2026, 11, 30, tzinfo=UTC)
JOB = Run("j-1", "llm", "2026-11-30T11:30", core_hours=10)  # ends at 4:30 UTC


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    operator = Operator(tmp_path)
    operator.at("2026-12-01T10:00")
    operator.apply(REPORTS)
    operator.used(Run("j-0", "llm", "2026-11-03T08:00", core_hours=10))
    return operator


def state(operator: Operator, hour: int, *events: tuple[str, str, int], source: str = "stories") -> int:
    """Let the sender state what ended in an hour of 30 November."""
    said = Statement(
        cluster="hpc1",
        source=source,
        hour=FIRST + timedelta(hours=hour),
        events=len(events),
        checksum=checksum(events),
    )
    return state_hours(operator.home, [said], "key 1")


def state_quiet(operator: Operator, hours: range = range(16)) -> None:
    for hour in hours:
        state(operator, hour)


def day(operator: Operator) -> list[HourCheck]:
    with read_session(operator.home.engine) as session:
        checks = check_hours(operator.home, session, month_hours(session, NOVEMBER), "hpc1")
    return [check for check in checks if check.hour >= FIRST]


def states(operator: Operator) -> list[State]:
    return [check.state for check in day(operator)]


def test_every_hour_must_be_stated_from_the_day_on_which_the_cluster_reports(operator: Operator) -> None:
    assert states(operator) == ["missing"] * 16
    assert codes(operator.blocked(NOVEMBER)) == ["gap"]
    state_quiet(operator, range(15))
    assert states(operator) == ["quiet"] * 15 + ["missing"]
    (blocked,) = operator.blocked(NOVEMBER)
    assert blocked[1].endswith(
        "hourbook gaps waive hpc1 --from 2026-11-30T15:00:00Z --to 2026-11-30T16:00:00Z --reason TEXT --by NAME"
    )
    state(operator, 15)
    assert operator.blocked(NOVEMBER) == []


def test_a_cluster_that_does_not_report_is_never_missed(operator: Operator) -> None:
    with read_session(operator.home.engine) as session:
        checks = check_hours(operator.home, session, month_hours(session, NOVEMBER))
    assert {check.state for check in checks if check.cluster == "ai1"} == {"not_expected"}
    assert {check.state for check in checks if check.hour < FIRST} == {"not_expected"}


def test_an_hour_is_complete_once_everything_stated_has_arrived(operator: Operator) -> None:
    state_quiet(operator)
    state(operator, 4, ("stories", "j-1", 1))
    assert states(operator)[4] == "too_few"
    operator.used(JOB)
    assert states(operator)[4] == "complete"
    assert [check.arrived for check in day(operator)][4] == 1


def test_another_attempt_or_an_earlier_revision_does_not_pass_for_what_was_stated(operator: Operator) -> None:
    operator.used(JOB)
    state_quiet(operator)
    for other in (("stories", "j-2", 1), ("stories", "j-1", 2)):
        state(operator, 4, other)
        assert states(operator)[4] == "differs"
    state(operator, 4)  # more arrived than the sender knows of
    assert states(operator)[4] == "differs"


def test_a_correction_of_a_stated_attempt_breaks_no_earlier_statement(operator: Operator) -> None:
    operator.used(JOB)
    state_quiet(operator)
    state(operator, 4, ("stories", "j-1", 1))
    operator.used(Run("j-1", "llm", "2026-11-30T11:30", core_hours=20, revision=2))
    assert states(operator)[4] == "complete"
    state(operator, 4, ("stories", "j-1", 2))
    assert states(operator)[4] == "complete"


def test_the_last_statement_of_an_hour_counts_and_a_repeat_changes_nothing(operator: Operator) -> None:
    assert state(operator, 4) == 1
    assert state(operator, 4) == 0
    assert state(operator, 4, ("stories", "j-1", 1)) == 1
    operator.used(JOB)
    assert states(operator)[4] == "complete"


def test_each_source_that_must_report_is_missed_by_name(operator: Operator) -> None:
    operator.apply(REPORTS.replace("2026-11-30 }", '2026-11-30, sources = ["stories", "storage"] }'))
    state(operator, 0)
    assert (day(operator)[0].state, day(operator)[0].silent) == ("missing", ("storage",))
    state(operator, 0, source="storage")
    assert day(operator)[0].state == "quiet"


def test_a_waiver_lasts_until_something_else_is_stated(operator: Operator) -> None:
    state_quiet(operator)
    state(operator, 4, ("stories", "j-1", 1))
    hour = Period(FIRST + timedelta(hours=4), FIRST + timedelta(hours=5))
    waive(operator.home, "hpc1", hour, reason="the job never ran", by="lin")
    assert states(operator)[4] == "waived"
    assert operator.blocked(NOVEMBER) == []
    state(operator, 4, ("stories", "j-1", 1), ("stories", "j-2", 1))
    assert states(operator)[4] == "too_few"


def test_there_is_nothing_to_waive_where_nothing_is_missing(operator: Operator) -> None:
    state_quiet(operator)
    with pytest.raises(NoGapError):
        waive(operator.home, "hpc1", Period(FIRST, FIRST + timedelta(hours=4)), reason="why", by="lin")


def test_an_hour_that_is_not_over_is_not_missing(operator: Operator) -> None:
    operator.at("2026-11-30T20:30")  # 12:30 UTC
    assert states(operator) == ["missing"] * 12 + ["not_yet"] * 4
