"""An event counts at the first start recorded, whenever and wherever another one turns up."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlmodel import Session

from hourbook import sealing, start_check
from hourbook.database import read_session
from metering import sealing as judging
from metering import store
from metering.events import EVENT_SCHEMA, Collected
from metering.identity import STRUCK, key_hash
from tests.homes import NewHome

from .lake_stories import BROKEN, JOB, MIDNIGHT, NOW, Site

DAY = 86_400
YEAR = 365 * DAY


@pytest.fixture
def site(new_home: NewHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    # Sealing looks at a batch's own dates alone, as if many others had received events since.
    monkeypatch.setattr(sealing, "RECENT_DATES", 0)
    return Site(new_home(tmp_path / "home", NOW))


def at(second: int, **facts: object) -> dict[str, object]:
    """A job of a hundred seconds that starts then."""
    return {"start_second": second, "end_second": second + 100, **facts}


def checked_to(site: Site) -> int:
    with read_session(site.home.engine) as session:
        return store.starts_checked_to(session)


def test_the_same_id_a_year_later_counts_once_after_the_check(site: Site) -> None:
    site.accept(at(MIDNIGHT - YEAR), at(MIDNIGHT, id="2:1"))
    site.seal()
    site.accept(at(MIDNIGHT, cpus=7))
    assert site.seal().held_back == 0
    assert site.all_cpu_seconds() == 900
    assert site.check_starts().struck == 1
    assert site.all_cpu_seconds() == 200
    assert site.quarantined() == [("start_changed", "open")]
    account = site.account()
    assert account.quarantined == {"start_changed": 1}
    assert {name: rows for name, rows in account.statuses.items() if rows} == {"kept": 2, "struck": 1}


def test_as_of_a_number_before_the_strike_nothing_changes(site: Site) -> None:
    site.accept(at(MIDNIGHT - YEAR))
    site.seal()
    site.accept(at(MIDNIGHT))
    site.seal()
    site.check_starts()
    assert [site.all_cpu_seconds(as_of=seq) for seq in range(4)] == [0, 100, 200, 100]


def test_the_check_says_up_to_where_no_event_counts_twice(site: Site) -> None:
    site.accept(at(MIDNIGHT - YEAR))
    site.accept(at(MIDNIGHT))
    assert site.check_starts().checked_to == checked_to(site) == 2  # one group: held back at once
    site.accept(at(MIDNIGHT + YEAR))
    site.seal()
    assert site.check_starts().checked_to == checked_to(site) == 4  # the strike is recorded, too
    assert site.check_starts() == start_check.StartCheck(4, 0, 0)


def test_the_quarantined_row_says_where_the_event_started_before(site: Site) -> None:
    site.accept(at(MIDNIGHT - YEAR))
    site.seal()
    site.accept(at(MIDNIGHT))
    site.seal()
    site.check_starts()
    with read_session(site.home.engine) as session:
        (entry,) = store.quarantine(session)
        (strike,) = [batch for batch in store.inbox_batches(session) if batch.kind == "start_check"]
        began, before = (datetime.fromtimestamp(second, UTC) for second in (MIDNIGHT, MIDNIGHT - YEAR))
        told = (
            f"starts at {began:%Y-%m-%dT%H:%M:%SZ}, but was recorded before as starting at {before:%Y-%m-%dT%H:%M:%SZ};"
        )
        assert told in entry.message
        assert (entry.batch_seq, entry.month) == (2, "2026-11")
        assert strike.events == 1


def test_what_comes_again_with_a_struck_start_is_held_back_at_once(site: Site) -> None:
    site.accept(at(MIDNIGHT - YEAR))
    site.seal()
    site.accept(at(MIDNIGHT))
    site.seal()
    site.check_starts()
    site.accept(at(MIDNIGHT, revision=9, cpus=50), at(MIDNIGHT + 5, revision=10))
    assert site.seal().held_back == 2
    assert site.check_starts().struck == 0
    assert site.all_cpu_seconds() == 100
    assert site.quarantined() == [("start_changed", "open")] * 3


def test_rows_that_were_sealed_between_a_check_and_its_strike_are_listed_too(site: Site) -> None:
    site.accept(at(MIDNIGHT - YEAR))
    site.seal()
    site.accept(at(MIDNIGHT))
    site.seal()
    real = store.accept

    def a_row_comes_first(session: Session, *args: Any, **kwargs: Any) -> store.BatchReceipt:  # noqa: ANN401
        events = pl.DataFrame([{**JOB, **at(MIDNIGHT), "revision": 2}], schema=EVENT_SCHEMA, orient="row")
        real(session, Collected(events, (), {}), "file", "digest", NOW)
        return real(session, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "accept", a_row_comes_first)
        assert site.check_starts().struck == 1
    assert site.all_cpu_seconds() == 100
    assert site.account().quarantined == {"start_changed": 2}


def test_a_row_with_the_true_start_that_comes_later_resolves_the_listed_one(site: Site) -> None:
    site.accept(at(MIDNIGHT - YEAR))
    site.seal()
    site.accept(at(MIDNIGHT))
    site.seal()
    site.check_starts()
    site.accept(at(MIDNIGHT - YEAR, revision=2, cpus=3))
    assert site.seal().resolved == 1
    assert site.quarantined() == [("start_changed", "resolved")]
    assert site.all_cpu_seconds() == 300


@pytest.mark.parametrize("name", ["quarantine_held", "accept", "note_starts_checked"])
def test_killed_anywhere_and_run_again_the_check_has_one_effect(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    site.accept(at(MIDNIGHT - YEAR))
    site.seal()
    site.accept(at(MIDNIGHT), at(MIDNIGHT, id="2:1"))
    site.seal()

    def killed(*_args: object, **_kwargs: object) -> None:
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(store, name, killed)
        with pytest.raises(InterruptedError):
            site.check_starts()
    site.check_starts()
    assert site.all_cpu_seconds() == 200
    assert site.quarantined() == [("start_changed", "open")]
    assert site.lake.scan().filter(pl.col("revision") == STRUCK).collect().height == 1
    site.account()


@pytest.mark.parametrize("lookup_cost", [0, 40])
def test_a_history_larger_than_memory_is_checked_part_by_part(
    site: Site, monkeypatch: pytest.MonkeyPatch, lookup_cost: int
) -> None:
    monkeypatch.setattr(start_check, "MOST_HASHES", 7)
    monkeypatch.setattr(start_check, "MOST_EVENTS", 2)
    monkeypatch.setattr(start_check, "LOOKUP_COST", lookup_cost)
    for year in range(3):
        site.accept(*(at(MIDNIGHT + year * YEAR, id=f"{job}:{year if job % 2 else 0}") for job in range(20)))
        site.seal()
    assert site.check_starts().struck == 2 * 10
    assert site.all_cpu_seconds() == 100 * (3 * 10 + 10)
    site.accept(at(MIDNIGHT + 9 * YEAR, id="1:1"))
    site.seal()
    assert site.check_starts().struck == 1


def test_other_events_under_the_same_hash_are_left_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "key_hash", partial(key_hash, bits=1))
    site.accept(*(at(MIDNIGHT, id=f"{job}:1") for job in range(6)))
    site.seal()
    site.accept(*(at(MIDNIGHT + YEAR, id=f"{job}:2") for job in range(6)), at(MIDNIGHT + YEAR, id="3:1"))
    site.seal()
    assert site.check_starts().struck == 1
    assert site.all_cpu_seconds() == 1200


def test_a_broken_row_is_resolved_by_an_old_event_of_any_date(site: Site) -> None:
    site.accept(at(MIDNIGHT - YEAR))
    site.seal()
    site.accept(rejected=(BROKEN,))
    site.seal()
    assert site.quarantined() == [("broken_row", "open")]
    assert site.check_starts().resolved == 1
    assert site.quarantined() == [("broken_row", "resolved")]


def test_there_is_nothing_to_check_in_an_empty_home(site: Site) -> None:
    assert site.check_starts() == start_check.StartCheck(0, 0, 0)
