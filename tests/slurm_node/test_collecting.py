"""The collector on a login node: what sacct says is on disk before it is sent, and leaves it only when it arrived."""

from __future__ import annotations

import fcntl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.hourbook.served import copy_home
from tests.serving import Server, start_server
from tests.slurm_node.login_node import LoginNode, row

NOWHERE = "http://127.0.0.1:9"
# The home's clock stands here; the collector's own is the machine's, of which the rows know.
HOUR = 3600


@dataclass
class Operator:
    """A served home, the key of a collector, and the key of finance."""

    server: Server
    key: str
    finance: str

    def jobs(self, account: str) -> int:
        """How many jobs of an account were counted."""
        days = [time.strftime("%Y-%m-%d", time.gmtime(time.time() + day * 24 * HOUR)) for day in (-2, 1)]
        asked = {"from": days[0], "to": days[1], "by": "account", "timezone": "UTC"}
        headers = {"Authorization": f"Bearer {self.finance}"}
        rows = httpx.get(f"{self.server.url}/v1/usage", params=asked, headers=headers).json()["rows"]
        return sum(int(one["jobs"]) for one in rows if one["account"] == account)

    def has_counted(self, jobs: int, account: str) -> bool:
        """Whether so many are counted soon, and no more."""
        end = time.monotonic() + 20
        while self.jobs(account) != jobs and time.monotonic() < end:
            time.sleep(0.1)
        return self.jobs(account) == jobs


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    home, keys = copy_home(tmp_path_factory.mktemp("operator"))
    server = start_server(home)
    yield Operator(server, keys["collector"], keys["finance"])
    server.kill()


@pytest.fixture
def node(tmp_path: Path) -> LoginNode:
    return LoginNode.set_up(tmp_path)


def some_hours_ago(hours: float) -> int:
    return int(time.time() - hours * HOUR)


def test_a_turn_sends_what_sacct_says_and_leaves_nothing_behind(operator: Operator, node: LoginNode) -> None:
    end = some_hours_ago(20)
    node.sacct_answers(
        [
            row(100, end, Account="plain"),
            row(101, end, Account="plain", JobName="a\nb|c\n~d~"),
            row(102, end, Account="Plain"),
        ]
    )
    done = node.collect(operator.server.url, operator.key, "--lookback", "1d")
    assert done.returncode == 0, done.stderr
    assert node.waiting() == node.refused() == []
    assert operator.has_counted(3, "plain")


def test_what_is_collected_again_from_zero_counts_once(operator: Operator, node: LoginNode) -> None:
    end = some_hours_ago(20)
    node.sacct_answers([row(110, end, Account="again"), row(111, end, Account="again")])
    for _ in range(2):
        assert node.collect(operator.server.url, operator.key, "--lookback", "1d").returncode == 0
        (node.folder / "spool" / "state.json").unlink()
    assert operator.has_counted(2, "again")


def test_nothing_is_lost_while_the_server_is_away(operator: Operator, node: LoginNode) -> None:
    end = some_hours_ago(20)
    node.sacct_answers([row(120, end, Account="away")])
    assert node.collect(NOWHERE, operator.key, "--lookback", "1d").returncode == 1
    assert [name for name in node.waiting() if name.endswith(".sacct.gz")]
    node.sacct_answers([])  # sacct has forgotten it meanwhile
    assert node.collect(operator.server.url, operator.key).returncode == 0
    assert node.waiting() == []
    assert operator.has_counted(1, "away")


def test_a_collector_that_is_killed_at_any_moment_loses_nothing(operator: Operator, node: LoginNode) -> None:
    end = some_hours_ago(20)
    node.sacct_answers([row(job, end, Account="killed") for job in range(130, 160)])
    command = [*node.command(operator.server.url, "--once", "--lookback", "1d")]
    for wait in (0.05, 0.1, 0.2, 0.4):
        process = subprocess.Popen(command, env=node.environment(operator.key), stderr=subprocess.DEVNULL)
        time.sleep(wait)
        process.kill()
        process.wait()
    assert node.collect(operator.server.url, operator.key, "--lookback", "1d").returncode == 0
    assert node.waiting() == []
    assert operator.has_counted(30, "killed")


def test_an_answer_that_breaks_off_is_not_spooled_and_asked_for_again(operator: Operator, node: LoginNode) -> None:
    node.sacct_answers([row(200, some_hours_ago(1))], code=1, says="slurm_persist_conn_open: connection lost")
    done = node.collect(operator.server.url, operator.key)
    assert done.returncode == 1
    assert "connection lost" in done.stderr
    assert node.waiting() == []
    assert not (node.folder / "spool" / "state.json").exists()


def test_a_full_spool_is_refused_in_words_and_nothing_more_is_asked(node: LoginNode) -> None:
    node.sacct_answers([row(210, some_hours_ago(1))])
    assert node.collect(NOWHERE, "hb_x", "--lookback", "3h").returncode == 1
    asked, waiting = len(node.asked()), node.waiting()
    done = node.collect(NOWHERE, "hb_x", "--max-spool", "100")
    assert "nothing more is asked until it takes them" in done.stderr
    assert (len(node.asked()), node.waiting()) == (asked, waiting)


def test_a_second_collector_on_the_same_spool_is_refused(node: LoginNode) -> None:
    (node.folder / "spool").mkdir()
    with (node.folder / "spool" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = node.collect(NOWHERE, "hb_x")
    assert done.returncode == 1
    assert "another collector works with" in done.stderr
    assert node.asked() == []


def test_a_key_that_others_can_read_is_refused(node: LoginNode) -> None:
    (node.folder / "key").write_text("hb_x", encoding="ascii")
    (node.folder / "key").chmod(0o644)
    done = node.collect(NOWHERE, "", "--key-file", str(node.folder / "key"))
    assert "chmod 600" in done.stderr


def test_a_server_that_does_not_know_the_cluster_keeps_the_rows_waiting(operator: Operator, node: LoginNode) -> None:
    node.sacct_answers([row(220, some_hours_ago(1), Cluster="other")])
    done = node.collect(operator.server.url, operator.key, "--cluster", "other", "--lookback", "3h")
    assert done.returncode == 1
    assert "cluster 'other' is not described" in done.stderr
    assert [name for name in node.waiting() if name.endswith(".sacct.gz")]
    assert node.refused() == []


def test_a_damaged_file_is_set_aside_and_does_not_hold_up_the_others(operator: Operator, node: LoginNode) -> None:
    end = some_hours_ago(20)
    node.sacct_answers([row(230, end, Account="damaged")])
    node.collect(NOWHERE, operator.key, "--lookback", "1d")
    (node.folder / "spool" / "waiting" / "000000000000-damaged.sacct.gz").write_bytes(b"\x1f\x8b no gzip")
    node.collect(operator.server.url, operator.key)
    assert node.refused() == ["000000000000-damaged.sacct.gz"]
    assert node.waiting() == []
    assert operator.has_counted(1, "damaged")


def test_the_first_turn_looks_back_twice_the_longest_limit_and_the_next_only_the_overlap(
    operator: Operator, node: LoginNode
) -> None:
    before = int(time.time())
    assert node.collect(operator.server.url, operator.key).returncode == 0
    first = node.asked()
    assert 0 <= before - 2 * 86_400 - first[0][0] <= HOUR
    assert all(begin == end for (_, end), (begin, _) in pairwise(first))
    assert all(begin % HOUR == 0 for begin, _ in first)
    assert node.collect(operator.server.url, operator.key).returncode == 0
    (again,) = node.asked()[len(first) :]
    assert 2 * HOUR <= again[1] - again[0] <= 3 * HOUR + 60
