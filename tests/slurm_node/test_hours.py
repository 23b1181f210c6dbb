"""What a collector states of an hour is what the server finds in it, attempt by attempt."""

from __future__ import annotations

import ast
import sys
import time
from pathlib import Path

import pytest

from hourbook import slurm_node
from hourbook.slurm_node.asking import DAY, FIELDS, HOUR, duration, header
from hourbook.slurm_node.hours import ended_attempt, event_sum, statements
from hourbook.slurm_node.windows import Rhythm, due_windows, lookback_for
from metering.clusters import Cluster
from metering.collectors.slurm import read_sacct
from metering.completeness import Statement, arrived
from metering.statement_sums import event_sum as servers_sum
from tests.metering.collecting import lake_rows
from tests.slurm_node.login_node import CLUSTER, row

NOON = 1_795_305_600  # a full hour
MARK = "~mark~"
ROWS = [
    row(1, NOON + 10),
    row(2, NOON + 3599, Suspended="00:01:40", ElapsedRaw="500"),
    row(3, NOON + 3600),  # in the next hour
    row(4, NOON + 20, State="CANCELLED by 1001", Start="Unknown", NodeList="None assigned", ElapsedRaw="0"),
    row(5, NOON + 20, State="RUNNING", End="Unknown"),
    row(6, NOON + 30, State="REVOKED"),
    row(7, NOON + 40, seconds=0, State="FAILED", ExitCode="1:0"),  # held a node, for less than a second
    row(8, NOON + 50, seconds=0, State="CANCELLED", NodeList=""),  # never did
    row(9, NOON + 60, State="RESIZING"),
    row(10, NOON + 70, State="REQUEUED"),
    row(11, NOON + 80, State="PENDING", NodeList="None assigned"),
    row(12, NOON + 90, State="COMPLETING"),
    row(13, NOON + 100, Suspended="1-00:00:00", Start=str(NOON - 2 * DAY), Submit=str(NOON - 2 * DAY)),
]


def test_what_is_stated_of_each_hour_is_what_arrives_of_it() -> None:
    attempts: dict[str, tuple[int, int]] = {}
    for one in ROWS:
        if found := ended_attempt(list(one.values())):
            attempts[found[0]] = found[1:]
    said = [Statement.model_validate(one) for one in statements(CLUSTER, (NOON, NOON + 2 * HOUR), attempts)]
    text = header(MARK) + b"".join(MARK.join(one.values()).encode() + b"\n" for one in ROWS)
    collected = read_sacct(text, cluster=Cluster(name=CLUSTER), delimiter=MARK)
    assert not collected.rejected
    found_there = arrived(lake_rows(collected))
    assert [(one.events, one.checksum) for one in said] == [
        (there.events, there.checksum)
        for there in (found_there[CLUSTER, f"slurm:{CLUSTER}", one.hour_second] for one in said)
    ]
    assert [one.events for one in said] == [6, 1]


def test_an_hour_without_jobs_is_stated_too_and_one_that_is_not_over_is_not() -> None:
    said = statements(CLUSTER, (NOON - HOUR // 2, NOON + 3 * HOUR - 1), {})
    assert [(one["hour"], one["events"]) for one in said] == [
        (time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime(NOON + hour * HOUR)), 0) for hour in (0, 1)
    ]


@pytest.mark.parametrize("event_id", ["1:1", "12345678:1795305600", "1234567890123456:1795305600", ""])
def test_both_sides_reckon_the_same_checksum(event_id: str) -> None:
    assert event_sum("slurm:hpc1", event_id, 2**40 + 77) == servers_sum("slurm:hpc1", event_id, 2**40 + 77)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93_784), ("02:03:04", 7384), ("03:04", 184), ("90", 90), ("infinite", None), ("", None)],
)
def test_durations_are_read_as_slurm_writes_them(text: str, seconds: int | None) -> None:
    assert duration(text) == seconds


def test_windows_overlap_reach_back_when_a_sweep_is_due_and_leave_no_second_out() -> None:
    rhythm, now = Rhythm(lookback=3 * DAY), NOON + 1234
    assert due_windows({"pulled_until": NOON, "swept_at": NOON}, now, rhythm) == [(NOON - 2 * HOUR, now)]
    swept = due_windows({"pulled_until": NOON, "swept_at": NOON - DAY}, now, rhythm)
    assert (swept[0][0], swept[-1][1]) == ((now - 3 * DAY) // HOUR * HOUR, now)
    assert [end for _, end in swept[:-1]] == [begin for begin, _ in swept[1:]]
    assert due_windows({}, now, rhythm) == swept  # nothing is remembered
    down_for_days = due_windows({"pulled_until": NOON - 9 * DAY, "swept_at": NOON - 9 * DAY}, now, rhythm)
    assert down_for_days[0][0] == NOON - 9 * DAY - 2 * HOUR
    assert (
        due_windows({"pulled_until": NOON, "swept_at": NOON}, now, rhythm, since=NOON - 30 * DAY)[0][0]
        == NOON - 30 * DAY
    )


def test_rows_are_asked_for_again_for_twice_as_long_as_jobs_may_run() -> None:
    assert lookback_for(7 * DAY) == 14 * DAY
    assert lookback_for(HOUR) == 2 * DAY
    assert lookback_for(None) == 30 * DAY


def test_no_free_text_stands_before_the_last_column() -> None:
    assert FIELDS[-1] == "JobName"
    assert not {"Comment", "AdminComment", "SubmitLine", "WorkDir"} & set(FIELDS)


@pytest.mark.parametrize("module", sorted(Path(slurm_node.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_the_program_asks_for_nothing_but_python_3_9(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"), feature_version=(3, 9))
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            assert {name.name.partition(".")[0] for name in statement.names} <= sys.stdlib_module_names
        if isinstance(statement, ast.ImportFrom) and statement.level == 0:
            assert (statement.module or "").partition(".")[0] in sys.stdlib_module_names
