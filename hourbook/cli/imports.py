"""`import slurm | log | events | bill`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, Steps, console, notice, print_rows, refusals, say
from hourbook.cli.reading import read_month, read_words, read_zone
from hourbook.importing import (
    EventFileError,
    Imported,
    OtherLog,
    SlurmLog,
    import_events,
    import_log,
    import_slurm,
    row_counts,
)
from hourbook.supplier_bills import BillFileError, import_bill
from metering.collectors.common import LogFileError
from metering.collectors.registry import COLLECTORS, OptionsError
from metering.collectors.slurm_layout import SacctFileError
from reconciliation.report import rejected_table

group = typer.Typer(help="Bring in usage and supplier bills.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, readable=True, help="Plain or gzip.")]
OTHER_KINDS = [name for name in COLLECTORS if name != "slurm"]
EXAMPLE_COLUMNS = "JobIDRaw,Cluster,Partition,QOS,Account,User,Submit,Start,End,ElapsedRaw,State,NNodes,NCPUS,AllocTRES"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.command("slurm", epilog="Example: hourbook import slurm sacct.psv --cluster hpc1 --timezone Asia/Shanghai")(
        slurm
    )
    group.command("log", epilog="Example: hourbook import log pbs 20261130 --cluster hpc2 --timezone Asia/Shanghai")(
        log
    )
    group.command("events", epilog="Example: hourbook import events usage.jsonl")(events)
    group.command("bill", epilog="Example: hourbook import bill gz-2026-11.csv --supplier gz --month 2026-11")(bill)
    app.add_typer(group, name="import")


def slurm(
    context: typer.Context,
    files: Files,
    cluster: Annotated[
        str, typer.Option(parser=read_words, metavar="NAME", help="Whose log it is; other clusters' rows are refused.")
    ],
    timezone: Annotated[
        ZoneInfo | None,
        typer.Option(parser=read_zone, metavar="ZONE", help="Of times without a zone; not needed for epoch times."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="LIST", help=f"Where the file has no header line, as {EXAMPLE_COLUMNS}."),
    ] = None,
    form: FormatOption = Format.table,
) -> None:
    """Import `sacct -P` output."""
    names = _column_names(columns)
    home = home_of(context)
    with refusals(SacctFileError), Steps() as steps:
        imported = import_slurm(home, files, SlurmLog(cluster, timezone, names), progress=steps)
    _tell_defaults(imported.undescribed)
    _show(imported, row_counts(home, imported.receipts), form)


def _column_names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise typer.BadParameter(
            f"{text!r} leaves a name out; write them as sacct -o has them", param_hint="'--columns'"
        )
    return names


def log(  # noqa: PLR0913, PLR0917 - the command's own options
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(OTHER_KINDS)}.", metavar="KIND")],
    files: Files,
    cluster: Annotated[str, typer.Option(parser=read_words, metavar="NAME", help="Whose log it is.")],
    timezone: Annotated[
        ZoneInfo | None, typer.Option(parser=read_zone, metavar="ZONE", help="Of times without a zone.")
    ] = None,
    options: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML with what the log does not say itself.")
    ] = None,
    form: FormatOption = Format.table,
) -> None:
    """Import the log of another scheduler: PBS, LSF, Grid Engine, SWF, Kubernetes pods, or any CSV by a mapping."""
    if kind not in OTHER_KINDS:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(OTHER_KINDS)}", param_hint="'KIND'")
    reader = COLLECTORS[kind]
    if reader.needs_options and options is None:
        raise typer.BadParameter(f"{kind} needs --options FILE.toml", param_hint="'--options'")
    home = home_of(context)
    with refusals(LogFileError, OptionsError), Steps() as steps:
        said = reader.parse_options(options.read_text(encoding="utf-8")) if options else None
        imported = import_log(home, files, OtherLog(reader, cluster, timezone, said), progress=steps)
    _tell_defaults(imported.undescribed)
    _show(imported, row_counts(home, imported.receipts), form)


def events(context: typer.Context, files: Files, form: FormatOption = Format.table) -> None:
    """Import CloudEvents as JSON, JSON lines or Parquet."""
    home = home_of(context)
    with refusals(EventFileError), Steps() as steps:
        imported = import_events(home, files, progress=steps)
    _tell_defaults(imported.undescribed)
    _show(imported, row_counts(home, imported.receipts), form)


def _tell_defaults(clusters: Iterable[str]) -> None:
    for cluster in clusters:
        notice(
            f"cluster {cluster} is not described yet; defaults are used: one CPU per core, gpu dcu npu mlu gcu are "
            "cards; describe it under [[clusters]] and apply that, then `hourbook quarantine retry` for refused rows"
        )


def _show(imported: Imported, counts: Sequence[dict[str, str | int]], form: Format) -> None:
    print_rows(list(counts[0]), counts, form, empty="no file was given")
    for receipt in imported.receipts:
        for code, count in {**receipt.no_usage, **receipt.quarantined}.items():
            say(f"  {receipt.origin}: {count} {code}", form)
        for note in receipt.notes:
            say(f"  {receipt.origin}: {note}", form, style="dim")
    if any(row["quarantined"] for row in counts):
        notice("look at refused rows with: hourbook quarantine list")


def bill(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="CSV.")],
    supplier: Annotated[str, typer.Option(help="Whose bill it is.")],
    month: Annotated[str, typer.Option(parser=read_month, metavar="MONTH", help="Of which month, as 2026-11.")],
    form: FormatOption = Format.table,
) -> None:
    """Import a supplier's bill; lines that cannot be read are shown with the reason."""
    home = home_of(context)
    with refusals(BillFileError, LookupError):
        imported = import_bill(home, file, supplier=supplier, month=month)
    table = rejected_table(imported.rejected, month=month, currency="CNY")
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, cells, strict=True)) for cells in table.text_rows()]
    say(f"{supplier} {month}, {imported.message}", form)
    if rows or form is not Format.table:
        print_rows(names, rows, form, empty="no line was refused")
    if rows:
        notice(f"{len(rows)} line(s) must be settled with {supplier}: ask for a corrected bill and import that")
    if form is Format.table:
        console.print(f"next: hourbook reconcile {month} --supplier {supplier}", style="dim", highlight=False)
