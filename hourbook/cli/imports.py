"""`import slurm | events | bill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, Steps, console, errors, print_rows, refusals
from hourbook.importing import Imported, SlurmLog, import_events, import_slurm
from hourbook.supplier_bills import BillFileError, import_bill
from metering.collectors.slurm_layout import SacctFileError

group = typer.Typer(help="Bring in usage and supplier bills.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Files, plain or gzip.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.command("slurm", epilog="Example: hourbook import slurm sacct.psv --cluster hpc1 --timezone Asia/Shanghai")(
        slurm
    )
    group.command("events", epilog="Example: hourbook import events usage.jsonl")(events)
    group.command("bill", epilog="Example: hourbook import bill gz-2026-11.csv --supplier gz --month 2026-11")(bill)
    app.add_typer(group, name="import")


def zone_of(name: str | None) -> ZoneInfo | None:
    """Return the zone of a name, or refuse it as wrong use."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise typer.BadParameter(f"{name!r} is no time zone; write it as Asia/Shanghai") from error


def slurm(
    context: typer.Context,
    files: Files,
    cluster: Annotated[str, typer.Option(help="Whose log it is; a row of another cluster goes to quarantine.")],
    timezone: Annotated[str | None, typer.Option(help="Of times without a zone; not needed for epoch times.")] = None,
    columns: Annotated[str | None, typer.Option(help="Comma-separated, where the file has no header line.")] = None,
    form: FormatOption = Format.table,
) -> None:
    """Import `sacct -P` output."""
    home = home_of(context)
    names = tuple(name.strip() for name in columns.split(",")) if columns else None
    log = SlurmLog(cluster, zone_of(timezone), names)
    with refusals(SacctFileError), Steps() as steps:
        imported = import_slurm(home, files, log, progress=steps)
    if not imported.described:
        errors.print(f"cluster {cluster} is not described yet; defaults are used (see [[clusters]])", style="yellow")
    _show(imported, form)


def events(context: typer.Context, files: Files, form: FormatOption = Format.table) -> None:
    """Import CloudEvents as JSON, JSON lines or Parquet."""
    home = home_of(context)
    with refusals(ValueError), Steps() as steps:
        imported = import_events(home, files, progress=steps)
    _show(imported, form)


def _show(imported: Imported, form: Format) -> None:
    rows = [
        {
            "file": receipt.origin,
            "rows": receipt.rows,
            "events": receipt.events,
            "no usage": sum(receipt.no_usage.values()),
            "quarantined": sum(receipt.quarantined.values()),
        }
        for receipt in imported.receipts
    ]
    print_rows(["file", "rows", "events", "no usage", "quarantined"], rows, form, empty="no file was given")
    if form is not Format.table:
        return
    for receipt in imported.receipts:
        for code, count in {**receipt.no_usage, **receipt.quarantined}.items():
            console.print(f"  {receipt.origin}: {count} {code}", highlight=False)
        for note in receipt.notes:
            console.print(f"  {receipt.origin}: {note}", style="dim", highlight=False)
    if any(receipt.quarantined for receipt in imported.receipts):
        console.print("see: hourbook quarantine list", style="yellow")


def bill(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV.")],
    supplier: Annotated[str, typer.Option(help="Whose bill it is.")],
    month: Annotated[str, typer.Option(help="Of which month, as 2026-11.")],
) -> None:
    """Import a supplier's bill."""
    home = home_of(context)
    with refusals(BillFileError, LookupError, ValueError):
        imported = import_bill(home, file, supplier=supplier, month=month)
    console.print(imported.message, highlight=False)
