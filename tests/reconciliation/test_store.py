"""Supplier bills as recorded: the same file once, another file as a new version, nothing edited."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlmodel import Session

from reconciliation.store import (
    add_bill,
    bill_versions,
    current_bill,
    suppliers_with_bill,
)
from reconciliation.supplier_bill import SupplierBill, load_bill
from tests.homes import NewHome

NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)
HEADER = "line_id,month,cluster,queue,login,item,quantity,unit,unit_price,amount"
LINE = "0001,2026-11,cpu2,cpu,grp_a,core-hour,0.000000000000000001,core-hour,0.0000001,50.00"
OTHER = "0001,2026-11,cpu2,cpu,grp_a,core-hour,990,core-hour,0.05,49.50"
BROKEN = "0002,2026-11,cpu2,cpu,grp_b,core-hour,-1,core-hour,0.05,50.00"


@pytest.fixture
def session(new_home: NewHome, tmp_path: Path) -> Iterator[Session]:
    engine = new_home(tmp_path / "home", NOW).engine
    with Session(engine.execution_options(hourbook_write=True)) as opened:
        yield opened


def bill(*lines: str) -> SupplierBill:
    return load_bill("\n".join([HEADER, *lines]).encode(), supplier="centre", month="2026-11")


def test_a_bill_reads_back_as_it_was_recorded(session: Session) -> None:
    sent = bill(LINE, BROKEN)
    added = add_bill(session, sent, imported_at=NOW)
    stored = current_bill(session, "centre", "2026-11")

    assert (added.version, added.added) == (1, True)
    assert stored is not None
    assert stored.bill == sent
    assert stored.imported_at == NOW
    assert [line.code for line in stored.bill.rejected] == ["negative"]


def test_the_same_file_again_is_already_there(session: Session) -> None:
    add_bill(session, bill(LINE), imported_at=NOW)
    again = add_bill(session, bill(LINE), imported_at=NOW)

    assert (again.added, again.version, again.current_version) == (False, 1, 1)
    assert len(bill_versions(session, "centre", "2026-11")) == 1


def test_another_file_takes_the_place_of_the_first_which_stays(session: Session) -> None:
    add_bill(session, bill(LINE), imported_at=NOW)
    add_bill(session, bill(OTHER), imported_at=NOW)
    back = add_bill(session, bill(LINE), imported_at=NOW)
    current = current_bill(session, "centre", "2026-11")

    assert current is not None
    assert (current.version, current.bill.billed_minor) == (2, 4950)
    assert (back.added, back.version, back.current_version) == (False, 1, 2)
    assert [stored.bill.billed_minor for stored in bill_versions(session, "centre", "2026-11")] == [5000, 4950]


def test_bills_of_other_suppliers_and_months_stand_apart(session: Session) -> None:
    add_bill(session, bill(LINE), imported_at=NOW)

    assert current_bill(session, "centre", "2026-10") is None
    assert current_bill(session, "other", "2026-11") is None
    assert suppliers_with_bill(session, "2026-11") == ("centre",)
    assert suppliers_with_bill(session, "2026-10") == ()
