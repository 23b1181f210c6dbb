"""The auditor counts usage by sums of its own, and comes to what the rollup has."""

from __future__ import annotations

from pathlib import Path

from hourbook.database import create_home, read_session
from hourbook.demo import CLOCK
from hourbook.importing import SlurmLog, import_slurm
from hourbook.reading import Reading
from hourbook.refreshing import current_pins
from hourbook.usage_audit import _plain_seconds
from tests.hourbook.cli_stories import COLUMNS, START


def row(cpus: int) -> str:
    times = f"{START}|{START}|{START + 3600}|3600|COMPLETED"
    return f"7|c1|cpu|normal|grp|li|{times}|1|{cpus}|billing={cpus},cpu={cpus},node=1|job"


def test_of_two_last_words_about_a_job_both_count_the_same_one(tmp_path: Path) -> None:
    # "10" stands before "2" as plain text: whoever compares so takes the other row.
    home = create_home(tmp_path / "home", CLOCK)
    for cpus in (2, 10):
        file = tmp_path / f"{cpus}.psv"
        file.write_text(f"{COLUMNS}\n{row(cpus)}\n", encoding="utf-8")
        import_slurm(home, [file], SlurmLog("c1"))
    with read_session(home.engine) as session:
        pins = current_pins(session)
        reading = Reading(home, session, pins, {})
        period = (START - START % 86_400, START - START % 86_400 + 86_400)
        rollup = reading.usage(reading.catalog(), "2026-11", "2026-11")
        plain, exact_cpu = _plain_seconds(home, pins, *period)
    counted = rollup.filter(rollup["resource"] == "cpu")["quantity"].sum()
    assert exact_cpu
    assert plain["cpu"] == counted == 10 * 3600
