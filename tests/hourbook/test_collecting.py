"""Following logs: whatever becomes of the files between two polls, everything in them counts once."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hourbook.collecting import forget, poll_log
from hourbook.crash import CRASH_VARIABLE
from hourbook.database import create_home, open_home, read_session
from hourbook.settings import DATABASE_FILE, Home, Settings
from metering import store as metering
from metering.collectors.registry import OptionsError
from tests.homes import NewHome, Templates

from .log_stories import (
    CLOCK,
    append,
    cores,
    followed,
    lines_of_events,
    pbs,
    poll,
    rows_recorded,
    usage,
)

ROOT = Path(__file__).resolve().parents[2]
MAPPING = """
id = ["job"]
[fields]
start = "begin"
end = "finish"
cpus = "cores"
account = "who"
"""
CSV_TIMES = 'time_format = "%Y-%m-%dT%H:%M:%S%z"\n' + MAPPING
HEADER = "job,who,begin,finish,cores\n"


def csv_row(job: str, cpus: int = 1) -> str:
    return f"{job},grp,2026-11-02T08:00:00+0800,2026-11-02T10:00:00+0800,{cpus}\n"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = create_home(tmp_path / "home", CLOCK, settings=Settings(database_url=""))
    yield made
    made.close()


# Growing


def test_what_a_log_has_grown_by_counts_at_the_next_poll_and_nothing_is_read_twice(
    new_home: NewHome, tmp_path: Path
) -> None:
    home, file = new_home(tmp_path / "home", CLOCK), tmp_path / "20261122"
    append(file, pbs(1) + pbs(2))
    assert len(poll(home, followed(file)).receipts) == 1
    assert poll(home, followed(file)).receipts == []
    append(file, pbs(3, cpus=4))
    poll(home, followed(file))
    assert (cores(home), rows_recorded(home), lines_of_events(home)) == ({"1": 1, "2": 1, "3": 4}, 3, [1, 2, 3])


def test_a_half_written_last_line_waits_until_it_is_whole(home: Home, tmp_path: Path) -> None:
    file, line = tmp_path / "20261122", pbs(2, seconds=7200)
    for end in range(0, len(line), 7):
        file.write_text(pbs(1) + line[:end], encoding="utf-8")
        poll(home, followed(file))
        assert cores(home) == {"1": 1}, "half a record may look like a whole one with another end"
    append(file.with_name("other"), "")
    file.write_text(pbs(1) + line, encoding="utf-8")
    poll(home, followed(file))
    assert cores(home) == {"1": 1, "2": 1}
    assert rows_recorded(home) == 2


@contextmanager
def bytes_read() -> Iterator[list[int]]:
    """Count what this process reads from any file meanwhile."""

    def count() -> int:
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text("ascii").splitlines())
        return int(fields["rchar"])

    before, found = count(), [0]
    yield found
    found[0] = count() - before


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of what a process reads")
def test_a_poll_costs_what_changed_and_not_what_is_there(home: Home, tmp_path: Path) -> None:
    file = append(
        tmp_path / "20261122", "".join(f"11/22/2026 01:00:00;Q;{n}.srv;queue=workq\n" for n in range(100_000))
    )
    assert file.stat().st_size > 4_000_000
    poll(home, followed(file))
    append(file, pbs(1))
    with bytes_read() as found:
        poll(home, followed(file))
    assert rows_recorded(home) == 100_001
    assert found[0] < 1_000_000


# Rotation


def test_a_log_that_is_renamed_and_begun_anew_is_read_on_under_its_new_name(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "acct"
    folder.mkdir()
    append(folder / "acct", pbs(1))
    poll(home, followed(folder))
    append(folder / "acct", pbs(2)).rename(folder / "acct.1")
    append(folder / "acct", pbs(3))
    poll(home, followed(folder))
    assert (sorted(cores(home)), rows_recorded(home)) == (["1", "2", "3"], 3)


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz"])
def test_a_log_that_is_packed_when_it_is_full_is_read_on_inside(home: Home, tmp_path: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    folder = tmp_path / "acct"
    folder.mkdir()
    append(folder / "acct.1", pbs(1) * 1000)
    poll(home, followed(folder))
    append(folder / "acct.1", pbs(2) + pbs(3).rstrip("\n"))
    subprocess.run([program, str(folder / "acct.1")], check=True)
    poll(home, followed(folder))
    poll(home, followed(folder))
    assert (sorted(cores(home)), rows_recorded(home)) == (["1", "2", "3"], 1002)


def test_a_log_that_is_copied_and_cut_to_nothing_counts_once(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "acct"
    folder.mkdir()
    file = append(folder / "acct", pbs(1) + pbs(2))
    poll(home, followed(folder))
    shutil.copy(file, folder / "acct.1")
    file.write_text(pbs(3), encoding="utf-8")
    poll(home, followed(folder))
    assert sorted(cores(home)) == ["1", "2", "3"]


def test_a_file_that_was_replaced_by_another_is_read_from_its_start(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "acct"
    file.write_text(pbs(1) + pbs(2), encoding="utf-8")
    poll(home, followed(file))
    file.write_text(pbs(7) + pbs(2) + pbs(8) + pbs(9), encoding="utf-8")
    poll(home, followed(file))
    assert sorted(cores(home)) == ["1", "2", "7", "8", "9"]


# What is remembered


def test_a_lost_cursor_costs_a_second_reading_and_changes_nothing(home: Home, tmp_path: Path) -> None:
    file = append(tmp_path / "acct", "".join(pbs(n) for n in range(5)))
    poll(home, followed(file))
    before = usage(home)
    assert forget(home, followed(file)) == 1
    poll(home, followed(file))
    assert (usage(home), rows_recorded(home)) == (before, 10)


def test_two_collectors_of_one_log_at_once_count_it_once(home: Home, tmp_path: Path) -> None:
    file = append(tmp_path / "acct", pbs(1))
    poll(home, followed(file))
    twin = tmp_path / "link"
    twin.symlink_to(file)
    append(file, pbs(2))
    poll(home, followed(file))
    poll(home, followed(twin))
    assert (sorted(cores(home)), rows_recorded(home)) == (["1", "2"], 2)


# What goes wrong


def test_a_file_that_cannot_be_read_is_told_and_stops_no_other(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "acct"
    folder.mkdir()
    whole = gzip.compress((pbs(1) * 500).encode())
    (folder / "a.gz").write_bytes(whole[: len(whole) // 2])
    append(folder / "b", pbs(2))
    polled = poll_log(home, followed(folder, tmp_path / "nowhere"))
    assert len(polled.problems) == 2
    assert any("a.gz" in problem and "being written" in problem for problem in polled.problems)
    assert any("nowhere is not there" in problem for problem in polled.problems)
    assert cores(home) == {"2": 1}
    with read_session(home.engine) as session:
        assert [bool(cursor.problem) for cursor in metering.log_cursors(session)] == [True, False]
    (folder / "a.gz").write_bytes(whole)
    poll(home, followed(folder))
    assert cores(home) == {"1": 1, "2": 1}
    with read_session(home.engine) as session:
        assert [cursor.problem for cursor in metering.log_cursors(session)] == ["", ""]


def test_a_broken_row_is_quarantined_with_its_line_in_the_file(home: Home, tmp_path: Path) -> None:
    file = append(tmp_path / "acct", pbs(1) + pbs(2))
    poll(home, followed(file))
    append(file, pbs(3) + "rest of a record\n")
    poll(home, followed(file))
    with read_session(home.engine) as session:
        (entry,) = metering.quarantine(session)
        assert (entry.code, entry.line, entry.raw) == ("broken_row", 4, b"rest of a record")


def test_blank_lines_are_no_file_to_refuse(home: Home, tmp_path: Path) -> None:
    file = append(tmp_path / "acct", pbs(1))
    poll(home, followed(file))
    append(file, "\n\n")
    poll(home, followed(file))
    append(file, pbs(2))
    poll(home, followed(file))
    assert (sorted(cores(home)), lines_of_events(home)) == (["1", "2"], [1, 4])


# Logs with something in front


def test_a_csv_file_is_read_on_under_its_header_with_line_breaks_in_quotes(home: Home, tmp_path: Path) -> None:
    file, log = tmp_path / "jobs.csv", followed(tmp_path / "jobs.csv", kind="csv", options=CSV_TIMES)
    append(file, HEADER[:7])
    poll(home, log)
    append(file, HEADER[7:] + csv_row('"two\nlines"', 2) + '"half a\n')
    poll(home, log)
    assert cores(home) == {"two\nlines": 2}
    append(file, csv_row('record"', 3) + csv_row("plain", 4))
    poll(home, log)
    assert cores(home) == {"two\nlines": 2, "half a\nrecord": 3, "plain": 4}
    assert lines_of_events(home) == [2, 4, 6]


def test_a_csv_file_whose_equal_records_are_numbered_is_not_followed(tmp_path: Path) -> None:
    log = followed(tmp_path / "jobs.csv", kind="csv", options='repeats = "counted"\n' + CSV_TIMES)
    with pytest.raises(OptionsError, match="whole"):
        log.cutting()


def test_a_workload_log_is_read_on_by_the_time_that_its_header_states(home: Home, tmp_path: Path) -> None:
    file, log = tmp_path / "log.swf", followed(tmp_path / "log.swf", kind="swf")
    row = "{} 0 10 3600 4 -1 -1 4 -1 -1 1 7 8 -1 1 1 -1 -1\n"
    append(file, "; UnixStartTime: 1795276800\n;\n" + row.format(1))
    poll(home, log)
    append(file, "; a remark\n" + row.format(2))
    poll(home, log)
    assert [event.split(":") for event in usage(home)] == [["1", "1795276800"], ["2", "1795276800"]]
    assert lines_of_events(home) == [3, 5]


# Any cutting


LINES = [pbs(1), pbs(1, seconds=4000), pbs(2), "\n", "not a record\n", pbs(3).replace(";E;", ";S;"), pbs(4, cpus=9)]


@settings(max_examples=25, deadline=None)
@given(
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=12),
    cuts=st.lists(st.floats(0, 1), max_size=5),
    renamed=st.booleans(),
)
def test_however_a_log_arrives_it_says_the_same(
    templates: Templates, lines: list[str], cuts: list[float], *, renamed: bool
) -> None:
    whole = "".join(lines).encode()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "home").mkdir()
        shutil.copy(templates.sqlite(CLOCK), folder / "home" / DATABASE_FILE)
        home = open_home(folder / "home", settings=Settings(database_url=""))
        try:
            (folder / "acct").mkdir()
            (folder / "whole").write_bytes(whole)
            places = sorted(round(cut * len(whole)) for cut in cuts)
            for at, (first, end) in enumerate(zip([0, *places], [*places, len(whole)], strict=True)):
                append(folder / "acct" / "log", whole[first:end])
                poll(home, followed(folder / "acct"))
                if renamed and at == 0 and first < end:
                    (folder / "acct" / "log").rename(folder / "acct" / "moved")
                    (folder / "acct" / "moved").rename(folder / "acct" / "log")
            rows = rows_recorded(home)
            before = usage(home) if rows else {}
            poll(home, followed(folder / "whole"))
            assert rows == rows_recorded(home), "the whole file is the same log under another name"
            forget(home, followed())
            poll(home, followed(folder / "whole"))
            assert rows_recorded(home) == 2 * rows == 2 * sum(1 for line in lines if line.strip())
            assert (usage(home) if rows else {}) == before
        finally:
            home.close()


# A kill at any moment

FOLLOWER = """
import sys
from pathlib import Path
from hourbook.collecting import FollowedLog, poll_log
from hourbook.database import open_home
from hourbook.importing import OtherLog
from hourbook.settings import Settings
from metering.collectors.registry import COLLECTORS
home = open_home(Path(sys.argv[1]), settings=Settings(database_url=""))
poll_log(home, FollowedLog(OtherLog(COLLECTORS["pbs"], "hpc2"), (Path(sys.argv[2]),)))
"""


@pytest.mark.parametrize(("point", "recorded"), [("collect:before_commit", 1), ("collect:after_commit", 2)])
def test_a_collector_that_is_killed_starts_over_where_it_stood(
    home: Home, tmp_path: Path, point: str, recorded: int
) -> None:
    file = append(tmp_path / "acct", pbs(1))
    poll(home, followed(file))
    append(file, pbs(2))
    killed = subprocess.run(
        [sys.executable, "-c", FOLLOWER, str(home.path), str(file)],
        cwd=ROOT,
        env={**os.environ, CRASH_VARIABLE: point},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert rows_recorded(home) == recorded
    poll(home, followed(file))
    assert (sorted(cores(home)), rows_recorded(home)) == (["1", "2"], 2)
