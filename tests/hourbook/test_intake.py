"""Taking usage in: whoever waits at the same time shares a commit, and each gets an answer of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import orjson
import pytest
from sqlalchemy import event

from hourbook.database import open_home, read_session
from hourbook.errors import MalformedError
from hourbook.gathering import Gathering, OverloadedError, Room
from hourbook.importing import accept_batches
from hourbook.intake import Intake, Outcome, Submission
from hourbook.settings import Home, Settings
from metering import store as metering
from tests.homes import NewHome
from tests.hourbook.served import usage_event

NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)


@pytest.fixture
def home(new_home: NewHome, tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", NOW)


def sent(body: object, key: str = "key-1") -> Submission:
    return Submission(orjson.dumps(body), "json", gzipped=False, key_id=key, opening=b"{[")


def batches_of(home: Home) -> list[metering.InboxBatchRow]:
    with read_session(home.engine) as session:
        found = metering.inbox_batches(session)
        session.expunge_all()
        return found


def submit_while_it_waits(intake: Intake, home: Home, submissions: Sequence[Submission]) -> list[Future[Outcome]]:
    """Submit all while nothing can be written, so that they wait together."""
    with intake._writing:  # noqa: SLF001 - the only way to make them wait for sure
        busy = [intake.submit(sent(usage_event(number))) for number in (901, 902)]  # one for each worker
        while intake._gathering._waiting:  # noqa: SLF001
            pass
        waiting = [intake.submit(submission) for submission in submissions]
    for one in busy:
        one.result(timeout=30)
    return waiting


def test_single_events_that_wait_together_become_one_batch(home: Home) -> None:
    intake = Intake(home, Settings())
    waiting = submit_while_it_waits(intake, home, [sent(usage_event(number)) for number in range(40)])
    outcomes = [one.result(timeout=30) for one in waiting]
    assert len({outcome.batch for outcome in outcomes}) == 1
    assert [outcome.rows for outcome in outcomes] == [1] * 40
    (batch,) = [batch for batch in batches_of(home) if batch.batch_seq == outcomes[0].batch]
    assert batch.events == 40


def test_each_key_has_a_batch_of_its_own_in_the_same_commit(home: Home) -> None:
    intake = Intake(home, Settings())
    commits: list[object] = []
    bodies = [sent([usage_event(1), usage_event(2)], "a"), sent(usage_event(3), "b"), sent(usage_event(4), "a")]
    waiting = submit_while_it_waits(intake, home, bodies)
    event.listen(home.engine, "commit", commits.append)
    first, second, third = [one.result(timeout=30) for one in waiting]
    assert (first.batch, second.batch, first.rows) == (third.batch, first.batch + 1, 2)
    batches = {batch.batch_seq: batch for batch in batches_of(home)}
    assert [(batches[one.batch].events, batches[one.batch].origin[:2]) for one in (first, second)] == [
        (3, "a:"),
        (1, "b:"),
    ]


def test_what_is_wrong_with_one_body_is_told_to_its_sender_alone(home: Home) -> None:
    intake = Intake(home, Settings())
    naive = usage_event(2, start="2026-11-25T00:00:00")
    broken = Submission(b"{broken", "json", gzipped=False, key_id="key-1", opening=b"{")
    good, half, bad = submit_while_it_waits(intake, home, [sent(usage_event(1)), sent([usage_event(3), naive]), broken])
    assert (good.result(timeout=30).refused, good.result().batch) == ([], half.result().batch)
    assert [(place, row.code) for place, row in half.result().refused] == [(1, "naive_time")]
    with pytest.raises(MalformedError):
        bad.result()


def test_several_processes_number_their_batches_without_gaps(home: Home) -> None:
    # Each has its own connections and its own lock: only the database stands between them.
    others = [open_home(home.path) for _ in range(3)]
    intakes = [Intake(one, Settings()) for one in (home, *others)]
    with ThreadPoolExecutor(16) as callers:
        outcomes = list(
            callers.map(lambda number: intakes[number % 4].submit(sent(usage_event(number))).result(60), range(120))
        )
    batches = batches_of(home)
    assert [batch.batch_seq for batch in batches] == list(range(1, len(batches) + 1))
    assert sum(batch.events for batch in batches) == 120
    assert {outcome.batch for outcome in outcomes} == {batch.batch_seq for batch in batches}
    ends = [batch.first_seq + batch.events for batch in batches]
    assert [batch.first_seq for batch in batches] == [1, *ends[:-1]]
    for one in others:
        one.close()


def test_nobody_is_told_of_success_before_the_commit(home: Home) -> None:
    intake = Intake(home, Settings())

    def refuse(_connection: object) -> None:
        raise OSError(28, "No space left on device")

    event.listen(home.engine, "commit", refuse)
    try:
        with pytest.raises(OSError, match="No space"):
            intake.submit(sent(usage_event(1))).result(timeout=30)
    finally:
        event.remove(home.engine, "commit", refuse)
    assert intake.submit(sent(usage_event(1))).result(timeout=30).rows == 1


def test_a_runaway_counts_up_to_its_cap(home: Home) -> None:
    body = usage_event(1, end=None, as_of="2026-11-30T00:00:00+08:00", time_limit_seconds=3600)
    batch = Intake(home, Settings()).submit(sent(body)).result(timeout=30).batch
    with read_session(home.engine) as session:
        (row,) = [row for row in metering.unsealed(session, 10) if row.batch_seq == batch]
        event_row = metering.batch_events(row).row(0, named=True)
    assert event_row["end_second"] - event_row["start_second"] < 5 * 86_400
    assert "stated_end_second" in event_row["evidence"]


class Slow:
    """Work that waits until it is let go."""

    def __init__(self) -> None:
        self.go, self.groups = Event(), list[list[int]]()

    def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.go.wait(30)
        self.groups.append(list(items))
        return [ValueError(f"{item}") if item < 0 else item * 2 for item in items]


@pytest.fixture
def slow() -> Iterator[Slow]:
    work = Slow()
    yield work
    work.go.set()


def test_groups_are_made_of_what_waits_up_to_a_weight(slow: Slow) -> None:
    gathering = Gathering(slow, workers=1, most=100, group=10)
    answers = [gathering.submit(0)]
    while gathering._waiting:  # noqa: SLF001 - the worker takes it in its own time
        pass
    answers += [gathering.submit(number, weight) for number, weight in enumerate([4, 4, 4, 99, 1], start=1)]
    slow.go.set()
    assert [answer.result(30) for answer in answers] == [0, 2, 4, 6, 8, 10]
    assert slow.groups == [[0], [1, 2], [3], [4], [5]]


def test_a_failure_is_told_to_whom_it_concerns(slow: Slow) -> None:
    gathering = Gathering(slow, workers=1, most=100, group=10)
    good, bad = gathering.submit(1), gathering.submit(-1)
    slow.go.set()
    assert good.result(30) == 2
    with pytest.raises(ValueError, match="-1"):
        bad.result(30)


def test_a_panic_of_a_library_leaves_nobody_waiting() -> None:
    class Panic(BaseException):
        """As polars raises it: no Exception."""

    def work(items: Sequence[int]) -> Sequence[int | Exception]:
        if 0 in items:
            raise Panic("assertion failed")
        return items

    gathering: Gathering[int, int] = Gathering(work, workers=1, most=10, group=1)
    with pytest.raises(RuntimeError, match="Panic: assertion failed"):
        gathering.submit(0).result(30)
    assert gathering.submit(1).result(30) == 1


def test_more_than_may_wait_are_refused_at_once(slow: Slow) -> None:
    gathering = Gathering(slow, workers=1, most=3, group=1)
    first = gathering.submit(0)
    while gathering._waiting:  # noqa: SLF001 - the worker takes it in its own time
        pass
    waiting = [gathering.submit(number) for number in (1, 2, 3)]
    with pytest.raises(OverloadedError, match="3 requests wait"):
        gathering.submit(4)
    slow.go.set()
    assert [one.result(30) for one in (first, *waiting)] == [0, 2, 4, 6]
    assert gathering.submit(5).result(30) == 10


def test_room_is_given_back_whatever_happens() -> None:
    room = Room(10)

    def fail() -> None:
        with room.reserved() as take:
            take(8)
            with pytest.raises(OverloadedError), room.reserved() as other:
                other(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with room.reserved() as take:
        take(10)


def test_a_full_inbox_takes_nothing_more(home: Home) -> None:
    Intake(home, Settings()).submit(sent(usage_event(1))).result(timeout=30)
    with pytest.raises(OverloadedError, match="1 events wait"):
        accept_batches(home, [], most_unsealed=1)
