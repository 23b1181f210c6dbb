"""Which home a command works on."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import typer

from hourbook import facts
from hourbook.cli.output import notice, refusals
from hourbook.database import HomeError, open_home, read_session
from hourbook.engines.safety import DatabaseUnsafeError
from hourbook.settings import Home, Settings
from pricing.catalog import DEFAULT_ZONE


def home_path(context: typer.Context) -> Path:
    """Return the folder named by --home, else HOURBOOK_HOME, else ./hourbook-data."""
    given: Path | None = context.find_root().params.get("home")
    return given or Settings().home


def home_of(context: typer.Context) -> Home:
    """Open the home a command works on; a fixed clock is shown, so that nobody takes it for today."""
    with refusals(HomeError, DatabaseUnsafeError):
        home = open_home(home_path(context))
    context.call_on_close(home.close)
    if home.fixed_clock:
        local = home.fixed_clock.astimezone(_billing_zone(home))
        notice(f"clock fixed at {local:%Y-%m-%d %H:%M:%S%z} ({local.tzinfo})", style="dim")
    return home


def _billing_zone(home: Home) -> ZoneInfo:
    with read_session(home.engine) as session:
        operators = facts.as_of(session).get("operator", {}).values()
    return ZoneInfo(next((body.get("billing_timezone", DEFAULT_ZONE) for body in operators), DEFAULT_ZONE))
