"""`balance`, `topup` and `verify`."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

from base.money import format_grouped
from hourbook.accruing import accrue_open_months
from hourbook.auditing import audit
from hourbook.balances import balance_of
from hourbook.cli.home import home_of
from hourbook.cli.output import REFUSED, Format, FormatOption, console, print_rows, refusals, refuse, say
from hourbook.cli.reading import Reference, amount_of, day_until_today, read_day
from hourbook.database import read_session
from hourbook.importing import catalog_of
from hourbook.receiving import ReceiptConflictError, TopUp, UnknownCustomerError, receive
from pricing.catalog import Catalog

Customer = Annotated[str, typer.Argument(help="The customer's id.")]
COLUMNS = ("what", "amount", "unit", "until")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("balance", epilog="Example: hourbook balance u-beichen-cs")(balance)
    app.command("topup", epilog="Example: hourbook topup u-beichen-cs 5000.00 --reference 'bank 20261201-3'")(topup)
    app.command("verify", epilog="Example: hourbook verify")(verify)


def balance(context: typer.Context, customer: Customer, form: FormatOption = Format.table) -> None:
    """Show what a customer has left, owes and uses per day, after all usage recorded so far."""
    home = home_of(context)
    _known_customer(catalog_of(home), customer)
    accrue_open_months(home)
    with refusals(UnknownCustomerError), read_session(home.engine) as session:
        rows = balance_of(home, session, customer).rows()
    print_rows(COLUMNS, rows, form, empty="nothing")


def topup(  # noqa: PLR0913, PLR0917 - the command's own options
    context: typer.Context,
    customer: Customer,
    amount: Annotated[str, typer.Argument(help="As 5000.00, tax included.")],
    reference: Reference,
    contract: Annotated[str, typer.Option(help="The only contract it may be used for.")] = "",
    project: Annotated[str, typer.Option(help="The only project it may be used for.")] = "",
    received_on: Annotated[
        date | None, typer.Option("--received-on", parser=read_day, metavar="DAY", help="Default: today.")
    ] = None,
) -> None:
    """Record money received in advance; arrears are settled from it first."""
    home = home_of(context)
    catalog = catalog_of(home)
    minor = amount_of(amount, catalog.currency)
    day = day_until_today(received_on, home, catalog, "--received-on")
    _known_customer(catalog, customer)
    _known_use(catalog, customer, contract, project)
    with refusals(ReceiptConflictError, UnknownCustomerError, LookupError, ValueError):
        new = receive(home, TopUp(customer, minor, reference, day, contract, project))
    accrue_open_months(home)
    shown = format_grouped(minor, catalog.currency)
    done = "received" if new else "already there"
    console.print(f"{customer}: {shown} {catalog.currency} {done} ({reference})", highlight=False, markup=False)
    console.print(f"next: hourbook balance {customer}", style="dim", highlight=False)


def _known_customer(catalog: Catalog, customer: str) -> None:
    if customer not in catalog.customers:
        raise refuse(str(UnknownCustomerError(customer)))


def _known_use(catalog: Catalog, customer: str, contract: str, project: str) -> None:
    """Refuse money bound to a contract or project that the customer does not have: nothing could ever use it."""
    contracts = sorted(number for number, one in catalog.contracts.items() if one.customer == customer)
    if contract and contract not in contracts:
        raise refuse(f"{customer} has no contract {contract!r}; it has {', '.join(contracts) or 'none'}")
    projects = sorted(one.id for one in catalog.customers[customer].projects)
    if project and project not in projects:
        raise refuse(f"{customer} has no project {project!r}; it has {', '.join(projects) or 'none'}")


def verify(context: typer.Context, form: FormatOption = Format.table) -> None:
    """Check every invariant of the books, computed independently; exit 1 on the first that fails."""
    home = home_of(context)
    report = audit(home)
    failed = [{"result": "fails", "check": str(finding)} for finding in report.findings]
    rows = failed or [{"result": "holds", "check": name} for name in report.checks]
    print_rows(("result", "check"), rows, form, empty="nothing to check")
    if failed:
        refuse("the books do not hold together: stop changing them, keep a copy, and find out what happened")
        raise typer.Exit(REFUSED)
    say(f"all {len(report.checks)} checks hold; ledger head {report.sequence} {report.hash[:16]}", form)
