"""`rollup`: count usage that is not counted yet, here or on a cluster."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, Steps, print_rows, refusals, refuse
from hourbook.refreshing import refresh
from hourbook.rollups import CountDates, count_here


class Engine(StrEnum):
    """Who counts."""

    local = "local"
    spark = "spark"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rollup", epilog="Example: hourbook rollup --engine spark --master spark://head:7077")(rollup)


def rollup(
    context: typer.Context,
    engine: Annotated[Engine, typer.Option(help="This machine, or a cluster whose workers read the lake.")] = (
        Engine.local
    ),
    master: Annotated[
        str, typer.Option(metavar="URL", help="Of the cluster: spark://host:7077, yarn, k8s://…, local[4].")
    ] = "",
    form: FormatOption = Format.table,
) -> None:
    """Seal what waits, and count the dates that it touched; reports and the close do so by themselves."""
    if (engine is Engine.spark) != bool(master):
        raise typer.BadParameter("--engine spark and --master URL go together", param_hint="'--master'")
    count, failures = _counting(engine, master)
    home = home_of(context)
    with refusals(*failures), Steps() as steps:
        done = refresh(home, steps, count=count)
    row = {"sealed_events": done.sealed.events, "dates": done.dates}
    print_rows(list(row), [row], form, empty="")


def _counting(engine: Engine, master: str) -> tuple[CountDates, tuple[type[Exception], ...]]:
    """Return who counts, and the errors with which that is refused."""
    if engine is Engine.local:
        return count_here, ()
    try:
        from hourbook.spark_rollups import OnSpark
        from metering.spark import SparkRollupError
    except ImportError as error:
        raise refuse("counting on Spark needs the extra spark: pip install 'hourbook[spark]'") from error
    return OnSpark(master), (SparkRollupError,)
