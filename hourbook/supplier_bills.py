"""Suppliers' bills: read, recorded as versions, what cannot be read kept with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from hourbook import facts
from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.settings import Home
from pricing.catalog import Catalog
from reconciliation.store import AddedBill, add_bill
from reconciliation.supplier_bill import BillFormatError, RejectedBillLine, load_bill

BillFileError = BillFormatError


@dataclass(frozen=True)
class ImportedBill:
    """What came of importing a bill."""

    lines: int
    rejected: tuple[RejectedBillLine, ...]
    version: int
    added: bool

    @property
    def message(self) -> str:
        """Say it in one line."""
        if not self.added:
            return f"already there (version {self.version}); nothing changed"
        return f"version {self.version}: {self.lines} lines, {len(self.rejected)} rejected"


def import_bill(home: Home, file: Path, *, supplier: str, month: str) -> ImportedBill:
    """Record a supplier's bill of a month; the same file again changes nothing, another one is a new version."""
    with read_session(home.engine) as session:
        recorded = facts.as_of(session)
    known = recorded.get("supplier", {})
    if supplier not in known:
        raise LookupError(f"supplier {supplier!r} is unknown; known are {', '.join(sorted(known)) or 'none yet'}")
    currency = Catalog.from_facts(recorded).currency
    bill = load_bill(file.read_bytes(), supplier=supplier, month=month, currency=currency)

    def work(session: Session) -> AddedBill:
        added = add_bill(session, bill, imported_at=home.now())
        crash_point("bill:before_commit")
        return added

    added = run_write(home.engine, work)
    crash_point("bill:after_commit")
    return ImportedBill(len(bill.lines), bill.rejected, added.version, added.added)
