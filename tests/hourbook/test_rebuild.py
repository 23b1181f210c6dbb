"""An issued document can be derived again, byte for byte, whatever was recorded or cleaned up since."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import text

from hourbook.database import write_session
from hourbook.documents import pay, pdf_of, rebuild
from metering.lake import EventLake

from .month_stories import Operator, Run


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Two closed months with every kind of line, then everything that may happen to a home."""
    made = Operator(tmp_path_factory.mktemp("rebuild"))
    made.top_up("u-pre", "4.00", "r1", "2026-10-05")
    made.used(
        Run("o1", "physics", "2026-10-06T08:00", core_hours=33),
        Run("o2", "bio", "2026-10-06T08:00", core_hours=70),
        Run("o3", "own", "2026-10-06T08:00", core_hours=41),
        Run("o4", "dev", "2026-10-07T08:00", card_hours=9),
    )
    made.at("2026-11-02T10:00")
    made.close("2026-10")
    made.at("2026-12-02T10:00")
    made.used(
        Run("o1", "physics", "2026-10-06T08:00", core_hours=21, revision=2),
        Run("n1", "dev", "2026-11-20T08:00", card_hours=3),
    )
    made.close("2026-11")
    made.render()
    return made


def learn_more(operator: Operator) -> None:
    """Record new and late events, prices, contracts, receipts and payments."""
    operator.at("2027-01-02T10:00")
    operator.used(
        Run("late", "physics", "2026-10-06T09:00", core_hours=5),
        Run("o2", "bio", "2026-10-06T08:00", core_hours=1, revision=2),
        Run("n1", "dev", "2026-11-20T08:00", revision=2, partition="gpu"),
        Run("new", "chem", "2026-12-06T08:00", core_hours=8),
    )
    operator.apply(
        '[[prices]]\nsku = "core-hour"\neffective_from = 2026-10-01\nunit_price = 0.90\n'
        '[[prices]]\nsku = "card-hour"\neffective_from = 2026-11-02\nunit_price = 1\n'
        '[[customers]]\nid = "a-west"\nname = "West"\nkind = "company"\n'
        '[[contracts]]\nnumber = "HT-0"\ncustomer = "a-west"\nsigned_on = 2026-01-01\nvalid_from = 2026-01-01\n'
        'last_day = 2027-12-31\nbilling = "prepaid"\ntimezone = "America/New_York"\n'
    )
    operator.top_up("u-pre", "70.00", "r2", "2026-10-02")
    number = operator.document("2026-10", "c-both", "invoice").number
    pay(operator.home, number, 1000, reference="p1", paid_on=date(2026, 12, 2))
    operator.accrue()


def test_documents_are_the_same_after_everything_that_happens_to_a_home(operator: Operator) -> None:
    issued = {one.number: pdf_of(operator.home, one.number) for one in operator.documents()}
    learn_more(operator)
    assert operator.rebuilt_to_the_byte() == []
    operator.at("2027-01-03T10:00")
    operator.close("2026-12")
    lake, lake_folder = EventLake(operator.home.lake), operator.home.path / "lake"
    files = {*lake_folder.rglob("*.parquet")}
    lake.compact()
    assert lake.vacuum(keep_hours=0)
    for rollup in (lake_folder / "rollup").rglob("*.parquet"):
        rollup.unlink()
    assert files - {*lake_folder.rglob("*.parquet")}, "files that the documents were made from are gone"
    again = {one.number: rebuild(operator.home, one.number) for one in operator.documents()}
    assert all(one.equal for one in again.values())
    assert {number: again[number].pdf for number in issued} == issued


def test_a_document_that_was_altered_is_found_out(operator: Operator) -> None:
    number = operator.documents()[0].number
    with write_session(operator.home.engine) as session:
        connection = session.connection()
        names = connection.execute(
            text("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'document'")
        )
        for (name,) in names.all():
            connection.execute(text(f"DROP TRIGGER {name}"))
        altered = text("UPDATE document SET content_hash = 'other' WHERE number = :number")
        connection.execute(altered, {"number": number})
    assert not rebuild(operator.home, number).content_equal


def test_nothing_is_derived_under_a_number_that_was_never_issued(operator: Operator) -> None:
    with pytest.raises(LookupError, match="INV-2026-99999"):
        rebuild(operator.home, "INV-2026-99999")


def test_the_first_pages_are_kept_as_the_measure_of_later_ones(operator: Operator, tmp_path: Path) -> None:
    number = operator.documents()[-1].number
    assert pdf_of(operator.home, number) == pdf_of(operator.home, number)
