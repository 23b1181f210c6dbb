"""Which home a command works on."""

from __future__ import annotations

from pathlib import Path

import typer

from hourbook.cli.output import errors, refusals
from hourbook.database import DatabaseUnsafeError, HomeError, open_home
from hourbook.settings import Home, Settings


def home_path(context: typer.Context) -> Path:
    """Return the folder named by --home, else HOURBOOK_HOME, else ./hourbook-data."""
    given: Path | None = context.find_root().params.get("home")
    return given or Settings().home


def home_of(context: typer.Context) -> Home:
    """Open the home a command works on; a fixed clock is shown, so that nobody takes it for today."""
    with refusals(HomeError, DatabaseUnsafeError):
        home = open_home(home_path(context))
    if home.fixed_clock:
        errors.print(f"clock fixed at {home.fixed_clock.isoformat()}", style="dim")
    context.call_on_close(home.close)
    return home
