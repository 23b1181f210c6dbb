"""What `make demo` tells at the terminal: where every row went, hours, charges, documents, differences, margin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from base.money import format_grouped
from base.period import month_days
from hourbook.billing_run import MonthRun
from hourbook.database import read_session
from hourbook.sealing import BatchAccount, total_account, usage_accounting
from hourbook.settings import Home
from hourbook.usage_report import COLUMNS, UsageQuery, usage_report
from invoices.document import DocumentContent
from metering import store as metering
from metering.identity import STATUSES
from metering.lake import EventLake
from reconciliation.report import margin_table


@dataclass(frozen=True)
class DocumentSum:
    """The documents of a kind, added up."""

    kind: str
    number: int
    total: str
    tax: str
    closing: str  # what prepaid customers have left
    arrears: str


@dataclass(frozen=True)
class DemoFigures:
    """Everything that the summary and the page show."""

    month: str
    run: MonthRun
    accounts: Sequence[BatchAccount]
    total: BatchAccount
    open_entries: Mapping[str, int]  # code -> entries of quarantine that nobody and nothing has resolved yet
    hours: Sequence[Mapping[str, Any]]  # by cluster
    by_day: Sequence[Mapping[str, Any]]  # by day and cluster
    commands: Sequence[str]  # to try next

    def documents(self) -> list[DocumentContent]:
        """Return the month's documents by number, invoices first."""
        return sorted(self.run.closed.documents, key=lambda content: (content.kind, content.number))

    def document_sums(self) -> list[DocumentSum]:
        """Add up invoices and statements."""
        return [_document_sum(self.run, kind) for kind in ("invoice", "statement")]


def gather(home: Home, run: MonthRun, commands: Sequence[str]) -> DemoFigures:
    """Read what the summary and the page show."""
    month = run.closed.month
    first, last = month_days(month)
    with read_session(home.engine) as session:
        accounts = usage_accounting(session, EventLake(home.lake))
        left: dict[str, int] = defaultdict(int)
        for entry in metering.quarantine(session, status="open"):
            left[entry.code] += 1
        hours = usage_report(home, session, UsageQuery(first, last, ("cluster",))).to_dicts()
        by_day = usage_report(home, session, UsageQuery(first, last, ("day", "cluster"))).to_dicts()
    return DemoFigures(month, run, accounts, total_account(accounts), left, hours, by_day, commands)


def product_totals(run: MonthRun) -> dict[str, int]:
    """Return what was charged by product, tax included."""
    charged: dict[str, int] = defaultdict(int)
    for content in run.closed.documents:
        for line in content.lines:
            charged[line.product] += line.amount_minor
    return dict(sorted(charged.items()))


def print_summary(console: Console, figures: DemoFigures) -> None:
    """Print the summary tables."""
    run = figures.run
    console.print(_table("Rows", ("what", "rows", "still open"), _row_fates(figures)))
    console.print(
        _table(
            "Hours", ("cluster", *COLUMNS), [tuple(str(row[c]) for c in ("cluster", *COLUMNS)) for row in figures.hours]
        )
    )
    charged = product_totals(run)
    products = [(product, format_grouped(minor, "CNY")) for product, minor in charged.items()]
    total = ("all", format_grouped(sum(charged.values()), "CNY"))
    console.print(_table("Charges, CNY, tax included", ("product", "amount"), [*products, total]))
    columns = ("kind", "number", "total CNY", "of it tax", "balance left", "arrears")
    sums = [(s.kind, str(s.number), s.total, s.tax, s.closing, s.arrears) for s in figures.document_sums()]
    console.print(_table("Documents", columns, sums))
    title = "Supplier differences, CNY; above 0: billed too much"
    console.print(_table(title, ("supplier", "kind", "effect", "what"), _differences(run)))
    console.print(_table("Margin by cluster, CNY, net of tax", *_margins(run)))


def _row_fates(figures: DemoFigures) -> list[tuple[str, ...]]:
    account = figures.total
    rows = [("rows in", account.rows, ""), *((name, account.statuses.get(name, 0), "") for name in STATUSES)]
    rows += [(f"no usage: {reason}", count, "") for reason, count in account.no_usage.items()]
    rows += [
        (f"quarantined: {code}", count, str(figures.open_entries.get(code, 0)))
        for code, count in account.quarantined.items()
    ]
    return [(name, f"{count:,}", still_open) for name, count, still_open in rows if count]


def _document_sum(run: MonthRun, kind: str) -> DocumentSum:
    contents = [content for content in run.closed.documents if content.kind == kind]
    wallets = [content.wallet for content in contents if content.wallet]
    sums = (
        sum(content.total_minor for content in contents),
        sum(content.tax_minor for content in contents),
        sum(wallet.closing_minor for wallet in wallets),
        sum(wallet.arrears_closing_minor for wallet in wallets),
    )
    total, tax, closing, arrears = (format_grouped(minor, "CNY") for minor in sums)
    prepaid = (closing, arrears) if wallets else ("", "")
    return DocumentSum(kind, len(contents), total, tax, *prepaid)


def _differences(run: MonthRun) -> list[tuple[str, ...]]:
    return [
        (check.supplier.id, found.kind, format_grouped(found.amount_minor, "CNY"), found.message_en)
        for check in run.reconciled.suppliers
        for found in check.result.discrepancies
    ]


def _margins(run: MonthRun) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    table = margin_table(run.reconciled.margin, month=run.closed.month)
    wanted = ("cluster", "revenue", "cost", "margin", "margin_rate", "cost_per_core_hour", "cost_per_card_hour")
    places = [n for n, column in enumerate(table.columns) if column.name in wanted]
    names = tuple(table.columns[n].en for n in places)
    return names, [tuple(_grouped(row[n]) for n in places) for row in table.text_rows()]


def _grouped(text: str) -> str:
    whole, dot, part = text.partition(".")
    return f"{int(whole):,}{dot}{part}" if dot and whole.lstrip("-").isdecimal() and abs(int(whole)) else text


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(
        title=f"\n{title}", title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for n, column in enumerate(columns):
        cells = [row[n].replace(",", "").replace(".", "").lstrip("-") for row in rows]
        figures = n > 0 and all(not cell or cell.isdecimal() for cell in cells)
        table.add_column(column.replace("_", " "), justify="right" if figures else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
