"""The command line: `hourbook --help` lists the commands, each with an example."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from typer.core import TyperGroup

from hourbook.cli import collect, documents, events, gaps, imports, money, rollup, server, setup, suppliers, usage
from hourbook.cli.output import refuse
from hourbook.database import is_busy, outage
from hourbook.engines.safety import DatabaseUnsafeError
from hourbook.lake_check import OtherLakeError
from hourbook.sealing import SealerBusyError
from hourbook.settings import Settings
from metering.object_store import ObjectStoreError


class Commands(TyperGroup):
    """The commands; what can go wrong around any of them is told in words, not as a traceback."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's own signature
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (SealerBusyError, ObjectStoreError, OtherLakeError) as error:
            raise refuse(str(error)) from error
        except DBAPIError as error:
            raise refuse(_database_text(error)) from error
        except (DatabaseUnsafeError, ArgumentError) as error:
            raise refuse(f"{error}; check HOURBOOK_DATABASE_URL") from error
        except ValidationError as error:
            if error.title != Settings.__name__:
                raise
            raise refuse(_settings_text(error)) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            raise refuse(f"{error.filename or 'the system'}: {error.strerror or error}") from error


def _database_text(error: DBAPIError) -> str:
    """Say what became of a command whose database failed; a failure of the work itself is raised on."""
    if isinstance(error, OperationalError) and is_busy(error):
        return "the database is in use by another process; try again when that is done"
    if why := outage(error):
        return f"the database cannot be used: {why} ({error.orig}); when that is mended, run the same command again"
    if isinstance(error, OperationalError):
        return f"the database cannot be used: {error.orig}; run `hourbook verify`, or restore it"
    raise error


def _settings_text(error: ValidationError) -> str:
    """Name the variables of the environment that cannot be used, and why."""
    problems = [f"HOURBOOK_{'_'.join(str(at) for at in one['loc']).upper()}: {one['msg']}" for one in error.errors()]
    return "; ".join(problems)


app = typer.Typer(
    name="hourbook",
    cls=Commands,
    help="Meter, rate and bill supercomputing time: usage in, bills, balances and supplier checks out.",
    epilog="Example: hourbook init && hourbook import slurm sacct.psv --cluster hpc1 --timezone Asia/Shanghai",
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
    """Meter, rate and bill supercomputing time: usage in, bills, balances and supplier checks out."""


setup.register(app)
imports.register(app)
collect.register(app)
usage.register(app)
rollup.register(app)
events.register(app)
gaps.register(app)
documents.register(app)
money.register(app)
suppliers.register(app)
server.register(app)


def run() -> None:
    """Run the command line."""
    app()
