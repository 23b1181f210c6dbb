"""`reconcile`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from hourbook.accruing import accrue_open_months
from hourbook.billing_run import reconcile as reconcile_run
from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, Section, notice, print_sections, refusals, say
from hourbook.cli.reading import Month
from hourbook.reconciliation_report import write_reports
from hourbook.reconciliation_run import Reconciled, SupplierCheck
from reconciliation.report import Table, discrepancy_table, item_table, margin_table, rejected_table, unpriced_table

# What a reader at a terminal needs of a difference; its sentence says the rest. Machines and files get every column.
SHOWN_DIFFERENCES = ("kind", "effect", "message_en")
SHOWN_ITEMS = ("cluster", "item", "metered_quantity", "contract_amount", "billed_quantity", "billed_amount")
SHOWN_ITEMS_TOO = ("difference", "named", "rest", "discrepancies")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reconcile", epilog="Example: hourbook reconcile 2026-11 --out reports")(reconcile)


def reconcile(
    context: typer.Context,
    month: Month,
    supplier: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write CSV and PDF into this folder.", file_okay=False)] = None,
    form: FormatOption = Format.table,
) -> None:
    """Compare suppliers' bills with what was metered and contracted; name every difference; show the margin."""
    home = home_of(context)
    accrue_open_months(home)
    with refusals(LookupError):
        reconciled = reconcile_run(home, month, supplier)
    print_sections(_sections(reconciled, form), form)
    for check in reconciled.suppliers:
        if check.bill and check.bill.bill.rejected:
            notice(
                f"{len(check.bill.bill.rejected)} line(s) of the bill of {check.supplier.id} could not be read and "
                "must be settled first: ask for a corrected bill and import that"
            )
    if out is not None:
        files = write_reports(reconciled, out)
        say(f"{len(files)} files in {out}", form)


def _sections(reconciled: Reconciled, form: Format) -> Iterator[Section]:
    if not reconciled.suppliers:
        notice("no supplier is on record; `hourbook apply` records suppliers and their contracts", style="dim")
    for check in reconciled.suppliers:
        yield from _of_supplier(check, reconciled, form)
    margin = margin_table(reconciled.margin, month=reconciled.month)
    shown = tuple(column.name for column in margin.columns) if form is Format.table else ()
    yield _section(margin, "margin", "Margin by cluster, net of tax", shown=shown)


def _of_supplier(check: SupplierCheck, reconciled: Reconciled, form: Format) -> Iterator[Section]:
    bill = f"bill version {check.bill.version}" if check.bill else "no bill yet: its cost is accrued"
    title, who = f"{check.supplier.name} {check.supplier.id}, {reconciled.month}: {bill}", check.supplier.id
    reader = form is Format.table
    items, found = item_table(check.result), discrepancy_table(check.result)
    yield _section(items, "items", title, who, (*SHOWN_ITEMS, *SHOWN_ITEMS_TOO) if reader else (), "nothing metered")
    if check.bill or found.rows:
        named = "Differences"
        yield _section(found, "differences", named, who, SHOWN_DIFFERENCES if reader else (), "none: the bill agrees")
    if check.result.unpriced:
        yield _section(unpriced_table(check.result), "unpriced", "Usage without a contract price", who)
    if check.bill and check.bill.bill.rejected:
        rejected = rejected_table(check.bill.bill.rejected, month=reconciled.month, currency=reconciled.currency)
        yield _section(rejected, "rejected", "Bill lines that could not be read; they must be settled", who)


def _section(
    table: Table, name: str, title: str, supplier: str = "", shown: tuple[str, ...] = (), empty: str = "none"
) -> Section:
    names = [column.name for column in table.columns]
    rows = [{"supplier": supplier, **dict(zip(names, cells, strict=True))} for cells in table.text_rows()]
    return Section(name, title, shown or ("supplier", *names), rows, empty)
