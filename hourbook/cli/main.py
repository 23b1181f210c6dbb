"""The command line: `hourbook --help` lists the commands, each with an example."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hourbook.cli import documents, imports, money, server, setup, suppliers, usage

app = typer.Typer(
    name="hourbook",
    help="Meter, rate and bill supercomputing time: usage in, bills, balances and supplier checks out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def main(
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Folder with database and lake; default $HOURBOOK_HOME, else ./hourbook-data."),
    ] = None,
) -> None:
    """Meter, rate and bill supercomputing time."""


setup.register(app)
imports.register(app)
usage.register(app)
documents.register(app)
money.register(app)
suppliers.register(app)
server.register(app)


def run() -> None:
    """Run the command line."""
    app()
