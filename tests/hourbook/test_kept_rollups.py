"""What is kept of each date: changed by what comes late, put together again, and equal to a count of everything."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from hourbook import kept_counts, rollups
from hourbook.database import read_session
from hourbook.jobs import compact_lake
from hourbook.rollups import Window, read_rollup, read_rollup_without
from metering import lake, store
from metering.plan import Measure, RollupPlan
from metering.rollup import roll_up
from tests.homes import NewHome
from tests.hourbook.lake_stories import DAY_22, MIDNIGHT, NOW, ONE_DAY, SHANGHAI, Site

pytestmark = pytest.mark.parametrize("new_home", ["sqlite"], indirect=True)
WINDOW = Window(DAY_22, DAY_22 + ONE_DAY)


@pytest.fixture
def site(new_home: NewHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A home in which even a small date is changed rather than counted again."""
    monkeypatch.setattr(rollups, "SMALL_DATE", 0)
    return Site(new_home(tmp_path / "home", NOW))


def kept(site: Site) -> store.RollupPartitionRow:
    with read_session(site.home.engine) as session:
        (row,) = store.rolled_up(session, 1).values()
        session.expunge_all()
        return row


def rolled_up(site: Site, plan: RollupPlan = SHANGHAI) -> pl.DataFrame:
    with read_session(site.home.engine) as session:
        return read_rollup(session, site.lake, plan, WINDOW)


def a_day(site: Site) -> None:
    site.accept(*({"id": f"{n}:1", "user": f"u{n % 5}", "end_second": MIDNIGHT + 100 + n} for n in range(40)))
    site.seal()
    site.roll_up()


def late(site: Site, number: int) -> None:
    """Somebody new, a repeat, and a job that was known and ended later than was told."""
    grown = {"id": f"{number}:1", "user": f"u{number % 5}", "revision": 2, "end_second": MIDNIGHT + 5000}
    site.accept({"id": f"late{number}:1", "user": "zoe"}, {"id": "39:1", "end_second": MIDNIGHT + 139}, grown)
    site.seal()
    assert site.roll_up() == 1


def test_late_events_change_what_is_kept_and_many_changes_are_put_together(site: Site) -> None:
    a_day(site)
    whole = kept(site).file
    for number in range(1, kept_counts.MOST_CHANGES + 4):
        late(site, number)
        assert (kept(site).file == whole) == (number <= kept_counts.MOST_CHANGES)
        assert rolled_up(site).equals(roll_up(site.lake.scan().collect(), SHANGHAI))
    assert len(kept(site).files) <= kept_counts.MOST_CHANGES


def test_a_change_whose_file_is_gone_is_counted_again(site: Site) -> None:
    a_day(site)
    late(site, 1)
    for file in site.home.path.glob("lake/rollup/*/*.parquet"):
        file.unlink()
    late(site, 2)
    assert kept(site).changes == ""
    assert rolled_up(site).equals(roll_up(site.lake.scan().collect(), SHANGHAI))


def test_of_two_that_count_the_same_change_one_is_kept(site: Site) -> None:
    a_day(site)
    before = kept(site)
    late(site, 1)
    after = kept(site)
    twice = rolled_up(site)
    dirty = rollups.DirtyDate(before.start_date, after.recorded_seq, before)
    rollups.keep(site.home.engine, site.lake, 1, dirty, rollups.count_dirty(site.lake, SHANGHAI, dirty))
    assert kept(site).files == after.files
    assert rolled_up(site).equals(twice)
    assert len([*site.home.path.glob("lake/rollup/1/*.parquet")]) == len(after.files)


def test_a_plan_with_another_measure_finds_its_dates_counted(site: Site) -> None:
    a_day(site)
    measured = SHANGHAI.model_copy(update={"measures": (Measure(name="bare", quantity="cpu", when="no_cards"),)})
    assert site.roll_up(measured) == 0
    rows = rolled_up(site, measured)
    assert rows.equals(roll_up(site.lake.scan().collect(), measured))
    assert rows.filter(pl.col("resource") == "measure:bare")["quantity"].sum() == site.cpu_seconds()


def test_usage_without_users_adds_up_to_the_same(site: Site) -> None:
    a_day(site)
    late(site, 1)
    with read_session(site.home.engine) as session:
        fewer = read_rollup_without(session, site.lake, SHANGHAI, WINDOW, "user")
    assert fewer["user"].unique().to_list() == [""]
    assert fewer.height < rolled_up(site).height
    cpu = pl.col("resource") == "cpu"
    assert fewer.filter(cpu)["quantity"].sum() == rolled_up(site).filter(cpu)["quantity"].sum()


def test_the_schedule_compacts_and_the_figures_stay(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake, "MANY_FILES", 4)
    for number in range(5):
        site.accept({"id": f"{number}:1"})
        site.seal()
    site.roll_up()
    before = rolled_up(site)
    assert compact_lake(site.home) == ["2026-11-21"]
    assert compact_lake(site.home) == []
    assert rolled_up(site).equals(before)
    late(site, 1)
    assert rolled_up(site).equals(roll_up(site.lake.scan().collect(), SHANGHAI))
