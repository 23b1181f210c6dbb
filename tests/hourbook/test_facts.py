"""Facts are recorded once per version, and every earlier state can be read again."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from hourbook.database import read_session, write_session
from hourbook.facts import Changes, FactError, FactKey, as_of, latest, record
from hourbook.settings import Home
from tests.homes import NewHome

NOW = datetime(2026, 11, 3, 2, 0, tzinfo=UTC)
PHYSICS: FactKey = ("customers", "u-north-physics")
PRICE: FactKey = ("prices", "core-hour:2026-11-01")


@pytest.fixture
def home(new_home: NewHome, tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", NOW)


def apply(home: Home, facts: dict[FactKey, dict[str, Any]]) -> Changes:
    with write_session(home.engine) as session:
        return record(session, facts, NOW, source="prices.toml", person="li")


def test_new_changed_and_unchanged_facts_are_told_apart(home: Home) -> None:
    first = apply(home, {PHYSICS: {"name": "物理学院"}, PRICE: {"unit_price": "0.08"}})
    assert first == Changes(1, added=(PHYSICS, PRICE))
    second = apply(home, {PHYSICS: {"name": "物理学院"}, PRICE: {"unit_price": "0.09"}})
    assert second == Changes(2, changed=(PRICE,), unchanged=(PHYSICS,))


def test_the_same_facts_again_change_nothing(home: Home) -> None:
    facts = {PHYSICS: {"name": "物理学院", "kind": "university"}}
    apply(home, facts)
    again = apply(home, {PHYSICS: {"kind": "university", "name": "物理学院"}})
    assert again == Changes(1, unchanged=(PHYSICS,))
    with read_session(home.engine) as session:
        assert latest(session) == 1


def test_each_state_can_be_read_as_of_its_number(home: Home) -> None:
    apply(home, {PRICE: {"unit_price": "0.08"}})
    apply(home, {PRICE: {"unit_price": "0.09"}, PHYSICS: {"name": "物理学院"}})
    apply(home, {PRICE: {"unit_price": "0.08"}})
    with read_session(home.engine) as session:
        assert as_of(session, 0) == {}
        assert as_of(session, 1) == {"prices": {PRICE[1]: {"unit_price": "0.08"}}}
        assert as_of(session, 2)["prices"][PRICE[1]] == {"unit_price": "0.09"}
        assert as_of(session) == as_of(session, 3)
        assert as_of(session)["prices"][PRICE[1]] == {"unit_price": "0.08"}
        assert as_of(session)["customers"] == {PHYSICS[1]: {"name": "物理学院"}}


def test_a_fact_that_is_not_named_again_stays(home: Home) -> None:
    apply(home, {PHYSICS: {"name": "物理学院"}})
    assert apply(home, {PRICE: {"unit_price": "0.08"}}).unchanged == ()
    with read_session(home.engine) as session:
        assert set(as_of(session)) == {"customers", "prices"}


@pytest.mark.parametrize("body", [{"p": 0.08}, {"tiers": [{"p": 0.1}]}, {"p": Decimal("0.08")}, {"p": {1, 2}}])
def test_a_price_that_is_not_text_is_refused(home: Home, body: dict[str, Any]) -> None:
    with pytest.raises(FactError, match=r"prices 'core-hour:2026-11-01'.*write decimals as text"):
        apply(home, {PRICE: body})
    with read_session(home.engine) as session:
        assert latest(session) == 0


@pytest.mark.parametrize("statement", ["UPDATE fact SET body = '{}'", "DELETE FROM fact", "DELETE FROM apply_run"])
def test_recorded_facts_cannot_be_edited(home: Home, statement: str) -> None:
    apply(home, {PRICE: {"unit_price": "0.08"}})
    with pytest.raises(IntegrityError, match="append-only"), write_session(home.engine) as session:
        session.connection().exec_driver_sql(statement)
