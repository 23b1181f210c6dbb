"""`gaps`, `gaps waive` and `statement import`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from base.period import Period, month_of
from hourbook.cli.events import By, Reason
from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, console, notice, print_rows, refusals, say
from hourbook.cli.reading import read_instant, read_month, read_words
from hourbook.completeness import (
    NoGapError,
    Run,
    check_hours,
    expects_statements,
    month_hours,
    not_compared,
    run_body,
    runs_of,
    state_hours,
    undescribed,
    waive,
)
from hourbook.database import read_session
from hourbook.importing import catalog_of
from hourbook.refreshing import refresh
from hourbook.statements import StatementsRefusedError, read_statements
from metering.completeness import GAPS, HourCheck, State

group = typer.Typer(help="Hours of which usage may be missing: the calendar, and what to accept.")
statements = typer.Typer(help="What senders say they saw, hour by hour.", no_args_is_help=True)

COLUMNS = ("cluster", "first_hour", "hours", "state", "stated", "arrived", "silent")
# One character per hour, and its colour; different characters, so that no reader depends on colours.
SIGNS: dict[State, tuple[str, str, str]] = {
    "complete": ("•", "green", "all that was stated has arrived"),
    "quiet": ("o", "green", "nothing ended, as stated"),
    "waived": ("w", "yellow", "accepted by a person"),
    "missing": ("X", "red", "nobody stated what was seen"),
    "too_few": ("<", "red", "fewer arrived than were stated"),
    "differs": ("#", "red", "others arrived than were stated"),
    "not_expected": ("-", "dim", "no statement is expected"),
    "not_yet": (" ", "dim", "not over yet"),
}

Hour = Annotated[datetime, typer.Option(parser=read_instant, metavar="HOUR", help="As 2026-11-30T08:00:00Z.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.callback(invoke_without_command=True, epilog="Example: hourbook gaps --month 2026-11")(gaps)
    group.command(
        "waive",
        epilog="Example: hourbook gaps waive hpc1 --from 2026-11-30T08:00:00Z --to 2026-11-30T09:00:00Z "
        "--reason 'power cut' --by lin",
    )(waive_gaps)
    app.add_typer(group, name="gaps")
    statements.command("import", epilog="Example: hourbook statement import statements.json")(import_statements)
    app.add_typer(statements, name="statement")


def gaps(
    context: typer.Context,
    month: Annotated[
        str | None, typer.Option(parser=read_month, metavar="MONTH", help="As 2026-11; default this one.")
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    form: FormatOption = Format.table,
) -> None:
    """Show, by cluster and hour (UTC), what was stated against what arrived. Gaps block the close of their month."""
    if context.invoked_subcommand is not None:
        return
    home = home_of(context)
    refresh(home)
    shown = month or month_of(home.today(catalog_of(home).zone()))
    with read_session(home.engine) as session:
        period = month_hours(session, shown)
        checks = check_hours(home, session, period, cluster)
        unknown = [name for name in not_compared(session, period) if cluster in {None, name}]
        unknown += undescribed(session, [cluster] if cluster and not unknown else [])
    _tell_not_compared(unknown)
    if form is not Format.table:
        print_rows(COLUMNS, [_row(run) for run in runs_of(checks)], form, empty="")
        return
    _print_calendar(checks)
    found = [run for run in runs_of(checks) if run.first.state in GAPS]
    for run in found:
        say(f"{run.first.cluster} {run}")
    say(_outcome(shown, checks, found, cluster or "any cluster"))


def _outcome(month: str, checks: Sequence[HourCheck], found: Sequence[Run], whose: str) -> str:
    if found:
        return f"{sum(run.hours for run in found)} hour(s) of {month} are not accounted for"
    if expects_statements(checks):
        return f"{month}: no gap"
    return (
        f"{month}: no statement is expected of {whose}, so a gap would not be seen; where senders state what they "
        'saw, set reports = "hourly" (or from a day on) under [[clusters]] and apply that'
    )


def _tell_not_compared(clusters: Sequence[str]) -> None:
    """Name clusters whose statements nobody looks at."""
    for name in clusters:
        notice(
            f"cluster {name} is not described, so what is stated of it is kept and not compared: "
            "check the name, or describe it under [[clusters]] and apply that"
        )


def _row(run: Run) -> dict[str, object]:
    return {**run_body(run), "silent": ", ".join(run.first.silent)}


def _print_calendar(checks: Sequence[HourCheck]) -> None:
    """Print a line per cluster and day, and a sign per hour."""
    for name, own in itertools.groupby(checks, key=lambda check: check.cluster):
        days = {day: list(hours) for day, hours in itertools.groupby(own, key=lambda check: check.hour.date())}
        console.print(Text(f"\n{name}  (hours of UTC)", style="bold"))
        console.print(Text("            0     6     12    18    ", style="dim"))
        for day, hours in days.items():
            line = Text(f"{day}  {' ' * hours[0].hour.hour}")
            for hour in hours:
                sign, style, _ = SIGNS[hour.state]
                line.append(sign, style=style)
            console.print(line)
    used = {check.state for check in checks}
    for state, (sign, style, meaning) in SIGNS.items():
        if state in used:
            console.print(Text(f"{sign}  {meaning}", style=style))


def waive_gaps(
    context: typer.Context,
    cluster: Annotated[str, typer.Argument(parser=read_words, metavar="CLUSTER", help="Whose gaps.")],
    first: Annotated[datetime, typer.Option("--from", parser=read_instant, metavar="HOUR", help="The first hour.")],
    end: Annotated[datetime, typer.Option("--to", parser=read_instant, metavar="HOUR", help="Until here, exclusive.")],
    reason: Reason,
    by: By,
) -> None:
    """Accept the gaps of a cluster as they are. A statement that comes later opens them again."""
    if end <= first:
        raise typer.BadParameter(f"{end} does not lie after --from {first}", param_hint="'--to'")
    home = home_of(context)
    refresh(home)
    with refusals(NoGapError):
        runs = waive(home, cluster, Period(first, end), reason=reason, by=by)
    for run in runs:
        say(f"{cluster} {run}: waived")


def import_statements(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="JSON, or JSON lines.")],
) -> None:
    """Import what senders state they saw, as they also send it to the API; the last statement of an hour counts."""
    home = home_of(context)
    with refusals(StatementsRefusedError):
        read = [(file, read_statements(file.read_bytes())) for file in files]
    for file, found in read:
        new = state_hours(home, found, file.name)
        say(f"{file.name}: {len(found)} statement(s), {new} new")
    with read_session(home.engine) as session:
        unknown = undescribed(session, {one.cluster for _, found in read for one in found})
    _tell_not_compared(unknown)
