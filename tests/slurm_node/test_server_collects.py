"""A server that runs sacct itself: asks again what overlaps, records what is new, and tells what is in the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hourbook.applying import apply_files
from hourbook.collecting_schedule import ScheduledCollection
from hourbook.collecting_slurm import poll_slurm
from hourbook.database import create_home, read_session, run_write
from hourbook.settings import Home, Settings
from hourbook.slurm_node.asking import DAY, HOUR
from metering import store as metering
from metering.slurm_source import SlurmAccess
from tests.slurm_node.login_node import CLUSTER, LoginNode, row

FACTS = """
[operator]
id = "starlight"
name = "星河超算云"
[[clusters]]
name = "hpc1"
reports = "hourly"
[[collect]]
name = "hpc1 by sacct"
kind = "slurm"
cluster = "hpc1"
every_seconds = 60
options = {{ programs = "{programs}" }}
"""


@dataclass
class Site:
    home: Home
    node: LoginNode

    def poll(self) -> tuple[int, list[str]]:
        """How many events one look recorded, and what was in the way."""
        polled = poll_slurm(self.home, CLUSTER, SlurmAccess(programs=str(self.node.folder / "bin")))
        return sum(receipt.events for receipt in polled.receipts), polled.problems

    def cursor(self) -> metering.LogCursorRow:
        with read_session(self.home.engine) as session:
            (found,) = metering.log_cursors(session, f"slurm:{CLUSTER}")
            session.expunge_all()
            return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    node = LoginNode.set_up(tmp_path / "node")
    facts = tmp_path / "facts.toml"
    facts.write_text(FACTS.format(programs=node.folder / "bin"), encoding="utf-8")
    home = create_home(tmp_path / "home", settings=Settings(database_url=""))
    apply_files(home, [facts])
    yield Site(home, node)
    home.close()


def an_hour_ago() -> int:
    return int(time.time()) - HOUR


def test_what_overlaps_is_asked_again_and_recorded_once(site: Site) -> None:
    end = an_hour_ago()
    site.node.sacct_answers([row(1, end), row(2, end, State="RUNNING", End="Unknown", ElapsedRaw="600")])
    assert site.poll() == (2, [])
    site.node.sacct_answers([row(1, end), row(2, end, State="RUNNING", End="Unknown", ElapsedRaw="660"), row(3, end)])
    assert site.poll() == (1, [])  # the running one has hardly grown
    site.node.sacct_answers([row(1, end), row(2, end, State="RUNNING", End="Unknown", ElapsedRaw="4000"), row(3, end)])
    assert site.poll() == (1, [])
    assert site.node.asked()[0][0] <= time.time() - 2 * DAY  # twice the longest limit of the partitions
    assert site.node.asked()[-1][0] >= time.time() - 4 * HOUR


def test_from_zero_again_nothing_counts_twice(site: Site) -> None:
    site.node.sacct_answers([row(1, an_hour_ago())])
    assert site.poll() == (1, [])
    run_write(site.home.engine, lambda session: metering.forget_log_cursors(session, f"slurm:{CLUSTER}"))
    assert site.poll() == (1, [])  # recorded again, as a duplicate
    with read_session(site.home.engine) as session:
        assert [batch.events for batch in metering.inbox_batches(session)] == [1, 1]


def test_what_is_in_the_way_is_told_and_nothing_is_skipped(site: Site) -> None:
    site.node.sacct_answers([], code=1, says="sacct: error: slurmdbd is away")
    events, problems = site.poll()
    assert events == 0
    assert "slurmdbd is away" in problems[0]
    assert "slurmdbd is away" in site.cursor().problem
    site.node.sacct_answers([row(1, an_hour_ago())])
    assert site.poll() == (1, [])
    assert site.cursor().problem == ""


def test_each_hour_that_is_over_is_stated(site: Site) -> None:
    end = an_hour_ago() // HOUR * HOUR - HOUR // 2
    site.node.sacct_answers([row(1, end), row(2, end)])
    site.poll()
    with read_session(site.home.engine) as session:
        said = metering.latest_statements(session, end - 5 * HOUR, end + HOUR // 2, [CLUSTER])
        assert {one.hour_second: one.events for one in said}[end // HOUR * HOUR] == 2
        assert len(said) >= 5


def test_a_source_of_the_configuration_is_collected_by_the_schedule(site: Site) -> None:
    site.node.sacct_answers([row(1, an_hour_ago())])
    collection = ScheduledCollection(site.home)
    assert (collection(), collection()) == (1, 0)  # due once a minute
