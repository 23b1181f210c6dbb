"""The inbox and quarantine: what was accepted is recorded, numbered without gaps, and nothing opens twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from sqlmodel import Session

from metering import store
from metering.events import EVENT_SCHEMA, Collected, RejectedEvent
from metering.plan import RollupPlan
from tests.homes import NewHome

Events = Callable[..., pl.DataFrame]
NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)
BROKEN = RejectedEvent("broken_row", "not 52 columns", b"a|b", line=7, source="slurm:hpc1", event_id="9:1")


@pytest.fixture
def session(new_home: NewHome, tmp_path: Path) -> Iterator[Session]:
    home = new_home(tmp_path / "home", NOW)
    with Session(home.engine.execution_options(hourbook_write=True)) as session, session.begin():
        yield session


def collected(events: pl.DataFrame, *rejected: RejectedEvent, **no_usage: int) -> Collected:
    return Collected(events, rejected, no_usage, notes=("a note",))


def accepted(session: Session, file: Collected, origin: str = "sacct.psv") -> store.BatchReceipt:
    return store.accept(session, file, origin, "digest", NOW, kind="slurm")


def test_a_receipt_accounts_for_every_row(session: Session, events_of: Events) -> None:
    receipt = accepted(session, collected(events_of({"id": "1"}, {"id": "2"}), BROKEN, step=3, revoked=0))
    assert receipt == store.BatchReceipt(1, "sacct.psv", 6, 2, {"step": 3}, {"broken_row": 1}, 0, ("a note",))


def test_events_are_numbered_without_gaps_over_all_batches(session: Session, events_of: Events) -> None:
    accepted(session, collected(events_of({"id": "1"}, {"id": "2"})))
    accepted(session, collected(EVENT_SCHEMA.to_frame(), BROKEN))
    accepted(session, collected(events_of({"id": "3"})))
    batches = store.unsealed(session, most_events=100)
    rows = pl.concat([store.batch_events(batch) for batch in batches])
    assert rows.select("id", "recorded_seq", "batch_seq").rows() == [("1", 1, 1), ("2", 2, 1), ("3", 3, 3)]


def test_events_come_back_as_they_were(session: Session, events_of: Events) -> None:
    events = events_of({"user": "李|\n\x1f", "cards": "a100:333", "revision": 2**62})
    accepted(session, collected(events))
    (batch,) = store.unsealed(session, most_events=100)
    assert store.batch_events(batch).select(list(EVENT_SCHEMA)).equals(events)


def test_events_wait_in_order_and_at_least_one_batch_is_offered(session: Session, events_of: Events) -> None:
    for name in ("1", "2", "3"):
        accepted(session, collected(events_of({"id": name}, {"id": name + "b"})))
    assert [batch.batch_seq for batch in store.unsealed(session, most_events=0)] == [1]
    assert [batch.batch_seq for batch in store.unsealed(session, most_events=4)] == [1, 2]
    store.mark_sealed(session, [1])
    assert [batch.batch_seq for batch in store.unsealed(session, most_events=100)] == [2, 3]


def test_a_rejected_row_is_kept_with_its_bytes_and_reason(session: Session, events_of: Events) -> None:
    accepted(session, collected(events_of(), BROKEN))
    entry = store.quarantine_entry(session, "Q-1")
    assert (entry.id, entry.code, entry.raw, entry.line, entry.status) == ("Q-1", "broken_row", b"a|b", 7, "open")


def test_a_row_with_a_null_character_is_kept_where_text_has_none(session: Session, events_of: Events) -> None:
    # Text of PostgreSQL cannot hold one; the bytes as they came are kept whole.
    broken = RejectedEvent("broken_row", "job a\0b", b"a\0b", 7, source="slurm:h\0", event_id="9:\0", month="2026-11")
    accepted(session, collected(events_of(), broken), origin="a\0b")
    session.flush()
    session.expire_all()
    entry = store.quarantine_entry(session, "Q-1")
    assert (entry.raw, entry.message, entry.source, entry.event_id) == (b"a\0b", "job a␀b", "slurm:h␀", "9:␀")


def test_the_same_broken_row_again_does_not_open_twice(session: Session, events_of: Events) -> None:
    accepted(session, collected(events_of(), BROKEN))
    again = accepted(session, collected(events_of(), BROKEN, BROKEN))
    assert (again.quarantined, again.repeated) == ({"broken_row": 2}, 2)
    assert len(store.quarantine(session)) == 1


def test_the_same_bytes_refused_for_another_reason_open_again(session: Session, events_of: Events) -> None:
    other = RejectedEvent("unknown_state", "state DREAMING", BROKEN.raw, line=7)
    accepted(session, collected(events_of(), BROKEN, other))
    assert [entry.code for entry in store.quarantine(session)] == ["broken_row", "unknown_state"]


def test_a_month_shows_every_entry_that_could_be_of_it(session: Session, events_of: Events) -> None:
    # In Shanghai, November begins while it is still October in UTC.
    months = ("2026-11", "", "2026-10", "2026-09", "2026-12")
    rejected = [RejectedEvent("broken_row", "m", month.encode(), 1, month=month) for month in months]
    accepted(session, collected(events_of(), *rejected))
    shown = store.quarantine(session, status="open", month="2026-11")
    assert [entry.month for entry in shown] == ["2026-11", "", "2026-10"]


def test_a_decision_stands(session: Session, events_of: Events) -> None:
    accepted(session, collected(events_of(), BROKEN))
    entry = store.quarantine_entry(session, "Q-1")
    store.close_entry(session, entry, "written_off", NOW, resolved_by="finance", reason="a test job")
    with pytest.raises(ValueError, match="written_off already, by finance"):
        store.close_entry(session, entry, "dismissed", NOW, resolved_by="somebody", reason="")
    assert store.quarantine(session, status="open") == []


@pytest.mark.parametrize("name", ["Q-7", "Q-", "seven", "Q-٣"])
def test_an_unknown_entry_is_refused_by_name(session: Session, name: str) -> None:
    with pytest.raises(LookupError, match="no quarantine entry"):
        store.quarantine_entry(session, name)


def test_an_equal_plan_keeps_its_number(session: Session) -> None:
    shanghai, berlin = RollupPlan(zones=("Asia/Shanghai",)), RollupPlan(zones=("Europe/Berlin",))
    assert store.plan_number(session, shanghai) is None
    assert store.register_plan(session, shanghai, NOW) == 1
    assert store.register_plan(session, berlin, NOW) == 2
    assert store.register_plan(session, RollupPlan(zones=("Asia/Shanghai",)), NOW) == 1
    assert store.plan_of(session, 2) == berlin
