"""How the command line prints rows, asks for files and reports refusals."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

SHORT_CELL = 24  # cells up to this are never broken over lines
REFUSED = 1  # exit code of refused work; wrong use is 2

# Where nobody looks (a pipe, a file) there is room for whole rows.
WIDE = 160
console = Console(width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, width=None if sys.stderr.isatty() else WIDE)


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    csv = "csv"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How rows are printed.")]


def print_rows(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], form: Format, *, empty: str) -> None:
    """Print rows as a table, CSV or JSON; a table without rows says so in words."""
    if form is Format.json:
        typer.echo(
            json.dumps([{c: row[c] for c in columns} for row in rows], ensure_ascii=False, indent=1, default=str)
        )
    elif form is Format.csv:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_inert(row[c]) for c in columns] for row in rows)
        typer.echo(text.getvalue(), nl=False)
    elif not rows:
        console.print(empty, style="dim")
    else:
        console.print(_table(columns, rows))


def _inert(value: Any) -> Any:  # noqa: ANN401 - a cell
    # A text cell that starts like a formula would run as one in a spreadsheet; numbers stay numbers.
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and not _is_number(value) else value


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdecimal()


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        numeric = all(not isinstance(row[column], str) or _is_number(row[column].replace(",", "")) for row in rows)
        short = max((len(str(row[column])) for row in rows), default=0) <= SHORT_CELL
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=short)
    for row in rows:
        table.add_row(*("" if row[c] is None else str(row[c]) for c in columns))
    return table


@contextmanager
def refusals(*kinds: type[Exception]) -> Iterator[None]:
    """Turn refused work into its message and exit code 1."""
    try:
        yield
    except kinds as error:
        text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
        errors.print(f"[bold red]refused:[/] {_plain(text)}")
        raise typer.Exit(REFUSED) from error


def _plain(text: str) -> str:
    """Keep rich from reading brackets in data as markup."""
    return text.replace("[", r"\[")


def refuse(message: str) -> typer.Exit:
    """Print why work is refused, and return the exit to raise."""
    errors.print(f"[bold red]refused:[/] {_plain(message)}")
    return typer.Exit(REFUSED)


class Steps:
    """Progress bars by step: a new bar for each step that reports."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=errors,
            transient=False,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, step: str, done: int, every: int) -> None:
        """Report how far a step is."""
        if every == 0:
            return
        if step not in self._tasks:
            self._tasks[step] = self.progress.add_task(step, total=every)
        self.progress.update(self._tasks[step], completed=done, total=every)
