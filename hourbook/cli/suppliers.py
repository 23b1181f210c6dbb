"""`reconcile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hourbook.accruing import accrue_open_months
from hourbook.billing_run import reconcile as reconcile_run
from hourbook.cli.documents import month_of_text
from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, console, print_rows, refusals
from hourbook.reconciliation_report import write_reports
from reconciliation.report import Table, discrepancy_table, item_table, margin_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reconcile", epilog="Example: hourbook reconcile 2026-11 --out reports")(reconcile)


def reconcile(
    context: typer.Context,
    month: Annotated[str, typer.Argument(help="As 2026-11.")],
    supplier: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write CSV and PDF into this folder.", file_okay=False)] = None,
    form: FormatOption = Format.table,
) -> None:
    """Compare suppliers' bills with what was metered and contracted; name every difference; show the margin."""
    home, name = home_of(context), month_of_text(month)
    accrue_open_months(home)
    with refusals(LookupError):
        reconciled = reconcile_run(home, name, supplier)
    for check in reconciled.suppliers:
        if form is Format.table:
            bill = f"bill version {check.bill.version}" if check.bill else "no bill yet: its cost is accrued"
            console.print(f"\n[bold]{check.supplier.name}[/] {check.supplier.id}: {bill}", highlight=False)
        _print(item_table(check.result), form)
        _print(discrepancy_table(check.result), form)
    _print(margin_table(reconciled.margin, month=name), form)
    if out is not None:
        files = write_reports(reconciled, out)
        console.print(f"{len(files)} file(s) in {out}", highlight=False)


def _print(table: Table, form: Format) -> None:
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, cells, strict=True)) for cells in table.text_rows()]
    if form is Format.table:
        console.print(f"[dim]{table.en}[/]")
    print_rows(names, rows, form, empty="none")
