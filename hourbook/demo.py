"""`make demo`: the month of the sample operator, from real and generated logs to bills, suppliers and margin."""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from base.money import parse_amount
from hourbook.billing_run import Month, MonthRun, run_month
from hourbook.cli.documents import write_pdfs
from hourbook.cli.output import Steps
from hourbook.closing import CloseRefusedError
from hourbook.database import create_home, open_home, read_session
from hourbook.demo_page import write_page
from hourbook.demo_summary import DemoFigures, gather, print_summary
from hourbook.receiving import TopUp
from hourbook.reconciliation_report import write_reports
from hourbook.settings import DATABASE_FILE, Home, Settings
from invoices import store as invoices

CLOCK = datetime.fromisoformat("2026-12-01T10:00:00+08:00")
MONTH = "2026-11"
REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLE = REPOSITORY / "fixtures" / "operator"
OUT = REPOSITORY / "demo"
FOLDERS = {"invoice": "invoices", "statement": "statements"}
NARROW = 110


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


def run_demo(out: Path, console: Console, month: Month | None = None) -> int:
    """Run the sample month into a folder; again, it changes nothing and says so."""
    place = out / "home"
    # The demo always works on the embedded database, whatever the environment names for real homes.
    own = Settings(database_url="")
    there = (place / DATABASE_FILE).is_file()
    home = open_home(place, settings=own) if there else create_home(place, CLOCK, settings=own)
    console.print(f"home {shown(place)}, clock fixed at {CLOCK.isoformat()}", style="dim", highlight=False)
    try:
        with Steps() as steps:
            run = run_month(home, month or sample_month(), steps)
            _write_files(home, run, out, steps)
    except CloseRefusedError as refused:
        for blocker in refused.blockers:
            console.print(f"{blocker.message}\n  → {blocker.command}", markup=False)
        return 1
    else:
        figures = gather(home, run, _commands(place, run))
        print_summary(console, figures)
        write_page(figures, out)
        _say_what_next(console, figures, out)
    finally:
        home.close()
    return 0


def _write_files(home: Home, run: MonthRun, out: Path, steps: Steps) -> None:
    for kind, folder in FOLDERS.items():
        numbers = [content.number for content in run.closed.documents if content.kind == kind]
        missing = [number for number in numbers if not _is_there(home, number, out / folder / f"{number}.pdf")]
        write_pdfs(home, missing, out / folder, steps)
    write_reports(run.reconciled, out / "suppliers")


def _is_there(home: Home, number: str, file: Path) -> bool:
    """Tell whether a file holds exactly the bytes that its document was first rendered to."""
    if not file.is_file():
        return False
    with read_session(home.engine) as session:
        first = invoices.rendering_of(session, number)
    return first == hashlib.sha256(file.read_bytes()).hexdigest()


def _commands(place: Path, run: MonthRun) -> list[str]:
    """Return what to try next, as it can be typed where the demo was started."""
    hourbook = f"{shown(Path(sys.executable).parent / 'hourbook')} --home {shown(place)}"
    documents = sorted(run.closed.documents, key=lambda content: content.number)
    number = next((one.number for one in documents if one.lines), "")
    return [
        f"{hourbook} invoice explain {number} --line 1",
        f"{hourbook} usage --from {MONTH}-01 --to {MONTH}-30 --by day,cluster",
        f"{hourbook} balance {documents[-1].customer.id}",
        f"{hourbook} reconcile {MONTH}",
        f"{hourbook} verify",
        f"{hourbook} serve",
    ]


def shown(path: Path) -> str:
    """Write a path as short as it can be typed here."""
    short = os.path.relpath(path)
    return str(path) if short.startswith("..") else short


def _say_what_next(console: Console, figures: DemoFigures, out: Path) -> None:
    run = figures.run
    if run.closed.repeated and not run.imported and not run.accrued.transactions:
        console.print("\nNothing changed: this month was imported, charged and closed before.", style="bold")
    page = shown(out / "index.html")
    console.print(f"\nOpen {page} in a browser, or look where a cent comes from:", highlight=False)
    console.print(f"  {figures.commands[0]}", style="bold green", highlight=False, soft_wrap=True)


def main(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo leaves.", file_okay=False)] = OUT,
) -> None:
    """Close a month of the sample operator."""
    console = Console(width=None if sys.stdout.isatty() else NARROW)
    raise typer.Exit(run_demo(out, console))


if __name__ == "__main__":
    typer.run(main)
