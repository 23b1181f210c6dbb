"""Counting on a Spark cluster: the same bytes as on one machine, and errors that name the date."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from hourbook.database import open_home, read_session
from hourbook.importing import accept_payload
from hourbook.kept_counts import read_counted
from hourbook.refreshing import plan_now, seal_waiting
from hourbook.rollups import Window, read_rollup
from hourbook.settings import Home
from metering import store as metering
from metering.cloud_events import read_events
from metering.engine import count_date
from metering.lake import EventLake
from tests.hourbook.cli_stories import Terminal
from tests.hourbook.served import CLOCK, FACTS, usage_event

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

NOVEMBER = Window(CLOCK.replace(month=11, day=1, hour=0), CLOCK.replace(hour=0))
# Two processes of workers with a core each, and a gibibyte of memory, on this machine.
CLUSTER = "local-cluster[2,1,1024]"
EVENTS = 600


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A home whose usage is in the lake, with revisions and repeats, and not counted yet."""
    monkeypatch.delenv("HOURBOOK_DATABASE_URL", raising=False)
    made = Terminal(tmp_path / "home")
    made.done("init", "--clock", "2026-12-01T10:00:00+08:00")
    facts = tmp_path / "facts.toml"
    facts.write_text(FACTS, encoding="utf-8")
    made.done("apply", facts)
    every = [usage_event(n, "south" if n % 4 else "physics", day=1 + n % 20, hours=1 + n % 9) for n in range(EVENTS)]
    every += [usage_event(n, day=1 + n % 20, revision=2) for n in range(0, EVENTS, 50)] + every[:40]
    home = open_home(made.home)
    for some in (every, [usage_event(EVENTS, day=20)]):
        payload = json.dumps(some).encode()
        read = read_events(payload, format="json", now=home.now())
        assert not read.rejected
        accept_payload(home, payload, read, kind="cloud_events", origin="test")
        seal_waiting(home)
    home.close()
    return made


def kept(path: Path) -> Iterator[tuple[str, bytes]]:
    """Return what is kept of each date, as bytes."""
    home = open_home(path)
    lake = EventLake(home.lake)
    with read_session(home.engine) as session:
        rows = metering.rolled_up(session, metering.number_of_cuts(session, plan_now(session)))
        for date in sorted(rows):
            counted = read_counted(lake, rows[date])
            assert counted is not None
            yield date, parquet(counted)
    home.close()


def parquet(frame: pl.DataFrame) -> bytes:
    written = io.BytesIO()
    frame.write_parquet(written)
    return written.getvalue()


def rollup_of(home: Home) -> bytes:
    with read_session(home.engine) as session:
        return parquet(read_rollup(session, EventLake(home.lake), plan_now(session), NOVEMBER))


def test_a_cluster_counts_the_same_bytes_as_one_machine(terminal: Terminal) -> None:
    local = Terminal(terminal.home.with_name("local"))
    shutil.copytree(terminal.home, local.home)
    local.done("rollup")
    answer = terminal.done("rollup", "--engine", "spark", "--master", CLUSTER, "--format", "csv")
    assert answer.rows() == [{"sealed_events": "0", "dates": "20"}]
    assert dict(kept(terminal.home)) == dict(kept(local.home))
    homes = [open_home(one.home) for one in (terminal, local)]
    assert rollup_of(homes[0]) == rollup_of(homes[1])
    for home in homes:
        home.close()
    again = terminal.done("rollup", "--engine", "spark", "--master", CLUSTER, "--format", "csv")
    assert again.rows()[0]["dates"] == "0", "what is counted is not counted again"


def test_a_date_that_cannot_be_counted_is_named_and_the_others_stay(terminal: Terminal) -> None:
    home = open_home(terminal.home)
    lake = EventLake(home.lake)
    broken = lake.dates()[3]
    for file in (terminal.home / "lake" / "events" / f"start_date={broken}").glob("*.parquet"):
        file.write_bytes(b"PAR1 no longer")
    refused = terminal("rollup", "--engine", "spark", "--master", "local[1]")
    assert refused.code == 1
    assert f"{broken} was not counted: " in " ".join(refused.err.split())
    with read_session(home.engine) as session:
        plan = plan_now(session)
    assert count_date(lake, lake.dates()[0], plan).height
    home.close()


def test_a_lake_that_workers_cannot_see_is_named(tmp_path: Path) -> None:
    from metering.plan import RollupPlan
    from metering.spark import SparkRollupError, count_on_spark, spark_cluster

    with spark_cluster("local[1]") as cluster, pytest.raises(SparkRollupError, match="cannot see the lake at"):
        list(count_on_spark(cluster, tmp_path / "nowhere", RollupPlan(zones=("UTC",)), {"2026-11-01": 1}))


def test_other_versions_on_a_worker_are_refused(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    from metering import spark
    from metering.plan import RollupPlan

    monkeypatch.setattr(spark, "_versions", lambda: ("hourbook 0.0.0",))
    place = terminal.home / "lake"
    with (
        spark.spark_cluster("local[1]") as cluster,
        pytest.raises(spark.SparkRollupError, match="install the same on both"),
    ):
        list(spark.count_on_spark(cluster, place, RollupPlan(zones=("UTC",)), {"2026-11-01": 1}))


def test_a_worker_that_sees_an_older_lake_is_refused(terminal: Terminal) -> None:
    from metering.plan import RollupPlan
    from metering.spark import SparkRollupError, count_on_spark, spark_cluster

    place, date = terminal.home / "lake", "2026-11-19"  # in UTC, the last day's events
    with (
        spark_cluster("local[1]") as cluster,
        pytest.raises(SparkRollupError, match=r"holds the date up to event [0-9]+, not 9999"),
    ):
        list(count_on_spark(cluster, place, RollupPlan(zones=("UTC",)), {date: 9999}))


def test_engine_and_master_go_together(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "home")
    for wrong in (("--engine", "spark"), ("--master", "local[1]")):
        assert terminal("rollup", *wrong).code == 2
    connect = terminal("rollup", "--engine", "spark", "--master", "sc://host")
    assert connect.code == 1
