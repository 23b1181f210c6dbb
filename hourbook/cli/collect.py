"""`collect`: bring in usage from where it arises, for as long as the command runs."""

from __future__ import annotations

import typer

from hourbook.cli import collect_kafka, collect_logs, collect_pods, collect_slurm

group = typer.Typer(help="Follow clusters: bring in usage as it arises.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    collect_logs.register(group)
    collect_pods.register(group)
    collect_slurm.register(group)
    collect_kafka.register(group)
    app.add_typer(group, name="collect")
