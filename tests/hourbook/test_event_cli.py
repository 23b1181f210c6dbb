"""Following and mending events at the command line, statements, gaps and runaways, as a person types it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from metering.statement_sums import checksum
from tests.homes import NewHome
from tests.hourbook.cli_stories import COLUMNS, START, Terminal, sacct_file, sacct_row

CLOCK = datetime.fromisoformat("2026-12-01T10:00:00+08:00")
JOB = ("slurm:hpc1", f"7:{START}")
WHY = ("--reason", "ticket 88", "--by", "lin")


@pytest.fixture
def hourbook(new_home: NewHome, tmp_path: Path) -> Terminal:
    """A terminal with one job of four CPUs for an hour, and one that runs beyond its limit."""
    new_home(tmp_path / "home", CLOCK)
    terminal = Terminal(tmp_path / "home")
    limit = {"State": "RUNNING", "End": "Unknown", "ElapsedRaw": 90_000}
    rows = [f"{sacct_row(7)}|", f"{sacct_row(8, limit)}|"]
    header, tail = COLUMNS.replace("|JobName", "|TimelimitRaw|JobName"), "|60|run|"
    rows = [row.replace("|run|", tail).rstrip("|") for row in rows]
    terminal.done("import", "slurm", sacct_file(tmp_path / "log.psv", rows, header=header), "--cluster", "hpc1")
    return terminal


def core_hours(hourbook: Terminal) -> str:
    days = ("--from", "2026-11-01", "--to", "2026-11-30")
    return hourbook.done("usage", *days, "--format", "csv").rows()[0]["core_hours"]


def test_an_event_is_amended_reverted_and_shown(hourbook: Terminal) -> None:
    before = core_hours(hourbook)
    preview = hourbook.done("event", "amend", *JOB, "--set", "cpus=1", *WHY)
    assert "4.000000 → 1.000000" in preview.out
    assert "nothing was recorded" in preview.err
    assert core_hours(hourbook) == before
    hourbook.done("event", "amend", *JOB, "--set", "cpus=1", *WHY, "--yes")
    assert float(core_hours(hourbook)) == float(before) - 3
    shown = hourbook.done("event", "show", *JOB, "--format", "json").json()
    rows = next(table["rows"] for table in shown if table["table"] == "revisions")
    assert [(row["status"], row["by"], row["reason"]) for row in rows] == [
        ("held_by_word", "", ""),
        ("kept", "lin", "ticket 88"),
    ]
    assert "held by a word of the operator" in hourbook.done("event", "show", *JOB).out
    hourbook.done("event", "revert", *JOB, *WHY, "--yes")
    assert core_hours(hourbook) == before
    assert "word 2" in hourbook.done("event", "show", *JOB).out


def test_an_event_is_found_by_the_date_on_which_it_starts(hourbook: Terminal) -> None:
    shown = hourbook.done("event", "show", *JOB, "--format", "json").json()
    assert hourbook.done("event", "show", *JOB, "--date", "2026-11-01", "--format", "json").json() == shown
    assert "no event" in hourbook("event", "show", *JOB, "--date", "2026-11-02").err
    assert hourbook("event", "show", *JOB, "--date", "yesterday").code == 2


def test_a_month_of_which_nothing_is_expected_is_not_called_without_gaps(hourbook: Terminal, tmp_path: Path) -> None:
    facts = tmp_path / "facts.toml"
    facts.write_text('[[clusters]]\nname = "hpc1"\n', encoding="utf-8")
    hourbook.done("apply", facts)
    told = hourbook.done("gaps", "--month", "2026-11").out
    assert "no statement is expected of any cluster" in told
    assert 'reports = "hourly"' in told
    assert "no gap" not in told


def test_statements_of_a_cluster_that_is_not_described_are_named(hourbook: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "said.json"
    said = {"cluster": "hcp1", "source": "slurm:hpc1", "hour": "2026-11-30T03:00:00Z", "events": 0}
    file.write_text(json.dumps(said), encoding="utf-8")
    for answer in (hourbook.done("statement", "import", file), hourbook.done("gaps", "--month", "2026-11")):
        assert "cluster hcp1 is not described" in answer.err
    assert "hcp1" not in hourbook.done("gaps", "--month", "2026-10").err


def test_what_cannot_be_said_is_refused_in_words(hourbook: Terminal) -> None:
    unknown = hourbook("event", "retract", "slurm:hpc1", "9:9", *WHY)
    assert (unknown.code, "no event '9:9'" in unknown.err) == (1, True)
    assert hourbook("event", "amend", *JOB, "--set", "start=1", *WHY).code == 1
    assert hourbook("event", "amend", *JOB, "--set", "cpus", *WHY).code == 2
    assert hourbook("event", "retract", *JOB, "--reason", " ", "--by", "lin").code == 2
    assert hourbook("runaways", "accept", *WHY).code == 2


def test_usage_that_no_log_holds_is_backfilled_from_events_or_a_table(hourbook: Terminal, tmp_path: Path) -> None:
    before = float(core_hours(hourbook))
    table = tmp_path / "lost.csv"
    table.write_text("job,begin,end,cores\n1,1793520000,1793523600,10\n", encoding="utf-8")
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        'id = ["job"]\ntime_format = "epoch"\n[fields]\nstart = "begin"\nend = "end"\ncpus = "cores"\n',
        encoding="utf-8",
    )
    words = ("event", "backfill", table, "--cluster", "hpc1", "--options", mapping, *WHY)
    assert "1 event(s) would be recorded" in hourbook.done(*words).out
    assert core_hours(hourbook) == f"{before:.6f}"
    hourbook.done(*words, "--yes")
    assert float(core_hours(hourbook)) == before + 10
    assert "recorded already" in hourbook(*words, "--yes").err
    assert hourbook("event", "backfill", table, *WHY).code == 2


def test_gaps_are_shown_as_a_calendar_and_waived(hourbook: Terminal, tmp_path: Path) -> None:
    facts = tmp_path / "facts.toml"
    facts.write_text('[[clusters]]\nname = "hpc1"\nreports = [{ effective_from = 2026-11-30 }]\n', encoding="utf-8")
    hourbook.done("apply", facts)
    said = [
        {"cluster": "hpc1", "source": "slurm:hpc1", "hour": f"2026-11-30T{hour:02}:00:00Z", "events": 0}
        for hour in range(15)
    ]
    said[3] |= {"events": 1, "checksum": checksum([("slurm:hpc1", "9:9", 1)])}
    file = tmp_path / "said.json"
    file.write_text(json.dumps(said), encoding="utf-8")
    assert "15 new" in hourbook.done("statement", "import", file).out
    assert "0 new" in hourbook.done("statement", "import", file).out
    calendar = hourbook.done("gaps", "--month", "2026-11")
    assert "2026-11-30  ooo<oooooooooooX" in calendar.out
    assert "2 hour(s) of 2026-11 are not accounted for" in calendar.out
    rows = hourbook.done("gaps", "--month", "2026-11", "--format", "csv").rows()
    assert [(row["state"], row["hours"]) for row in rows][1:] == [
        ("quiet", "3"),
        ("too_few", "1"),
        ("quiet", "11"),
        ("missing", "1"),
    ]
    hours = ("--from", "2026-11-30T00:00:00Z", "--to", "2026-12-01T00:00:00Z")
    hourbook.done("gaps", "waive", "hpc1", *hours, *WHY)
    assert "2026-11: no gap" in hourbook.done("gaps", "--month", "2026-11").out
    assert hourbook("gaps", "waive", "hpc1", *hours, *WHY).code == 1


def test_the_help_shows_how_a_command_is_typed(hourbook: Terminal) -> None:
    told = hourbook.done("runaways", "accept", "--help").out
    assert "[SOURCE] [ID]" in told
    assert "[[" not in told
    assert "--options" in hourbook.done("collect", "csv", "--help").out.partition("Example:")[2]


def test_runaways_are_listed_and_accepted(hourbook: Terminal) -> None:
    (row,) = hourbook.done("runaways", "list", "--format", "csv").rows()
    assert (row["kind"], row["id"], row["waived"]) == ("runaway", f"8:{START}", "")
    hourbook.done("runaways", "accept", row["source"], row["id"], *WHY)
    (row,) = hourbook.done("runaways", "list", "--format", "csv").rows()
    assert row["waived"] == "lin: ticket 88"


def test_statements_that_cannot_be_read_are_refused_whole(hourbook: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "said.json"
    file.write_text('{"cluster": "hpc1", "source": "s", "hour": "2026-11-30T00:10:00Z", "events": 0}', encoding="utf-8")
    answer = hourbook("statement", "import", file)
    assert (answer.code, "no full hour" in answer.err) == (1, True)
