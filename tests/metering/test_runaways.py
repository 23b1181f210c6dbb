"""A running attempt counts no longer than its time limit and its cluster's grace, whoever collected it."""

from __future__ import annotations

import orjson
import polars as pl
import pytest
from pydantic import ValidationError

from metering.clusters import Cluster
from metering.events import EVENT_SCHEMA
from metering.identity import mark
from metering.runaways import cap, is_runaway
from metering.sealing import recorded

START = 1_793_491_200  # 2026-11-01T00:00Z
HOUR = 3600


def attempt(seconds: int, limit: object = HOUR, *, ended: bool = False, suspended: int = 0) -> pl.DataFrame:
    row = {
        **dict.fromkeys(("partition", "qos", "account", "user", "job", "cards", "counters"), ""),
        **dict.fromkeys(("memory_bytes", "nodes"), 0),
        "source": "slurm:hpc1",
        "id": "1:1",
        "revision": seconds + (2**40 if ended else 0),
        "revision_derived": True,
        "cluster": "hpc1",
        "state": "COMPLETED" if ended else "RUNNING",
        "start_second": START,
        "end_second": START + seconds + suspended,
        "ended": ended,
        "suspended_seconds": suspended,
        "cpus": 4,
        "evidence": orjson.dumps({"line": 1, "time_limit_seconds": limit}).decode(),
    }
    return pl.DataFrame([row], schema=EVENT_SCHEMA, orient="row")


def counted(events: pl.DataFrame, **cluster: object) -> int:
    """How many seconds of the attempt count."""
    found = cap(events, {"hpc1": Cluster.model_validate({"name": "hpc1", **cluster})})
    return int(found["end_second"][0]) - START


def test_a_running_attempt_counts_up_to_its_limit_and_the_grace() -> None:
    assert counted(attempt(2 * HOUR)) == 2 * HOUR
    assert counted(attempt(2 * HOUR + 1)) == 2 * HOUR
    assert counted(attempt(500 * HOUR), runaway_grace_seconds=600) == HOUR + 600


def test_what_was_stated_stays_with_the_row() -> None:
    (row,) = cap(attempt(500 * HOUR), {}).with_columns(runaway=is_runaway()).to_dicts()
    assert row["runaway"]
    assert orjson.loads(row["evidence"]) == {
        "line": 1,
        "time_limit_seconds": HOUR,
        "runaway": {"stated_end_second": START + 500 * HOUR},
    }


def test_suspended_time_is_no_part_of_a_limit() -> None:
    assert counted(attempt(2 * HOUR, suspended=5 * HOUR)) == 7 * HOUR
    assert counted(attempt(3 * HOUR, suspended=5 * HOUR)) == 7 * HOUR


def test_an_attempt_that_ended_or_has_no_limit_is_left_alone() -> None:
    for events in (attempt(500 * HOUR, ended=True), attempt(500 * HOUR, None), attempt(500 * HOUR, "UNLIMITED")):
        assert cap(events, {}).equals(events)


def test_the_grace_is_the_one_of_the_day_on_which_the_attempt_started() -> None:
    dated: list[dict[str, object]] = [{"seconds": 0}, {"seconds": 60, "effective_from": "2026-11-01"}]
    assert counted(attempt(5 * HOUR), runaway_grace_seconds=dated) == HOUR + 60
    dated[1]["effective_from"] = "2026-11-02"
    assert counted(attempt(5 * HOUR), runaway_grace_seconds=dated) == HOUR


def test_a_later_end_replaces_a_capped_row_by_the_rule_of_revisions() -> None:
    rows = pl.concat([cap(attempt(500 * HOUR), {}), attempt(HOUR // 2, ended=True)])
    marked = mark(recorded(rows, first_seq=1, batch_seq=1))
    assert marked["status"].to_list() == ["superseded", "kept"]


def test_settings_that_say_two_things_of_one_day_or_nothing_known_are_refused() -> None:
    for wrong in (
        {"runaway_grace_seconds": [{"seconds": 1}, {"seconds": 2}]},
        {"runaway_grace_seconds": -1},
        {"reports": "daily"},
        {"reports": [{"every": "hour"}, {"every": "never"}]},
    ):
        with pytest.raises(ValidationError):
            Cluster.model_validate({"name": "hpc1", **wrong})


def test_reports_may_be_one_word() -> None:
    assert Cluster.model_validate({"name": "a", "reports": "hourly"}).reports[0].every == "hour"
    assert Cluster.model_validate({"name": "a", "reports": "none"}).reports == ()
    assert Cluster(name="a").model_dump(mode="json")["reports"] == []
