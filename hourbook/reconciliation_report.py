"""The reconciliation on paper: one CSV and one PDF per supplier, and the margin by cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hourbook.reconciliation_run import Reconciled, SupplierCheck
from invoices.blocks import Block, Column, Heading, Masthead, PageSetup, Paragraph, Row, Spacer
from invoices.blocks import Table as PrintedTable
from invoices.pdf import render_blocks
from reconciliation.report import (
    Table,
    discrepancy_table,
    item_table,
    margin_table,
    match_table,
    rejected_table,
    to_csv,
    totals_table,
    unpriced_table,
)

_WIDE_FORMS = ("text",)


def write_reports(reconciled: Reconciled, out: Path) -> list[Path]:
    """Write every supplier's reconciliation and the margin into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    month = reconciled.month
    files = {}
    for check in reconciled.suppliers:
        stem = f"{check.supplier.id}-{month}"
        files[f"{stem}.csv"] = to_csv(match_table(check.result))
        files[f"{stem}-differences.csv"] = to_csv(discrepancy_table(check.result))
        files[f"{stem}.pdf"] = _supplier_pdf(check, reconciled)
    margin = margin_table(reconciled.margin, month=month)
    files[f"margin-{month}.csv"] = to_csv(margin)
    files[f"margin-{month}.pdf"] = _pdf(f"毛利 {month}", "Margin by cluster, net of tax", "", [margin])
    written = []
    for name, payload in files.items():
        written.append(out / name)
        written[-1].write_bytes(payload)
    return written


def _supplier_pdf(check: SupplierCheck, reconciled: Reconciled) -> bytes:
    tables = [
        totals_table(check.result),
        item_table(check.result),
        discrepancy_table(check.result),
        match_table(check.result),
    ]
    if check.result.unpriced:
        tables.append(unpriced_table(check.result))
    if check.bill and check.bill.bill.rejected:
        tables.append(rejected_table(check.bill.bill.rejected, month=reconciled.month, currency=reconciled.currency))
    bill = f"bill version {check.bill.version}" if check.bill else "no bill yet; cost accrued"
    title = f"供应商对账 {reconciled.month}"
    return _pdf(
        title,
        f"Supplier reconciliation: {check.supplier.name_en or check.supplier.id}, {bill}",
        check.supplier.name,
        tables,
    )


def _pdf(title: str, subtitle: str, who: str, tables: Sequence[Table]) -> bytes:
    blocks: list[Block] = [Masthead(who or "Hourbook", (subtitle,), title, "", "")]
    for table in tables:
        blocks += [Spacer(8), Heading(table.zh, table.en)]
        blocks += _printed(table)
    setup = PageSetup(title=title, author="Hourbook", footer_left=f"{title} {who}".strip(), landscape=True)
    return render_blocks(blocks, setup)


def _printed(table: Table) -> Iterable[Block]:
    if not table.rows:
        return [Paragraph("无 none", "muted")]
    columns = tuple(
        Column(
            column.zh,
            column.en,
            "left" if column.form in _WIDE_FORMS else "right",
            1 if column.form in _WIDE_FORMS else 0,
        )
        for column in table.columns
    )
    return [PrintedTable(columns, tuple(Row(cells) for cells in table.text_rows()))]
