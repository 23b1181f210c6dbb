"""Logs in the Standard Workload Format."""

from __future__ import annotations

import gzip
from fractions import Fraction
from pathlib import Path

import pytest

from metering.clusters import Cluster
from metering.collectors.common import LogFileError
from metering.collectors.swf import SwfOptions, read_swf
from metering.events import Collected

from .collecting import hours_in_all, only, quantities, refusal, statuses

OLD = Cluster(name="old")
ORIGIN = 843_480_031
HEADER = f"; Version: 2.2\n; UnixStartTime: {ORIGIN}\n"
ORDINARY = {"number": 15, "submit": 600, "wait": 30, "run": 3600, "allocated": 4, "requested": 8, "status": 1}
PLACES = {"number": 0, "submit": 1, "wait": 2, "run": 3, "allocated": 4, "requested": 7, "status": 10, "user": 11}


def line(**stated: int | str) -> str:
    """Return one job of an hour on four processors, but for what is stated."""
    fields: list[int | str] = [-1] * 18
    for name, value in {**ORDINARY, **stated}.items():
        fields[PLACES[name]] = value
    return "  " + " ".join(str(field) for field in fields) + "\n"


def read(*lines: str, options: SwfOptions | None = None) -> Collected:
    collected = read_swf((HEADER + "".join(lines)).encode(), cluster=OLD, options=options)
    assert collected.rows == len(lines)
    return collected


@pytest.mark.shared
def test_the_kth_log_gives_its_known_hours(shared_data: Path) -> None:
    log = (shared_data / "traces/swf/KTH-SP2-1996-2.1-cln.swf.gz").read_bytes()
    collected = read_swf(log, cluster=OLD)
    assert (collected.rows, collected.events.height) == (28_476, 28_475)
    assert [refused.code for refused in collected.rejected] == ["cpus_missing"]
    assert round(quantities(collected)["cpu"]) == 560_164
    assert round(hours_in_all(collected)["core_hours"]) == 560_164
    assert quantities(collected, collected) == quantities(collected)


@pytest.mark.shared
def test_multiplying_what_was_asked_for_gives_another_figure(shared_data: Path) -> None:
    log = gzip.decompress((shared_data / "traces/swf/KTH-SP2-1996-2.1-cln.swf.gz").read_bytes()).decode()
    jobs = [text.split() for text in log.splitlines() if not text.startswith(";")]
    requested = sum(int(job[3]) * int(job[7]) for job in jobs if int(job[7]) > 0)
    with_unknown = sum(int(job[3]) * int(job[4]) for job in jobs)
    assert round(Fraction(requested, 3600)) == 558_686
    ours = quantities(read_swf(log.encode(), cluster=OLD))["cpu"] * 3600
    assert ours == with_unknown + 1, "one job of a second held -1 processors: it is refused, not taken off"


@pytest.mark.shared
def test_the_nasa_log_gives_its_known_hours_once_its_submit_times_are_declared_starts(shared_data: Path) -> None:
    log = (shared_data / "traces/swf/NASA-iPSC-1993-3.1-cln.swf.gz").read_bytes()
    collected = read_swf(log, cluster=OLD, options=SwfOptions(submit_is_start=True))
    assert (collected.rows, collected.rejected) == (18_239, ())
    assert round(quantities(collected)["cpu"]) == 131_733
    undeclared = read_swf(log, cluster=OLD)
    assert {refused.code for refused in undeclared.rejected} == {"start_unknown"}
    assert len(undeclared.rejected) == 18_239


def test_a_job_starts_after_it_waited() -> None:
    event = only(read(line()))
    assert (event["start_second"], event["end_second"]) == (ORIGIN + 630, ORIGIN + 630 + 3600)
    assert (event["cpus"], event["id"]) == (4, f"15:{ORIGIN + 600}")


def test_bursts_of_a_job_are_not_added_to_it() -> None:
    collected = read(line(), line(status=2, run=1800), line(status=3, run=1800))
    assert collected.no_usage == {"part_of_a_job": 2}
    assert quantities(collected)["wall"] == 1


def test_a_job_cancelled_while_it_waited_is_no_usage() -> None:
    assert read(line(status=5, wait=-1, run=-1)).no_usage == {"never_started": 1}


@pytest.mark.parametrize(
    ("stated", "code"),
    [
        ({"wait": -1}, "start_unknown"),
        ({"run": -1}, "duration_unknown"),
        ({"allocated": -1}, "cpus_missing"),
        ({"status": 9}, "unknown_state"),
        ({"run": "1.5"}, "broken_row"),
        ({"user": ""}, "broken_row"),
    ],
)
def test_what_is_not_known_is_refused_not_guessed(stated: dict[str, int | str], code: str) -> None:
    assert refusal(read(line(**stated))).code == code


def test_times_need_the_instant_they_count_from() -> None:
    with pytest.raises(LogFileError, match="UnixStartTime"):
        read_swf(line().encode(), cluster=OLD)
    collected = read_swf(line().encode(), cluster=OLD, options=SwfOptions(unix_start_time=ORIGIN))
    assert statuses(collected, read(line())) == {"kept": 1, "duplicate": 1}
