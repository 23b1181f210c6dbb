"""`init` and `apply`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from hourbook.applying import Applied, ConfigurationRefusedError, apply_files
from hourbook.cli.home import home_of, home_path
from hourbook.cli.output import Format, FormatOption, console, notice, print_rows, refusals, refuse
from hourbook.cli.reading import read_instant
from hourbook.database import HomeError, create_home
from ledger.store import BusinessKeyConflictError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: hourbook --home ./books init")(init)
    app.command("apply", epilog="Example: hourbook apply fixtures/operator/facts --dry-run")(apply)


def init(
    context: typer.Context,
    clock: Annotated[
        datetime | None,
        typer.Option(
            parser=read_instant,
            metavar="INSTANT",
            help="Fix the home's clock for ever, as 2026-12-01T10:00:00+08:00 (demonstrations only).",
        ),
    ] = None,
) -> None:
    """Create a home: the folder that holds database and lake."""
    with refusals(HomeError):
        home = create_home(home_path(context), clock)
    home.close()
    fixed = f", clock fixed at {clock.isoformat()}" if clock else ""
    console.print(f"created {home.path}{fixed}", highlight=False, markup=False)
    console.print("next: hourbook apply, or hourbook import slurm", style="dim")


def apply(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="TOML files, or folders with *.toml.", exists=True)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show, record nothing.")] = False,  # noqa: FBT002
    form: FormatOption = Format.table,
) -> None:
    """Record clusters, customers, mappings, prices, contracts, purchases and suppliers from TOML."""
    home = home_of(context)
    with refusals(BusinessKeyConflictError):
        try:
            applied = apply_files(home, paths, dry_run=dry_run)
        except ConfigurationRefusedError as error:
            for problem in error.problems:
                notice(str(problem))
            raise refuse(str(error)) from error
    _show(applied, form, dry_run=dry_run)


def _show(applied: Applied, form: Format, *, dry_run: bool) -> None:
    changes = applied.changes
    rows = [{"change": "added", "kind": kind, "key": key} for kind, key in changes.added]
    rows += [{"change": "changed", "kind": kind, "key": key} for kind, key in changes.changed]
    print_rows(["change", "kind", "key"], rows, form, empty="nothing changes: all of it is recorded already")
    if form is Format.table:
        would = "would be " if dry_run else ""
        console.print(
            f"{len(changes.added)} {would}added, {len(changes.changed)} {would}changed, "
            f"{len(changes.unchanged)} unchanged; configuration {changes.apply_seq}"
        )
        if applied.purchases:
            console.print(f"{applied.purchases} pack(s) and grant(s) posted")
