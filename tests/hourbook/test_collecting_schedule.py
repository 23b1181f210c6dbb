"""Collecting by itself: what the configuration names is followed by the server, and by commands."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hourbook.applying import ConfigurationRefusedError, apply_files
from hourbook.collecting_schedule import ScheduledCollection
from hourbook.database import create_home, read_session
from hourbook.settings import Home, Settings
from metering import store as metering

from .cli_stories import fresh
from .job_stories import wait_until
from .kube_stories import make_cluster, node, pod
from .log_stories import CLOCK, append, cores, pbs, rows_recorded

ROOT = Path(__file__).resolve().parents[2]
SOURCE = """
[[collect]]
name = "pbs of hpc2"
kind = "pbs"
cluster = "hpc2"
paths = ["{folder}"]
every_seconds = 60
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = create_home(tmp_path / "home", CLOCK, settings=Settings(database_url=""))
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "accounting"
    made.mkdir()
    return made


def configure(home: Home, text: str) -> None:
    file = home.path.parent / "collect.toml"
    file.write_text(text, encoding="utf-8")
    apply_files(home, [file])


def test_each_source_is_looked_at_when_its_time_has_come(home: Home, folder: Path) -> None:
    now = [0.0]
    collection = ScheduledCollection(home, clock=lambda: now[0])
    assert collection() == 0, "nothing is configured"
    append(folder / "20261122", pbs(1))
    configure(home, SOURCE.format(folder=folder))
    assert collection() == 1
    append(folder / "20261122", pbs(2))
    now[0] = 59
    assert collection() == 0
    now[0] = 60
    assert collection() == 1
    assert sorted(cores(home)) == ["1", "2"]
    append(folder / "20261122", pbs(3))
    configure(home, SOURCE.format(folder=folder) + "enabled = false\n")
    now[0] = 600
    assert collection() == 0


def test_what_cannot_be_read_is_logged_once_and_stops_no_other_source(
    home: Home, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    append(folder / "20261122", pbs(1))
    missing = SOURCE.format(folder="/nowhere/at/all").replace("pbs of hpc2", "a first")
    nobody = '[[collect]]\nname = "pods"\nkind = "kubernetes"\ncluster = "ai1"\nkubeconfig = "/nowhere/kubeconfig"\n'
    configure(home, missing + nobody + SOURCE.format(folder=folder))
    now = [0.0]
    collection = ScheduledCollection(home, clock=lambda: now[0])
    with caplog.at_level(logging.ERROR, "hourbook.collecting_schedule"):
        assert collection() == 1
        now[0] = 100
        assert collection() == 0
    assert caplog.text.count("/nowhere/at/all is not there") == 1
    assert caplog.text.count("/nowhere/kubeconfig") == 1
    assert cores(home) == {"1": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('paths = ["{folder}"]', 'paths = ["acct"]'), "absolute"),
        (('paths = ["{folder}"]', ""), "paths"),
        (('kind = "pbs"', 'kind = "kubernetes"'), "kubeconfig"),
        (('kind = "pbs"', 'kind = "csv"'), "needs options"),
        (('kind = "pbs"', 'kind = "cobol"'), "kind"),
        (("every_seconds = 60", 'timezone = "Mars/Base"'), "no time zone"),
        (("every_seconds = 60", 'options = { account_from = "nobody" }'), "account_from"),
    ],
)
def test_a_source_that_could_not_be_read_is_refused_before_it_is_recorded(
    home: Home, folder: Path, change: tuple[str, str], message: str
) -> None:
    text = SOURCE.replace(*change).replace("{folder}", str(folder))
    with pytest.raises(ConfigurationRefusedError) as refused:
        configure(home, text)
    assert message in " ".join(str(problem) for problem in refused.value.problems)


# Commands


def test_a_folder_is_followed_by_a_command_that_can_be_asked_what_it_read(tmp_path: Path, folder: Path) -> None:
    terminal = fresh(tmp_path)
    append(folder / "20261122", pbs(1) + "junk\n")
    answer = terminal.done("collect", "pbs", folder, "--cluster", "hpc2", "--once")
    assert "1 of 2 row(s) are usage, 1 broken_row" in answer.out
    assert "nothing new" in terminal.done("collect", "pbs", folder, "--cluster", "hpc2", "--once").out
    (row,) = terminal.done("collect", "status", "--format", "json").json()
    assert (row["source"], row["read_lines"], row["problem"]) == ("pbs:hpc2", 2, "")
    again = terminal.done("collect", "pbs", folder, "--cluster", "hpc2", "--once", "--again")
    assert "1 file(s) are read from the start" in again.out


def test_a_look_that_met_a_problem_says_so_and_keeps_what_it_could_read(tmp_path: Path, folder: Path) -> None:
    terminal = fresh(tmp_path)
    append(folder / "20261122", pbs(1))
    answer = terminal("collect", "pbs", folder, tmp_path / "nowhere", "--cluster", "hpc2", "--once")
    assert (answer.code, "nowhere is not there" in answer.err) == (1, True)
    assert "1 of 1 row(s) are usage" in answer.out


def test_csv_without_a_mapping_is_wrong_use(tmp_path: Path, folder: Path) -> None:
    answer = fresh(tmp_path)("collect", "csv", folder, "--cluster", "lab", "--once")
    assert (answer.code, "--options" in answer.err) == (2, True)


def hourbook(home: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from hourbook.cli.main import run; run()", "--home", str(home)]
    return subprocess.Popen([*command, *(str(one) for one in arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_command_that_runs_on_reads_what_is_written_until_it_is_stopped(home: Home, folder: Path) -> None:
    file = append(folder / "20261122", pbs(1))

    def rows() -> int:
        return rows_recorded(home)

    follower = hourbook(home.path, "collect", "pbs", folder, "--cluster", "hpc2", "--interval", "1")
    try:
        wait_until(lambda: rows() == 1, 60)
        append(file, pbs(2))
        wait_until(lambda: rows() == 2, 30)
        file.rename(folder / "20261122.old")
        append(file, pbs(3))
        wait_until(lambda: rows() == 3, 30)
    finally:
        follower.send_signal(signal.SIGTERM)
        follower.communicate(timeout=30)


@pytest.mark.slow
def test_a_cluster_is_watched_by_a_command_until_it_is_stopped(home: Home, tmp_path: Path) -> None:
    (tmp_path / "kube").mkdir()
    cluster = make_cluster(tmp_path / "kube")
    try:
        cluster.put(node())
        cluster.put(pod("a", CLOCK))
        reached = ("--cluster", "ai1", "--kubeconfig", cluster.kubeconfig)
        watcher = hourbook(home.path, "collect", "kubernetes", *reached, "--interval", "2")
        try:
            wait_until(lambda: rows_recorded(home) == 1, 60)
            cluster.kill()
            time.sleep(3)
            cluster.start()
            cluster.put(pod("b", CLOCK))
            wait_until(lambda: rows_recorded(home) == 2, 30)
            cluster.do("delete", uid="a")
            wait_until(lambda: rows_recorded(home) == 3, 30)
        finally:
            watcher.send_signal(signal.SIGTERM)
            watcher.communicate(timeout=30)
    finally:
        cluster.kill()
    with read_session(home.engine) as session:
        assert {uid: row.status for uid, row in metering.known_pods(session, "kubernetes:ai1").items()} == {
            "a": "gone",
            "b": "held",
        }
