"""A closed month never holds an event at two starts."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from hourbook import closing, sealing
from hourbook.closes import closes_by_month
from hourbook.database import read_session
from hourbook.refreshing import Progress, refresh
from hourbook.settings import Home
from hourbook.start_check import StartCheck, check_starts
from metering.store import starts_checked_to

from .month_stories import Operator, Run, lines_of


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    # Sealing looks at a batch's own dates alone, as if many others had received events since.
    monkeypatch.setattr(sealing, "RECENT_DATES", 0)
    made = Operator(tmp_path)
    yield made
    made.home.close()


def usage_of(operator: Operator, month: str) -> list[tuple[str, Decimal]]:
    """Original month and hours of every line of a month's documents."""
    lines = [line for one in operator.documents(month) for line in lines_of(one)]
    return [(original, quantity) for _, original, _, quantity, _ in lines]


def test_an_id_of_an_earlier_month_with_another_start_is_found_by_the_close(operator: Operator) -> None:
    operator.used(Run("job", "physics", "2026-10-05T08:00", core_hours=10))
    operator.at("2026-11-03T10:00")
    operator.close("2026-10")
    operator.used(Run("job", "physics", "2026-11-02T08:00", core_hours=10, revision=2))
    operator.used(Run("own", "physics", "2026-11-02T08:00", core_hours=1))
    operator.at("2026-12-03T10:00")
    assert [code for code, _ in operator.blocked("2026-11")] == ["start_changed"]
    operator.resolve("Q-1", dismiss=True)
    operator.close("2026-11")
    assert usage_of(operator, "2026-11") == [("2026-11", Decimal(1))]
    assert operator.rebuilt() == []


def test_what_arrives_while_starts_are_checked_is_charged_with_the_next_month(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.used(Run("known", "physics", "2026-10-05T08:00", core_hours=10))
    operator.at("2026-11-03T10:00")

    def and_then_more_arrives(home: Home, progress: Progress) -> StartCheck:
        checked = check_starts(home, progress)
        operator.used(Run("known", "physics", "2026-10-06T08:00", core_hours=10))
        operator.used(Run("late", "physics", "2026-10-06T08:00", core_hours=3))
        refresh(home)
        return checked

    with monkeypatch.context() as patch:
        patch.setattr(closing, "check_starts", and_then_more_arrives)
        closing.close_month(operator.home, "2026-10")
    with read_session(operator.home.engine) as session:
        assert closes_by_month(session)["2026-10"].recorded_seq == starts_checked_to(session) == 1
    operator.at("2026-12-03T10:00")
    assert [code for code, _ in operator.blocked("2026-11")] == ["start_changed"]
    operator.resolve("Q-1", dismiss=True)
    operator.close("2026-11")
    assert usage_of(operator, "2026-10") == [("2026-10", Decimal(10))]
    assert usage_of(operator, "2026-11") == [("2026-10", Decimal(3))]
    assert operator.rebuilt() == []
