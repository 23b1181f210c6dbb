"""`balance`, `topup` and `verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from base.money import format_grouped, parse_amount
from hourbook.accruing import accrue_open_months
from hourbook.auditing import audit
from hourbook.balances import balance_of
from hourbook.cli.home import home_of
from hourbook.cli.output import REFUSED, Format, FormatOption, console, errors, print_rows, refusals
from hourbook.cli.usage import day_of
from hourbook.database import read_session
from hourbook.importing import catalog_of
from hourbook.receiving import ReceiptConflictError, TopUp, UnknownCustomerError, receive

Customer = Annotated[str, typer.Argument(help="The customer's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("balance", epilog="Example: hourbook balance u-beichen-cs")(balance)
    app.command("topup", epilog="Example: hourbook topup u-beichen-cs 5000.00 --reference 'bank 20261201-3'")(topup)
    app.command("verify", epilog="Example: hourbook verify")(verify)


def balance(context: typer.Context, customer: Customer, form: FormatOption = Format.table) -> None:
    """Show what a customer has left, owes and uses per day, after all usage recorded so far."""
    home = home_of(context)
    accrue_open_months(home)
    with refusals(UnknownCustomerError), read_session(home.engine) as session:
        rows = balance_of(home, session, customer).rows()
    print_rows(["what", "amount", "unit", "until"], rows, form, empty="nothing")


def topup(  # noqa: PLR0913, PLR0917 - the command's own options
    context: typer.Context,
    customer: Customer,
    amount: Annotated[str, typer.Argument(help="As 5000.00, tax included.")],
    reference: Annotated[str, typer.Option(help="Of the receipt; the same one again changes nothing.")],
    contract: Annotated[str, typer.Option(help="The only contract it may be used for.")] = "",
    project: Annotated[str, typer.Option(help="The only project it may be used for.")] = "",
    received_on: Annotated[str | None, typer.Option("--received-on", help="Default: today.")] = None,
) -> None:
    """Record money received in advance; arrears are settled from it first."""
    home = home_of(context)
    catalog = catalog_of(home)
    with refusals(ValueError):
        minor = parse_amount(amount, catalog.currency)
    day = day_of(received_on) if received_on else home.today(catalog.zone())
    receipt = TopUp(customer, minor, reference, day, contract, project)
    with refusals(ReceiptConflictError, UnknownCustomerError, LookupError, ValueError):
        new = receive(home, receipt)
    accrue_open_months(home)
    shown = format_grouped(minor, catalog.currency)
    console.print(f"{customer}: {shown} {catalog.currency} {'received' if new else 'already there'}", highlight=False)


def verify(context: typer.Context) -> None:
    """Check every invariant of the books, computed independently; exit 1 on the first that fails."""
    home = home_of(context)
    report = audit(home)
    for finding in report.findings:
        errors.print(str(finding), style="bold red", markup=False, highlight=False)
    if report.findings:
        raise typer.Exit(REFUSED)
    for name in report.checks:
        console.print(f"[green]holds[/] {name}", highlight=False)
    console.print(
        f"all {len(report.checks)} checks hold; ledger head {report.sequence} {report.hash[:16]}", highlight=False
    )
