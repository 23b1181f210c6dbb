"""A real Slurm, collected while its jobs run and through an outage of the server, equals what sreport says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from hourbook.applying import apply_files
from hourbook.cli.collect_slurm import program_bytes
from hourbook.collecting_slurm import poll_slurm
from hourbook.database import create_home
from hourbook.refreshing import refresh
from hourbook.settings import Settings
from hourbook.slurm_node.asking import HOUR, Slurm, rows_of, stamp
from hourbook.slurm_node.hours import ended_attempt, statements
from metering.events import USAGE_FACTS
from metering.lake import EventLake
from metering.slurm_source import SlurmAccess
from tests.hourbook.served import make_key
from tests.real_slurm import rolling
from tests.real_slurm.cluster import NAME, SlurmCluster, running_cluster
from tests.real_slurm.jobs import CALM, CARDS, REQUEUED, RESIZED, SUSPENDED, Jobs
from tests.real_slurm.programs import NoSlurmError
from tests.serving import Server, free_port, start_server

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

FACTS = f"""
[operator]
id = "starlight"
name = "星河超算云"
name_en = "Starlight"
[[clusters]]
name = "{NAME}"
partitions = ["cpu", "gpu"]
cards = [{{ gres = "gpu", model = "a100" }}]
reports = "hourly"
"""
OUTAGE_SECONDS = 12
RESOURCES = {"cpu": "core_hours", "node": "node_hours", "gres/gpu": "card_hours"}
# Seconds by hour, account, user and resource.
Cells = Counter[tuple[str, str, str, str]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    try:
        with running_cluster() as running:
            yield running
    except NoSlurmError as error:
        pytest.skip(f"needs a real Slurm: {error}")


@dataclass
class Site:
    """An operator's server, and the collector on the login node of a cluster."""

    home: Path
    port: int
    keys: Mapping[str, str]
    cluster: SlurmCluster
    server: Server
    collector: subprocess.Popen[bytes] | None = None

    def command(self, *options: str) -> list[str]:
        """The one file that was copied to the login node, run by a Python that has nothing else."""
        program = self.home.parent / "hourbook-slurm.pyz"
        program.write_bytes(program_bytes())
        spool = ["--spool", str(self.home.parent / "spool"), "--lookback", "3h"]
        where = ["--cluster", NAME, "--server", self.server.url]
        return [sys.executable, "-I", "-S", str(program), *where, *spool, *options]

    @property
    def environment(self) -> dict[str, str]:
        return {**self.cluster.environment, "HOURBOOK_API_KEY": self.keys["collector"]}

    def collect_on(self) -> None:
        log = (self.home.parent / "collector.log").open("ab")
        with log:
            self.collector = subprocess.Popen(
                self.command("--interval", "2s", "--running-every", "1s"), env=self.environment, stderr=log
            )

    def collect_once(self) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(self.command("--once"), env=self.environment, capture_output=True, check=False)

    def get(self, path: str, **asked: str) -> Any:  # noqa: ANN401
        headers = {"Authorization": f"Bearer {self.keys['finance']}"}
        answer = httpx.get(f"{self.server.url}{path}", params=asked, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def waiting(self) -> list[Path]:
        return list((self.home.parent / "spool" / "waiting").iterdir())


@pytest.fixture
def site(cluster: SlurmCluster, tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "facts.toml").write_text(FACTS, encoding="utf-8")
    home = create_home(tmp_path / "home", settings=Settings(database_url=""))
    apply_files(home, [tmp_path / "facts.toml"])
    keys = {"collector": make_key(home, "collector"), "finance": make_key(home, "finance")}
    home.close()
    port = free_port()
    site = Site(home.path, port, keys, cluster, start_server(home.path, port=port))
    try:
        yield site
    finally:
        if site.collector is not None:
            site.collector.kill()
            site.collector.wait()
        site.server.kill()


def test_live_collection_through_an_outage_equals_sreport_to_the_second(site: Site) -> None:
    began = int(time.time()) // HOUR * HOUR
    jobs = Jobs(site.cluster)
    site.collect_on()
    jobs.meddle(jobs.submit_all())

    site.server.kill()
    jobs.fail_a_node()
    site.cluster.wait_until(lambda: len(site.waiting()) > 2, "a spool that grows while the server is away")
    jobs.submit(CARDS, "--partition=gpu", "--gres=gpu:a100:1", seconds=3)
    time.sleep(OUTAGE_SECONDS)
    site.server = start_server(site.home, port=site.port)

    jobs.wait_for_all()
    assert site.collector is not None
    site.collector.terminate()
    assert site.collector.wait(30) == 0
    site.cluster.wait_until(lambda: rows_are_final(site.cluster), "accounting that has all ends")
    done = site.collect_once()
    assert done.returncode == 0, done.stderr.decode()
    assert site.waiting() == []
    ended = (int(time.time()) // HOUR + 1) * HOUR

    ours, theirs = usage(site, began), sreport(site.cluster, began, ended)
    assert quarantined(site) == []
    explained = theirs.copy()
    explained.subtract(overlap_of_resized_rows(site.cluster))
    # What is suspended is spread over an attempt's hours by us, and stands where it fell in sreport.
    assert without(explained, SUSPENDED) == without(ours, SUSPENDED)
    assert over_hours(explained) == over_hours(ours)
    assert stated(site, began, ended) == {"complete"}
    for who in (CALM, SUSPENDED, REQUEUED, CARDS, RESIZED):
        assert over_hours(ours)[*who, "cpu"] > 0, who
    assert over_hours(ours)[*CARDS, "gres/gpu"] > 0


def test_the_server_itself_reads_the_same_from_sacct_and_from_slurmrestd(
    cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(cluster)
    requeued = jobs.submit(REQUEUED, "--requeue", "--time=3", seconds=8)
    jobs.submit(CARDS, "--partition=gpu", "--gres=gpu:a100:2", seconds=1)
    cluster.wait_for(requeued, "RUNNING")
    cluster.control("requeue", requeued)
    jobs.wait_for_all()
    cluster.wait_until(lambda: rows_are_final(cluster), "accounting that has all ends")
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    socket = f"unix:{start_slurmrestd(cluster)}"
    by_sacct = collected_by_itself(tmp_path / "sacct", SlurmAccess(lookback_seconds=3 * HOUR))
    by_rest = collected_by_itself(tmp_path / "rest", SlurmAccess(url=socket, api="v0.0.38", lookback_seconds=3 * HOUR))
    facts = ["source", "id", "revision", *USAGE_FACTS]
    assert by_sacct.filter(pl.col("job") == requeued).height == 2  # both attempts
    assert by_rest.select(facts).sort("id").equals(by_sacct.select(facts).sort("id"))


def start_slurmrestd(cluster: SlurmCluster) -> Path:
    folder = cluster.folder / "rest"
    folder.mkdir()
    folder.chmod(0o777)
    cluster.start("slurmrestd", "-a", "rest_auth/local", "-u", "nobody", f"unix:{folder / 'socket'}")
    cluster.wait_until((folder / "socket").exists, "slurmrestd")
    return folder / "socket"


def collected_by_itself(folder: Path, access: SlurmAccess) -> pl.DataFrame:
    folder.mkdir()
    (folder / "facts.toml").write_text(FACTS, encoding="utf-8")
    home = create_home(folder / "home", settings=Settings(database_url=""))
    apply_files(home, [folder / "facts.toml"])
    polled = poll_slurm(home, NAME, access)
    assert polled.problems == []
    refresh(home)
    events = EventLake(home.lake).scan().collect()
    home.close()
    return events


def rows_are_final(cluster: SlurmCluster) -> bool:
    rows = cluster.run("sacct", "-a", "-X", "-D", "-n", "-P", "-S", "now-3hours", "-o", "End,State").splitlines()
    return bool(rows) and not any(row.startswith("Unknown") for row in rows)


def usage(site: Site, began: int) -> Cells:
    """What Hourbook counts."""
    asked = {"from": stamp(began)[:10], "to": stamp(began + 2 * HOUR)[:10], "timezone": "UTC"}
    deadline = time.monotonic() + 60
    while True:  # the server counts what arrived within seconds
        answer = site.get("/v1/usage", by="hour,account,user", **asked)["rows"]
        if answer and site.get("/v1/usage", by="hour,account,user", **asked)["rows"] == answer:
            break
        assert time.monotonic() < deadline, "no usage was counted"
        time.sleep(1)
    cells = Cells()
    for row in answer:
        for resource, column in RESOURCES.items():
            cells[row["hour"][:13], row["account"], row["user"], resource] += round(Decimal(row[column]) * HOUR)
    return +cells


def sreport(cluster: SlurmCluster, began: int, ended: int) -> Cells:
    """What Slurm's own report counts, hour by hour."""
    cluster.run(sys.executable, rolling.__file__, str(began), str(ended))
    cells = Cells()
    for hour in range(began, ended, HOUR):
        period = [f"start={stamp(hour)}", f"end={stamp(hour + HOUR)}"]
        report = ["sreport", "-n", "-P", "-t", "Seconds", "-T", ",".join(RESOURCES), "cluster"]
        for line in cluster.run(*report, "AccountUtilizationByUser", *period).splitlines():
            _, account, user, _, resource, seconds = line.split("|")
            if user:
                cells[stamp(hour)[:13], account, user, resource] += int(seconds)
    return +cells


def overlap_of_resized_rows(cluster: SlurmCluster) -> Cells:
    """What a resized job holds from its first start until its resize, which sreport counts in both of its rows."""
    cells = Cells()
    # Its columns NCPUS and NNodes may say otherwise where a node has failed under it.
    fields = "Account,User,Submit,Start,AllocTRES"
    environment = {**cluster.environment, "SLURM_TIME_FORMAT": "%s"}
    command = ["sacct", "-a", "-X", "-D", "-n", "-P", "-S", "now-3hours", "-o", fields]
    rows = subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode()
    for line in rows.splitlines():
        account, user, submit, start, allocated = line.split("|")
        if start.isdigit() and 0 < int(start) < int(submit):
            overlap = int(submit) - int(start)
            held = dict(part.split("=") for part in allocated.split(","))
            for resource in ("cpu", "node"):
                cells[stamp(int(start))[:13], account, user, resource] += overlap * int(held[resource])
    return cells


def stated(site: Site, began: int, ended: int) -> set[str]:
    """What becomes of the hours in which jobs ended, where the collector states them as if they were over."""
    slurm = Slurm(NAME, timeout_seconds=60)
    attempts: dict[str, tuple[int, int]] = {}
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        for name, value in site.cluster.environment.items():
            context.setenv(name, value)
        for row in rows_of(slurm, (began, ended), "~a delimiter~"):
            if found := ended_attempt(row.decode().split("~a delimiter~")):
                event_id, *latest = found
                attempts[event_id] = max(attempts.get(event_id, (0, 0)), (latest[0], latest[1]))
    said = statements(NAME, (began, ended), attempts)
    assert sum(one["events"] for one in said) > 15
    headers = {"Authorization": f"Bearer {site.keys['collector']}"}
    answer = httpx.post(f"{site.server.url}/v1/statements", json=said, headers=headers)
    assert answer.status_code == 202, answer.text
    runs = site.get("/v1/gaps", month=stamp(began)[:7], cluster=NAME)["runs"]
    hours = {one["hour"] for one in said if one["events"]}
    return {run["state"] for run in runs if run["first_hour"] in hours or run["state"] in {"too_few", "differs"}}


def without(cells: Cells, who: tuple[str, str]) -> dict[tuple[str, ...], int]:
    return {key: seconds for key, seconds in cells.items() if key[1:3] != who and seconds}


def over_hours(cells: Cells) -> Counter[tuple[str, ...]]:
    total: Counter[tuple[str, ...]] = Counter()
    for (_, *key), seconds in cells.items():
        total[tuple(key)] += seconds
    return +total


def quarantined(site: Site) -> list[str]:
    command = [sys.executable, "-c", "from hourbook.cli.main import run; run()", "--home", str(site.home)]
    environment = {**os.environ, "HOURBOOK_DATABASE_URL": ""}
    told = subprocess.run(
        [*command, "quarantine", "list", "--format", "csv"], env=environment, capture_output=True, check=True
    )
    return told.stdout.decode().splitlines()[1:]
