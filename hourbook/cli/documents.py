"""`close` and `invoice`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from base.money import format_grouped, format_minor
from hourbook.blockers import Blocker
from hourbook.cli.home import home_of
from hourbook.cli.output import (
    Format,
    FormatOption,
    Section,
    Steps,
    console,
    notice,
    print_rows,
    print_sections,
    refusals,
    refuse,
    say,
)
from hourbook.cli.reading import Month, Reference, amount_of, day_until_today, read_day
from hourbook.closes import closes_by_month
from hourbook.closing import CloseRefusedError, close_month, draft_month
from hourbook.database import read_session
from hourbook.documents import PaymentRefusedError, pay, pdf_of, rebuild
from hourbook.explaining import explain_document
from hourbook.importing import catalog_of
from hourbook.settings import Home
from invoices import store as invoices
from invoices.document import DocumentContent

group = typer.Typer(help="Invoices and statements: list, render, explain, derive again, pay.", no_args_is_help=True)

Number = Annotated[str, typer.Argument(help="As `invoice list` shows it, e.g. INV-2026-00001.")]
SHOWN_EVENTS = 20
SHOWN_EVENT_COLUMNS = (
    "id",
    "job",
    "state",
    "start",
    "end",
    "cpus",
    "nodes",
    "cards",
    "file",
    "line",
    "recorded as",
    "word",
)
# The parts of an explanation, in order, as machines know them.
PARTS = ("lines", "as_of", "rounding", "days", "draws", "rollup", "events")
COLUMNS = ("number", "kind", "customer", "name", "total", "tax", "paid", "due")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("close", epilog="Example: hourbook close 2026-11 --dry-run")(close)
    group.command("list", epilog="Example: hourbook invoice list 2026-11")(list_documents)
    group.command("pdf", epilog="Example: hourbook invoice pdf --all --out bills")(pdf)
    group.command("explain", epilog="Example: hourbook invoice explain INV-2026-00001 --line 1")(explain)
    group.command("rebuild", epilog="Example: hourbook invoice rebuild INV-2026-00001")(rebuild_document)
    group.command("pay", epilog="Example: hourbook invoice pay INV-2026-00001 3527.92 --reference 'bank 1201-77'")(
        pay_invoice
    )
    app.add_typer(group, name="invoice")


def close(
    context: typer.Context,
    month: Month,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show documents and what blocks.")] = False,  # noqa: FBT002
    form: FormatOption = Format.table,
) -> None:
    """Close a month: charge it, issue invoices and statements. Everything that blocks is listed."""
    home = home_of(context)
    if dry_run:
        _dry_run(home, month, form)
        return
    try:
        with Steps() as steps:
            closed = close_month(home, month, steps)
    except CloseRefusedError as error:
        _show_blockers(error.blockers)
        raise refuse(str(error)) from error
    print_rows(COLUMNS, _rows(home, month), form, empty=f"nothing was used or bought in {month}: no documents")
    done = "was closed before; nothing changed" if closed.repeated else "is closed"
    say(f"{month} {done}: {len(closed.documents)} documents", form)
    if closed.documents:
        say("next: hourbook invoice pdf --all --out bills", form, style="dim")


def _dry_run(home: Home, month: str, form: Format) -> None:
    with read_session(home.engine) as session:
        closed = month in closes_by_month(session)
    if closed:
        print_rows(COLUMNS, _rows(home, month), form, empty=f"no documents of {month}")
        say(f"{month} is closed already; closing it again would change nothing", form)
        return
    contents, blockers = draft_month(home, month)
    _show_blockers(blockers)
    drafts = [_row(content, 0) for content in contents]
    print_rows(COLUMNS, drafts, form, empty=f"no documents: no contract of {month} has anything to charge")
    say(f"{len(drafts)} documents would be issued, {len(blockers)} thing(s) block that; nothing was recorded", form)


def _show_blockers(blockers: Sequence[Blocker]) -> None:
    for blocker in blockers:
        notice(f"{blocker.code}: {blocker.message}")
        notice(f"  → {blocker.command}", style="dim")


def _rows(home: Home, month: str) -> list[dict[str, str]]:
    with read_session(home.engine) as session:
        return [
            _row(invoices.content_of(row), sum(paid.amount_minor for paid in invoices.payments(session, row.number)))
            for row in invoices.documents(session, month=month)
        ]


def _row(content: DocumentContent, paid_minor: int) -> dict[str, str]:
    return {
        "number": content.number or "(draft)",
        "kind": content.kind,
        "customer": content.customer.id,
        "name": content.customer.name,
        "total": format_minor(content.total_minor, content.currency),
        "tax": format_minor(content.tax_minor, content.currency),
        "paid": format_minor(paid_minor, content.currency) if content.kind == "invoice" else "",
        "due": content.due_on.isoformat() if content.due_on else "",
    }


def list_documents(context: typer.Context, month: Month, form: FormatOption = Format.table) -> None:
    """List a month's invoices and statements."""
    home = home_of(context)
    print_rows(
        COLUMNS, _rows(home, month), form, empty=f"no documents of {month}; `hourbook close {month}` issues them"
    )


def pdf(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the files.", file_okay=False)],
    number: Annotated[str | None, typer.Argument(help="One document.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All documents.")] = False,  # noqa: FBT002
) -> None:
    """Render documents as PDF."""
    if (number is None) == (not every):
        raise typer.BadParameter("name one document, or say --all")
    home = home_of(context)
    numbers = [number] if number else _numbers(home)
    if not numbers:
        console.print("no documents yet; `hourbook close MONTH` issues them", style="dim")
        return
    with refusals(LookupError, RuntimeError), Steps() as steps:
        files = write_pdfs(home, numbers, out, steps)
    console.print(f"{len(files)} file(s) in {out}", highlight=False, markup=False)


def _numbers(home: Home) -> list[str]:
    with read_session(home.engine) as session:
        return [row.number for row in invoices.documents(session)]


def write_pdfs(home: Home, numbers: Sequence[str], out: Path, steps: Steps) -> list[Path]:
    """Render documents into a folder, one file each, named by number."""
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for done, number in enumerate(numbers, start=1):
        files.append(out / f"{number}.pdf")
        files[-1].write_bytes(pdf_of(home, number))
        steps("render", done, len(numbers))
    return files


def explain(
    context: typer.Context,
    number: Number,
    line: Annotated[int | None, typer.Option(min=1, help="Down to the source rows of one line.")] = None,
    form: FormatOption = Format.table,
) -> None:
    """Show where every cent comes from: price, days, projects, users, events and source rows."""
    home = home_of(context)
    with refusals(LookupError), read_session(home.engine) as session:
        found = list(explain_document(home, session, number, line))
    sections = [
        _for_readers(name, *parts) if form is Format.table else Section(name, *parts)
        for name, parts in zip(PARTS, found, strict=False)
    ]
    print_sections(sections, form)
    if form is Format.table and line is None:
        say(f"next: hourbook invoice explain {number} --line 1", style="dim")


def _for_readers(name: str, title: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> Section:
    """Shorten the list of events, which may be thousands, and leave the evidence of each to the machine formats."""
    if name != "events":
        return Section(name, title, columns, rows)
    shown = [{**row, "line": _line_of(row["evidence"])} for row in rows[:SHOWN_EVENTS]]
    if len(rows) > len(shown):
        title += f": the first {len(shown)} of {len(rows):,}; --format csv or json has all, with all that each said"
    return Section(name, title, SHOWN_EVENT_COLUMNS, shown)


def _line_of(evidence: str) -> str:
    said = json.loads(evidence or "{}")
    return str(said.get("line", ""))


def rebuild_document(
    context: typer.Context,
    number: Number,
    out: Annotated[Path | None, typer.Option(help="Write the derived PDF into this folder.", file_okay=False)] = None,
) -> None:
    """Derive a document again from recorded facts; refused (exit 1) if a single byte differs."""
    home = home_of(context)
    with refusals(LookupError):
        rebuilt = rebuild(home, number)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{number}.pdf").write_bytes(rebuilt.pdf)
    if not rebuilt.equal:
        what = "its figures differ" if not rebuilt.content_equal else "its pages differ"
        raise refuse(f"{number} derived again is not what was issued: {what}")
    console.print(f"{number}: identical, byte for byte", highlight=False)


def pay_invoice(
    context: typer.Context,
    number: Number,
    amount: Annotated[str, typer.Argument(help="As 3527.92.")],
    reference: Reference,
    paid_on: Annotated[
        date | None, typer.Option("--paid-on", parser=read_day, metavar="DAY", help="Default: today.")
    ] = None,
) -> None:
    """Record a payment of an invoice, in part or in full."""
    home = home_of(context)
    catalog = catalog_of(home)
    minor = amount_of(amount, catalog.currency)
    day = day_until_today(paid_on, home, catalog, "--paid-on")
    with refusals(PaymentRefusedError, LookupError):
        new = pay(home, number, minor, reference=reference, paid_on=day)
    shown, done = format_grouped(minor, catalog.currency), "recorded" if new else "already there"
    console.print(f"{number}: {shown} {catalog.currency} {done} ({reference})", highlight=False, markup=False)
