"""`make demo`: the month of the sample operator, from real and generated logs to bills, suppliers and margin."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from base.money import format_grouped, parse_amount
from hourbook.billing_run import Month, MonthRun, run_month
from hourbook.cli.documents import write_pdfs
from hourbook.cli.output import Steps
from hourbook.closing import CloseRefusedError
from hourbook.database import create_home, open_home, read_session
from hourbook.demo_page import write_page
from hourbook.receiving import TopUp
from hourbook.reconciliation_report import write_reports
from hourbook.sealing import BatchAccount, total_account, usage_accounting
from hourbook.settings import DATABASE_FILE, Home
from hourbook.usage_report import COLUMNS, UsageQuery, usage_report
from metering.lake import EventLake

CLOCK = datetime.fromisoformat("2026-12-01T10:00:00+08:00")
MONTH = "2026-11"
SAMPLE = Path(__file__).resolve().parents[1] / "fixtures" / "operator"
OUT = Path("demo")


def sample_month(sample: Path = SAMPLE) -> Month:
    """Return the sample operator's inputs, in the order in which they were delivered."""
    real = sample / "hpc1"
    folders = [line.split()[1] for line in (real / "INDEX.txt").read_text(encoding="utf-8").splitlines() if line]
    dumps = [real / folder / "sacct.psv.gz" for folder in folders]
    clean = real / "D9_final_all" / "sacct-epoch-name-last.psv.gz"
    generated = [(cluster, sorted((sample / cluster).glob("*.psv.gz"))) for cluster in ("ai1", "cpu2")]
    with (sample / "receipts.csv").open(encoding="utf-8") as file:
        receipts = [_receipt(row) for row in csv.DictReader(file)]
    bills = [(bill.stem.removesuffix(f"-{MONTH}"), bill) for bill in sorted((sample / "bills").glob("*.csv"))]
    return Month(MONTH, [sample / "facts"], [("hpc1", [*dumps, clean]), *generated], receipts, bills)


def _receipt(row: dict[str, str]) -> TopUp:
    return TopUp(
        row["customer"],
        parse_amount(row["amount"], "CNY"),
        row["reference"],
        date.fromisoformat(row["received_on"]),
        row["contract"],
        row["project"],
    )


def main() -> int:
    """Run the demo into ./demo; again, it changes nothing and says so."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    place = OUT / "home"
    home = open_home(place) if (place / DATABASE_FILE).is_file() else create_home(place, CLOCK)
    console.print(f"home {place}, clock fixed at {CLOCK.isoformat()}", style="dim")
    try:
        with Steps() as steps:
            run = run_month(home, sample_month(), steps)
            _write_files(home, run, steps)
    except CloseRefusedError as refused:
        for blocker in refused.blockers:
            console.print(f"{blocker.message}\n  → {blocker.command}", markup=False)
        return 1
    with read_session(home.engine) as session:
        accounts = usage_accounting(session, EventLake(home.lake))
        days = UsageQuery(date(2026, 11, 1), date(2026, 11, 30), ("cluster",))
        hours = usage_report(home, session, days).to_dicts()
    _summary(console, run, total_account(accounts), hours)
    write_page(home, run, accounts, OUT)
    home.close()
    _say_what_next(console, run)
    return 0


def _write_files(home: Home, run: MonthRun, steps: Steps) -> None:
    for kind, folder in (("invoice", "invoices"), ("statement", "statements")):
        numbers = [content.number for content in run.closed.documents if content.kind == kind]
        write_pdfs(home, numbers, OUT / folder, steps)
    write_reports(run.reconciled, OUT / "suppliers")


def _summary(console: Console, run: MonthRun, account: BatchAccount, hours: list[dict[str, object]]) -> None:
    rows = {"rows in": account.rows, **account.statuses}
    rows |= {f"no usage: {reason}": count for reason, count in account.no_usage.items()}
    rows |= {f"quarantined: {code}": count for code, count in account.quarantined.items()}
    console.print(_table("Rows", ("what", "rows"), [(name, f"{count:,}") for name, count in rows.items() if count]))
    console.print(_table("Hours", ("cluster", *COLUMNS), [tuple(str(v) for v in row.values()) for row in hours]))
    charged: dict[str, int] = defaultdict(int)
    for content in run.closed.documents:
        for line in content.lines:
            charged[line.product] += line.amount_minor
    products = [(product, format_grouped(minor, "CNY")) for product, minor in sorted(charged.items())]
    total = ("all", format_grouped(sum(charged.values()), "CNY"))
    console.print(_table("Charges, CNY with tax", ("product", "amount"), [*products, total]))
    console.print(_table("Documents", ("kind", "number", "total CNY", "closing balance", "arrears"), _documents(run)))
    differences = [
        (check.supplier.id, found.kind, format_grouped(found.amount_minor, "CNY"), found.message_en)
        for check in run.reconciled.suppliers
        for found in check.result.discrepancies
    ]
    console.print(_table("Supplier differences, CNY", ("supplier", "kind", "effect", "what"), differences))


def _documents(run: MonthRun) -> list[tuple[str, ...]]:
    rows = []
    for kind in ("invoice", "statement"):
        contents = [content for content in run.closed.documents if content.kind == kind]
        wallets = [content.wallet for content in contents if content.wallet]
        sums = (
            sum(content.total_minor for content in contents),
            sum(wallet.closing_minor for wallet in wallets),
            sum(wallet.arrears_closing_minor for wallet in wallets),
        )
        rows.append((kind, str(len(contents)), *(format_grouped(minor, "CNY") for minor in sums)))
    return rows


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for n, column in enumerate(columns):
        figures = n > 0 and all(row[n].replace(",", "").replace(".", "").lstrip("-").isdecimal() for row in rows)
        table.add_column(column, justify="right" if figures else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _say_what_next(console: Console, run: MonthRun) -> None:
    if run.closed.repeated and not run.imported and not run.accrued.transactions:
        console.print("\nNothing changed: this month was imported, charged and closed before.", style="bold")
    number = run.closed.documents[0].number
    console.print(f"\nEverything is in {OUT}/: open {OUT}/index.html, or look where a cent comes from:")
    console.print(f"  .venv/bin/hourbook --home {OUT}/home invoice explain {number} --line 1", style="bold green")


if __name__ == "__main__":
    raise SystemExit(main())
