"""`usage`, `quarantine` and `resolve`."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, Steps, console, print_rows, refusals, say
from hourbook.cli.reading import read_day, read_words, read_zone
from hourbook.database import read_session
from hourbook.exceptions import Decision, ResolutionError, list_open, resolve_exception, show_open
from hourbook.refreshing import refresh
from hourbook.retrying import retry_quarantine
from hourbook.usage_report import COLUMNS, FIELDS, UnknownFieldError, UsageQuery, usage_report

group = typer.Typer(help="Input that could not be used, and usage that cannot be charged.", no_args_is_help=True)

Entry = Annotated[str, typer.Argument(metavar="ID", help="As `quarantine list` names it: Q-17 or U-3fa9c201.")]


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


def read_fields(text: str) -> str:
    """Read the fields of a report, or refuse one that usage is not known by as wrong use."""
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in FIELDS]
    if unknown:
        raise typer.BadParameter(str(UnknownFieldError(unknown)))
    return ",".join(names)


def read_project(text: str) -> str:
    """Read CUSTOMER/PROJECT, or refuse it as wrong use."""
    customer, slash, project = text.partition("/")
    if not (customer and slash and project) or "/" in project:
        raise typer.BadParameter(f"{text!r} is no CUSTOMER/PROJECT; write it as u-north-physics/condmat")
    return text


def usage(
    context: typer.Context,
    first: Annotated[date, typer.Option("--from", parser=read_day, metavar="DAY", help="First day, as 2026-11-01.")],
    last: Annotated[date, typer.Option("--to", parser=read_day, metavar="DAY", help="Last day, included.")],
    by: Annotated[
        str, typer.Option(parser=read_fields, metavar="LIST", help=f"Comma-separated fields: {' '.join(FIELDS)}.")
    ] = "cluster",
    timezone: Annotated[
        ZoneInfo | None,
        typer.Option(parser=read_zone, metavar="ZONE", help="Whose days; default the billing zone."),
    ] = None,
    form: FormatOption = Format.table,
) -> None:
    """Show hours and jobs by any fields; needs no prices and no customers."""
    if last < first:
        raise typer.BadParameter(f"{last} lies before --from {first}", param_hint="'--to'")
    home = home_of(context)
    fields = tuple(name for name in by.split(",") if name)
    query = UsageQuery(first, last, fields, timezone.key if timezone else None)
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


def quarantine_show(context: typer.Context, entry: Entry, form: FormatOption = Format.table) -> None:
    """Show one entry with exactly what arrived."""
    home = home_of(context)
    refresh(home)
    with refusals(LookupError):
        shown = show_open(home, entry)
    if form is not Format.table:
        print_rows(list(shown), [shown], form, empty="")
        return
    for name, value in shown.items():
        console.print(f"[bold]{name}[/]", end=": ")
        console.print(str(value), markup=False, highlight=False, soft_wrap=True)


def quarantine_retry(context: typer.Context, form: FormatOption = Format.table) -> None:
    """Read refused rows again, with the clusters as they are described now."""
    home = home_of(context)
    with Steps() as steps:
        done = retry_quarantine(home, steps)
    row = {"tried": done.tried, "resolved": done.resolved, "still_open": done.left}
    print_rows(list(row), [row], form, empty="")
    if done.left:
        say("see: hourbook quarantine list", form, style="dim")


def resolve(
    context: typer.Context,
    entry: Entry,
    reason: Annotated[str, typer.Option(parser=read_words, metavar="TEXT", help="Why; kept for ever.")],
    project: Annotated[
        str | None,
        typer.Option("--map", parser=read_project, metavar="CUSTOMER/PROJECT", help="Whose usage it is."),
    ] = None,
    write_off: Annotated[bool, typer.Option("--write-off", help="The usage is never charged.")] = False,  # noqa: FBT002
    dismiss: Annotated[bool, typer.Option("--dismiss", help="The row was no usage.")] = False,  # noqa: FBT002
) -> None:
    """Decide about one entry of quarantine."""
    if sum((project is not None, write_off, dismiss)) != 1:
        raise typer.BadParameter("say one of --map CUSTOMER/PROJECT, --write-off or --dismiss")
    home = home_of(context)
    with refusals(ResolutionError, LookupError):
        decision = Decision(entry, reason, project=project, write_off=write_off, dismiss=dismiss)
        console.print(resolve_exception(home, decision), highlight=False, markup=False, soft_wrap=True)
