"""`close` and `invoice`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from base.money import format_grouped, format_minor, parse_amount
from base.period import parse_month
from hourbook.blockers import Blocker
from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, Steps, console, errors, print_rows, refusals, refuse
from hourbook.cli.usage import day_of
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


def month_of_text(text: str) -> str:
    """Read a month, or refuse it as wrong use."""
    try:
        return parse_month(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def close(
    context: typer.Context,
    month: Annotated[str, typer.Argument(help="As 2026-11.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show documents and what blocks.")] = False,  # noqa: FBT002
    form: FormatOption = Format.table,
) -> None:
    """Close a month: charge it, issue invoices and statements. Everything that blocks is listed."""
    home, name = home_of(context), month_of_text(month)
    if dry_run:
        contents, blockers = draft_month(home, name)
        _show_blockers(blockers)
        print_rows(COLUMNS, [_row(content, 0) for content in contents], form, empty="no documents")
        return
    try:
        with Steps() as steps:
            closed = close_month(home, name, steps)
    except CloseRefusedError as error:
        _show_blockers(error.blockers)
        raise refuse(str(error)) from error
    print_rows(COLUMNS, [_row(content, 0) for content in closed.documents], form, empty="no documents")
    if form is Format.table:
        done = "was closed before; nothing changed" if closed.repeated else "is closed"
        console.print(f"{name} {done}: {len(closed.documents)} documents", highlight=False)
        console.print("next: hourbook invoice pdf --all --out bills", style="dim")


def _show_blockers(blockers: Sequence[Blocker]) -> None:
    for blocker in blockers:
        errors.print(f"{blocker.code}: {blocker.message}", style="yellow", markup=False, highlight=False)
        errors.print(f"  → {blocker.command}", style="dim", markup=False, highlight=False)


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


def list_documents(
    context: typer.Context, month: Annotated[str, typer.Argument(help="As 2026-11.")], form: FormatOption = Format.table
) -> None:
    """List a month's invoices and statements."""
    home, name = home_of(context), month_of_text(month)
    with read_session(home.engine) as session:
        rows = [
            _row(invoices.content_of(row), sum(paid.amount_minor for paid in invoices.payments(session, row.number)))
            for row in invoices.documents(session, month=name)
        ]
    print_rows(COLUMNS, rows, form, empty=f"no documents of {name}; `hourbook close {name}` issues them")


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
    with refusals(LookupError, RuntimeError), Steps() as steps:
        files = write_pdfs(home, [number] if number else _numbers(home), out, steps)
    console.print(f"{len(files)} file(s) in {out}", highlight=False)


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
    line: Annotated[int | None, typer.Option(help="Down to the source rows of one line.")] = None,
    form: FormatOption = Format.table,
) -> None:
    """Show where every cent comes from: price, days, projects, users, events and source rows."""
    home = home_of(context)
    with refusals(LookupError), read_session(home.engine) as session:
        for title, columns, rows in explain_document(home, session, number, line):
            if form is Format.table:
                console.print(f"\n[bold]{title}[/]", highlight=False)
            print_rows(columns, rows, form, empty="nothing")


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
    reference: Annotated[str, typer.Option(help="Of the payment; the same one again changes nothing.")],
    paid_on: Annotated[str | None, typer.Option("--paid-on", help="Default: today.")] = None,
) -> None:
    """Record a payment of an invoice, in part or in full."""
    home = home_of(context)
    catalog = catalog_of(home)
    with refusals(ValueError):
        minor = parse_amount(amount, catalog.currency)
    day = day_of(paid_on) if paid_on else home.today(catalog.zone())
    with refusals(PaymentRefusedError, LookupError):
        new = pay(home, number, minor, reference=reference, paid_on=day)
    shown = format_grouped(minor, catalog.currency)
    console.print(f"{number}: {shown} {'recorded' if new else 'already there'}", highlight=False)
