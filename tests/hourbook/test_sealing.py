"""Sealing and rolling up: from the inbox to figures, exactly once, whatever happens in between."""

from __future__ import annotations

import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from hourbook import sealing
from hourbook.database import read_session, run_write
from hourbook.rollups import UncutWindowError, Window, read_rollup, roll_up_dirty
from hourbook.sealing import Sealed, SealerBusyError
from metering import store
from metering.lake import EventLake
from metering.plan import RollupPlan
from tests.homes import NewHome

from .lake_stories import BROKEN, DAY_22, MIDNIGHT, NOW, ONE_DAY, SHANGHAI, Site


@pytest.fixture
def site(new_home: NewHome, tmp_path: Path) -> Site:
    return Site(new_home(tmp_path / "home", NOW))


def test_accepted_events_become_figures(site: Site) -> None:
    site.accept({"id": "1:1"}, {"id": "2:1", "cpus": 3})
    assert site.seal() == Sealed(batches=1, events=2)
    assert site.cpu_seconds() == 400
    assert site.seal() == Sealed()


def test_the_inbox_lets_go_of_events_once_the_lake_holds_them(site: Site) -> None:
    site.accept({"id": "1:1"})
    site.seal()
    site.accept({"id": "2:1"})
    with read_session(site.home.engine) as session:
        assert [bool(batch.payload) for batch in store.inbox_batches(session)] == [False, True]
        assert [batch.events for batch in store.inbox_batches(session)] == [1, 1]


def test_thousands_of_broken_rows_are_resolved_by_one_file(site: Site) -> None:
    names = [f"{number}:1" for number in range(2000)]
    site.accept(rejected=tuple(replace(BROKEN, raw=name.encode(), event_id=name) for name in names))
    site.seal()
    site.accept(*({"id": name} for name in names[:1500]))
    assert site.seal().resolved == 1500
    assert Counter(site.quarantined()) == {("broken_row", "resolved"): 1500, ("broken_row", "open"): 500}
    with read_session(site.home.engine) as session:
        assert store.quarantine_entry(session, "Q-1").resolved_by == "event 0:1 of slurm:hpc1, recorded as 1"


def test_the_same_file_twice_counts_once_and_is_accounted_for(site: Site) -> None:
    site.accept({"id": "1:1"}, {"id": "2:1"}, rejected=(BROKEN,))
    site.accept({"id": "1:1"}, {"id": "2:1"}, rejected=(BROKEN,))
    site.seal()
    account = site.account()
    assert site.cpu_seconds() == 200
    assert {name: rows for name, rows in account.statuses.items() if rows} == {"kept": 2, "duplicate": 2}
    assert (account.rows, account.quarantined, account.repeated) == (6, {"broken_row": 2}, 1)


def test_events_that_are_not_sealed_yet_are_accounted_for_as_waiting(site: Site) -> None:
    site.accept({"id": "1:1"})
    assert site.account().waiting == 1


class PowerCutError(Exception):
    """Stands for a process killed at this point."""


# Where sealing is killed: what is called there, and whether that was done before.
CRASHES = [
    (target, name, done)
    for target, name in ((store, "quarantine_held"), (EventLake, "append"), (store, "mark_sealed"))
    for done in (False, True)
]


@pytest.mark.parametrize(("target", "name", "done"), CRASHES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_killed_anywhere_and_run_again_each_event_is_there_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, target: object, name: str, done: bool
) -> None:
    site.accept({"id": "1:1"}, {"id": "2:1"})
    site.accept({"id": "1:1", "start_second": MIDNIGHT + 50, "revision": 2}, {"id": "3:1"})
    real = getattr(target, name)

    def killed(*args: object, **kwargs: object) -> None:
        if done:
            real(*args, **kwargs)
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(target, name, killed)
        with pytest.raises(PowerCutError):
            site.seal()
    site.accept({"id": "3:1"})
    site.seal()
    account = site.account()
    assert site.cpu_seconds() == 300
    assert site.lake.scan().collect().height == 4
    assert account.quarantined == {"start_changed": 1}
    assert {name: rows for name, rows in account.statuses.items() if rows} == {"kept": 3, "duplicate": 1}
    assert site.quarantined() == [("start_changed", "open")]


def test_a_known_event_with_another_start_is_held_back_also_from_another_date(site: Site) -> None:
    site.accept({"id": "1:1"})
    site.seal()
    later = {"start_second": MIDNIGHT + 86_400 * 3, "end_second": MIDNIGHT + 86_400 * 3 + 9, "revision": 2}
    site.accept({"id": "1:1", **later}, {"id": "2:1", **later})
    assert site.seal() == Sealed(batches=1, events=2, held_back=1)
    assert site.quarantined() == [("start_changed", "open")]
    assert site.lake.scan().collect().height == 2


def test_usage_does_not_move_to_another_cluster(site: Site) -> None:
    site.accept({"id": "1:1"})
    site.seal()
    moved = {"cluster": "hpc2", "revision": 2, "end_second": MIDNIGHT + 900}
    site.accept({"id": "1:1", **moved}, {"id": "2:1", "cluster": "hpc2"})
    assert site.seal() == Sealed(batches=1, events=2, held_back=1)
    assert site.quarantined() == [("cluster_changed", "open")]
    assert site.lake.scan().collect().sort("recorded_seq")["cluster"].to_list() == ["hpc1", "hpc2"]
    assert site.cpu_seconds() == 200
    assert site.account().quarantined == {"cluster_changed": 1}


def test_two_database_rows_under_one_id_wait_for_a_person(site: Site) -> None:
    site.accept({"evidence": '{"db_index":"7"}'})
    site.accept({"evidence": '{"db_index":"8"}', "revision": 2, "end_second": MIDNIGHT + 200})
    site.accept({"evidence": "{}", "revision": 3, "end_second": MIDNIGHT + 300})
    site.seal()
    assert site.quarantined() == [("identity_collision", "open")]
    assert site.cpu_seconds() == 300
    assert site.account().rows == 3


def test_a_stated_revision_with_other_facts_is_held_back_until_its_source_says_more(site: Site) -> None:
    stated = {"revision_derived": False}
    site.accept(stated, {**stated, "cpus": 9}, stated)
    site.seal()
    assert site.quarantined() == [("conflict", "open")]
    assert site.cpu_seconds() == 100
    site.accept({**stated, "cpus": 9, "revision": 2})
    assert site.seal().resolved == 1
    assert site.quarantined() == [("conflict", "resolved")]
    assert site.cpu_seconds() == 900


def test_a_broken_row_is_resolved_by_a_readable_one_of_the_same_event(site: Site) -> None:
    site.accept(rejected=(BROKEN,))
    site.seal()
    assert site.quarantined() == [("broken_row", "open")]
    site.accept({"id": "1:1"})
    assert site.seal().resolved == 1
    assert site.quarantined() == [("broken_row", "resolved")]


def test_a_broken_row_of_an_event_known_to_have_ended_is_resolved_at_once(site: Site) -> None:
    site.accept({"id": "1:1"})
    site.accept(rejected=(BROKEN,))
    site.seal()
    assert site.quarantined() == [("broken_row", "resolved")]


def test_a_broken_row_is_not_resolved_by_an_older_word_on_a_running_job(site: Site) -> None:
    running = {"id": "1:1", "ended": False}
    site.accept(running)
    site.accept(rejected=(BROKEN,))
    site.accept(running)
    site.seal()
    assert site.quarantined() == [("broken_row", "open")]


def test_only_dates_that_received_events_are_rolled_up_again(site: Site) -> None:
    site.accept({"id": "1:1"}, {"id": "2:1", "start_second": MIDNIGHT + 50_000, "end_second": MIDNIGHT + 50_100})
    site.seal()
    assert site.roll_up() == 2
    assert site.roll_up() == 0
    site.accept({"id": "3:1"})
    site.seal()
    assert site.roll_up() == 1
    assert site.cpu_seconds() == 300


def test_progress_is_told_while_rolling_up(site: Site) -> None:
    site.accept({"id": "1:1"})
    site.seal()
    told: list[tuple[int, int]] = []
    roll_up_dirty(site.home.engine, site.lake, SHANGHAI, NOW, lambda done, of: told.append((done, of)))
    assert told == [(0, 1), (1, 1)]


def test_figures_are_the_same_with_and_without_a_kept_rollup(site: Site) -> None:
    site.accept({"id": "1:1"})
    site.seal()
    before = site.cpu_seconds()
    site.roll_up()
    assert site.cpu_seconds() == before == 100
    for file in (site.home.path / "lake").glob("rollup/*/*.parquet"):
        file.unlink()
    assert site.cpu_seconds() == before


def test_a_new_plan_rolls_up_again_and_a_plan_never_registered_is_counted_from_the_lake(site: Site) -> None:
    site.accept({"id": "1:1"})
    site.seal()
    site.roll_up()
    other = RollupPlan(zones=("Asia/Shanghai", "Europe/Berlin"))
    assert site.cpu_seconds(other) == 100
    assert site.roll_up(other) == 1
    assert site.roll_up() == 0


def test_the_past_is_read_as_it_was_also_after_compaction_and_vacuum(site: Site) -> None:
    site.accept({"id": "1:1"})
    site.accept({"id": "1:1", "revision": 2, "end_second": MIDNIGHT + 500}, {"id": "2:1"})
    site.seal()
    site.roll_up()
    assert [site.cpu_seconds(as_of=seq) for seq in range(5)] == [0, 100, 500, 600, 600]
    site.lake.compact()
    site.lake.vacuum(keep_hours=0)
    assert [site.cpu_seconds(as_of=seq) for seq in range(5)] == [0, 100, 500, 600, 600]


def test_a_long_job_is_found_from_the_day_it_reaches(site: Site) -> None:
    site.accept({"id": "1:1", "start_second": MIDNIGHT - 40 * 86_400, "end_second": MIDNIGHT + 7})
    site.seal()
    site.roll_up()
    assert site.cpu_seconds() == 7


def test_a_job_that_ends_as_the_window_begins_is_one_of_its_jobs(site: Site) -> None:
    site.accept({"id": "1:1", "start_second": MIDNIGHT - 40 * 86_400, "end_second": MIDNIGHT})
    site.seal()
    site.roll_up()
    with read_session(site.home.engine) as session:
        rows = read_rollup(session, site.lake, SHANGHAI, Window(DAY_22, DAY_22 + ONE_DAY))
    assert rows.select("resource", "quantity", "jobs").rows() == [("wall", 0, 1)]


def test_a_window_that_the_plan_does_not_cut_is_refused(site: Site) -> None:
    site.accept({"id": "1:1"})
    site.seal()
    with read_session(site.home.engine) as session, pytest.raises(UncutWindowError, match="does not cut"):
        read_rollup(session, site.lake, SHANGHAI, Window(DAY_22, DAY_22 + timedelta(hours=1)))


@pytest.mark.parametrize("new_home", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)
def test_batches_in_any_order_and_grouping_give_the_same_figures(new_home: NewHome, tmp_path: Path) -> None:
    grown = [{"id": f"{job}:1", "revision": rev, "end_second": MIDNIGHT + rev} for job in range(5) for rev in range(9)]
    figures = set()
    for seed in range(3):
        site = Site(new_home(tmp_path / str(seed), NOW))
        shuffle = random.Random(seed)  # noqa: S311
        for row in shuffle.sample(grown, len(grown)):
            site.accept(row)
            if shuffle.random() < 0.3:
                site.seal()
                site.roll_up()
        site.seal()
        figures.add(site.cpu_seconds())
        assert site.account().statuses["kept"] == 5
    assert figures == {5 * 8}


def test_two_sealers_at_once_have_the_effect_of_one(site: Site) -> None:
    for job in range(12):
        site.accept({"id": f"{job}:1"}, {"id": "0:1"})
    with ThreadPoolExecutor(2) as pool:
        done = [future.result() for future in [pool.submit(site.seal) for _ in range(2)]]
    assert sum(run.batches for run in done) == 12
    assert site.lake.scan().collect().height == 24
    assert site.cpu_seconds() == 1200
    assert site.account().statuses["duplicate"] == 12


def test_a_rival_that_sealed_only_some_of_the_batches_loses_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.accept({"id": "1:1"})
    site.accept({"id": "2:1"})
    append = EventLake.append

    def rival_first(lake: EventLake, events: pl.DataFrame, batch_seq: int) -> bool:
        monkeypatch.setattr(EventLake, "append", append)
        assert append(lake, events.filter(pl.col("batch_seq") == 1), 1)
        return False  # as where the rival's commit comes between reading and writing

    monkeypatch.setattr(EventLake, "append", rival_first)
    assert site.seal().batches == 2
    assert site.cpu_seconds() == 200
    assert site.account().rows == site.lake.scan().collect().height == 2


def lease(site: Site, holder: str, *, seconds: int) -> None:
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    run_write(site.home.engine, partial(store.take_lease, name=sealing.LEASE, holder=holder, expires_at=until))


def test_a_second_sealer_waits_and_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.accept({"id": "1:1"})
    lease(site, "another-machine 1 x", seconds=60)
    monkeypatch.setattr(sealing, "LEASE_WAIT_SECONDS", 0.1)
    with pytest.raises(SealerBusyError):
        site.seal()
    assert site.account().waiting == 1


def test_a_lease_that_ran_out_or_whose_process_is_gone_does_not_hold_anyone_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "LEASE_WAIT_SECONDS", 0.1)
    site.accept({"id": "1:1"})
    lease(site, "another-machine 1 x", seconds=-1)
    assert site.seal().batches == 1
    site.accept({"id": "2:1"})
    lease(site, f"{socket.gethostname()} {2**22 + 1} x", seconds=60)
    assert site.seal().batches == 1
