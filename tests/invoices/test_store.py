"""Issued documents stay as they are, and their numbers have no gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from invoices import store
from invoices.document import DocumentContent
from tests.homes import NewHome

Make = Callable[..., DocumentContent]
NOW = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)


@pytest.fixture
def session(new_home: NewHome, tmp_path: Path) -> Iterator[Session]:
    engine = new_home(tmp_path / "home", NOW).engine
    with Session(engine.execution_options(hourbook_write=True)) as opened:
        yield opened


def test_numbers_follow_each_other_in_each_series(session: Session) -> None:
    assert store.next_numbers(session, "INV-2026", 2) == ["INV-2026-00001", "INV-2026-00002"]
    assert store.next_numbers(session, "STM-2026", 1) == ["STM-2026-00001"]
    assert store.next_numbers(session, "INV-2026", 1) == ["INV-2026-00003"]


def test_numbers_of_a_failed_transaction_are_taken_again(session: Session) -> None:
    store.next_numbers(session, "INV-2026", 5)
    session.rollback()
    assert store.next_numbers(session, "INV-2026", 1) == ["INV-2026-00001"]


def test_a_document_is_found_by_number_month_and_customer_as_it_was_issued(
    session: Session, invoice: Make, statement: Make
) -> None:
    issued = store.add_documents(session, [invoice(number=""), statement(number="")], NOW)
    session.commit()
    first = store.document(session, issued[0].number)
    assert store.content_of(first) == issued[0]
    assert [row.number for row in store.documents(session, customer="u-north-physics")] == [issued[1].number]
    assert len(store.documents(session, month="2026-11")) == 2
    assert store.documents(session, month="2026-10") == []


def test_a_second_invoice_for_the_same_month_and_contract_is_refused(session: Session, invoice: Make) -> None:
    store.add_documents(session, [invoice()], NOW)
    with pytest.raises(IntegrityError):
        store.add_documents(session, [invoice()], NOW)


def test_an_unknown_number_is_named(session: Session) -> None:
    with pytest.raises(LookupError, match="INV-2026-99999"):
        store.document(session, "INV-2026-99999")


def test_a_number_is_never_taken_back(session: Session) -> None:
    store.next_numbers(session, "INV-2026", 5)
    session.commit()
    for change in ("UPDATE number_series SET last = 4", "DELETE FROM number_series"):
        with pytest.raises(IntegrityError, match="never taken back"):
            session.connection().execute(text(change))
        session.rollback()


def test_a_close_keeps_what_it_is_pinned_to(session: Session) -> None:
    store.start_close(session, "2026-11", {"recorded_seq": 17}, date(2026, 12, 1), NOW)
    session.commit()
    with pytest.raises(IntegrityError, match="never changes"):
        session.connection().execute(text("UPDATE period_close SET pins = '{}'"))
    session.rollback()
    store.finish_close(session, "2026-11", NOW)
    session.commit()
    close = store.close_of(session, "2026-11")
    assert close is not None
    assert close.status == "closed"
    for change in ("UPDATE period_close SET status = 'closing'", "DELETE FROM period_close"):
        with pytest.raises(IntegrityError, match="never changes"):
            session.connection().execute(text(change))
        session.rollback()
