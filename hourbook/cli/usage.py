"""`usage`, `quarantine` and `resolve`."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

from hourbook.cli.home import home_of
from hourbook.cli.imports import zone_of
from hourbook.cli.output import Format, FormatOption, Steps, console, print_rows, refusals, refuse
from hourbook.database import read_session
from hourbook.exceptions import (
    Decision,
    ResolutionError,
    list_open,
    resolve_exception,
    retry_quarantine,
    show_open,
)
from hourbook.refreshing import refresh
from hourbook.usage_report import COLUMNS, FIELDS, UnknownFieldError, UsageQuery, usage_report

group = typer.Typer(help="Input that could not be used, and usage that cannot be charged.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("usage", epilog="Example: hourbook usage --from 2026-11-01 --to 2026-11-30 --by day,cluster")(usage)
    group.command("list", epilog="Example: hourbook quarantine list --format csv")(quarantine_list)
    group.command("show", epilog="Example: hourbook quarantine show Q-17")(quarantine_show)
    group.command("retry", epilog="Example: hourbook quarantine retry")(quarantine_retry)
    app.add_typer(group, name="quarantine")
    app.command("resolve", epilog="Example: hourbook resolve U-3fa9c201 --map u-north/physics --reason 'new group'")(
        resolve
    )


def day_of(text: str) -> date:
    """Read a day, or refuse it as wrong use."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no day; write it as 2026-11-30") from error


def usage(
    context: typer.Context,
    first: Annotated[str, typer.Option("--from", help="First day.")],
    last: Annotated[str, typer.Option("--to", help="Last day, included.")],
    by: Annotated[str, typer.Option(help=f"Comma-separated fields: {' '.join(FIELDS)}.")] = "cluster",
    timezone: Annotated[str | None, typer.Option(help="Whose days; default the billing zone.")] = None,
    form: FormatOption = Format.table,
) -> None:
    """Show hours and jobs by any fields; needs no prices and no customers."""
    home = home_of(context)
    fields = tuple(name.strip() for name in by.split(",") if name.strip())
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise typer.BadParameter(str(UnknownFieldError(unknown)))
    zone_of(timezone)
    query = UsageQuery(day_of(first), day_of(last), fields, timezone)
    if query.last < query.first:
        raise typer.BadParameter(f"--to {query.last} lies before --from {query.first}")
    with Steps() as steps:
        refresh(home, steps)
    with read_session(home.engine) as session:
        rows = usage_report(home, session, query)
    print_rows([*fields, *COLUMNS], rows.to_dicts(), form, empty="no usage on these days")


def quarantine_list(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Those resolved, too.")] = False,  # noqa: FBT002
    form: FormatOption = Format.table,
) -> None:
    """List input that could not be used and usage that cannot be charged, with what to do."""
    home = home_of(context)
    refresh(home)
    columns = ["id", "code", "month", "status", "message"]
    print_rows(columns, list_open(home, every=every), form, empty="nothing is in quarantine")


def quarantine_show(context: typer.Context, entry: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show one entry with exactly what arrived."""
    with refusals(LookupError):
        for name, value in show_open(home_of(context), entry).items():
            console.print(f"[bold]{name}[/]", end=": ")
            console.print(str(value), markup=False, highlight=False)


def quarantine_retry(context: typer.Context) -> None:
    """Read quarantined rows again, with the clusters as they are described now."""
    home = home_of(context)
    done = retry_quarantine(home)
    console.print(f"{done.tried} tried, {done.resolved} resolved, {done.left} still in quarantine", highlight=False)


def resolve(
    context: typer.Context,
    entry: Annotated[str, typer.Argument(metavar="ID", help="As `quarantine list` names it.")],
    reason: Annotated[str, typer.Option(help="Why; kept for ever.")],
    project: Annotated[str | None, typer.Option("--map", help="CUSTOMER/PROJECT that the usage belongs to.")] = None,
    write_off: Annotated[bool, typer.Option("--write-off", help="The usage is never charged.")] = False,  # noqa: FBT002
    dismiss: Annotated[bool, typer.Option("--dismiss", help="The row was no usage.")] = False,  # noqa: FBT002
) -> None:
    """Decide about one entry of quarantine."""
    if sum((project is not None, write_off, dismiss)) != 1:
        raise typer.BadParameter("say one of --map CUSTOMER/PROJECT, --write-off or --dismiss")
    home = home_of(context)
    if not reason.strip():
        raise refuse("a decision needs a reason")
    with refusals(ResolutionError, LookupError):
        decision = Decision(entry, reason, project=project, write_off=write_off, dismiss=dismiss)
        console.print(resolve_exception(home, decision), highlight=False)
