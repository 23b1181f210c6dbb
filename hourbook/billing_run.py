"""The main run, start here: a month from cluster logs to bills. Each step is one function that can be read on its own.

    clusters ──▶ inbox ──▶ lake ──▶ rollup ──▶ charges ──▶ ledger ──▶ invoices and statements
                                       └────▶ suppliers' bills ──▶ differences, margin

Every step can be killed anywhere and run again: each has a unique key on its business fact, so it has one effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hourbook.accruing import Accrued, accrue_open_months
from hourbook.applying import Applied, apply_files
from hourbook.closes import closes_by_month
from hourbook.closing import Closed, close_month
from hourbook.database import read_session
from hourbook.importing import SlurmLog, import_slurm
from hourbook.reading import Reading
from hourbook.receiving import TopUp, receive
from hourbook.reconciliation_run import Reconciled, reconcile_month
from hourbook.refreshing import Progress, current_pins
from hourbook.settings import Home
from hourbook.supplier_bills import import_bill
from metering.store import BatchReceipt


@dataclass(frozen=True)
class Month:
    """What a month is run on."""

    month: str
    configuration: Sequence[Path]
    logs: Sequence[tuple[str, Sequence[Path]]]  # cluster, files in the order a collector delivered them
    receipts: Sequence[TopUp]
    supplier_bills: Sequence[tuple[str, Path]]  # supplier, file


@dataclass(frozen=True)
class MonthRun:
    """What came of it."""

    applied: Applied
    imported: tuple[BatchReceipt, ...]
    accrued: Accrued
    closed: Closed
    reconciled: Reconciled


def run_month(home: Home, given: Month, progress: Progress) -> MonthRun:
    """Run a month from its inputs to issued documents and checked suppliers."""
    applied = apply_files(home, given.configuration)
    imported: list[BatchReceipt] = []
    for cluster, files in given.logs:
        imported += import_slurm(home, files, SlurmLog(cluster), once=True, progress=progress).receipts
    for done, receipt in enumerate(given.receipts, start=1):
        receive(home, receipt)
        progress("receipts", done, len(given.receipts))
    progress("accrue", 0, 1)
    accrued = accrue_open_months(home)
    progress("accrue", 1, 1)
    closed = close_month(home, given.month, progress)
    for supplier, bill in given.supplier_bills:
        import_bill(home, bill, supplier=supplier, month=given.month)
    return MonthRun(applied, tuple(imported), accrued, closed, reconcile(home, given.month))


def reconcile(home: Home, month: str, supplier: str | None = None) -> Reconciled:
    """Check suppliers' bills of a month against what was metered and contracted, as things stand now."""
    with read_session(home.engine) as session:
        reading = Reading(home, session, current_pins(session), closes_by_month(session))
        return reconcile_month(reading, month, supplier)
