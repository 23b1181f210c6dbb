"""How the command line prints: rows on standard output, all else (progress, notices, refusals) on standard error."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Self

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

SHORT_CELL = 24  # cells up to this are never broken over lines
NARROWEST = 12  # nor is any other column made narrower than this; sooner the table is wider than its page
REFUSED = 1  # exit code of refused work; wrong use is 2

# Where nobody looks (a pipe, a file) there is room for whole rows.
WIDE = 160
console = Console(width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, width=None if sys.stderr.isatty() else WIDE)

Row = Mapping[str, Any]


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    csv = "csv"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How rows are printed; csv and json for machines.")]


@dataclass(frozen=True)
class Section:
    """One of several tables that a command prints."""

    name: str  # for machines
    title: str  # for readers; "" where the table before has said it
    columns: Sequence[str]
    rows: Sequence[Row]
    empty: str = "none"


def print_rows(columns: Sequence[str], rows: Sequence[Row], form: Format, *, empty: str) -> None:
    """Print rows as a table, CSV or JSON; a table without rows says so in words."""
    if form is Format.json:
        _print_json([{column: row[column] for column in columns} for row in rows])
    elif form is Format.csv:
        _print_csv(columns, rows)
    elif not rows:
        console.print(empty, style="dim", highlight=False)
    else:
        _print_table(_table(columns, rows))


def print_sections(sections: Iterable[Section], form: Format) -> None:
    """Print several tables: one after the other, or for machines as one document whose rows name their table."""
    if form is Format.table:
        for section in sections:
            if section.title:
                console.print(Text(f"\n{_cell(section.title)}", style="bold"))
            print_rows(section.columns, section.rows, form, empty=section.empty)
        return
    every = list(sections)
    if form is Format.json:
        _print_json(
            [{"table": one.name, "rows": [{c: row[c] for c in one.columns} for row in one.rows]} for one in every]
        )
        return
    columns = dict.fromkeys(("table", *(column for section in every for column in section.columns)))
    rows = [{**dict.fromkeys(columns, ""), **row, "table": section.name} for section in every for row in section.rows]
    _print_csv(list(columns), rows)


def say(text: str, form: Format = Format.table, *, style: str = "") -> None:
    """Say something to a reader: below a table; beside the rows, on standard error, where a machine reads those."""
    stream = console if form is Format.table else errors
    stream.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def notice(text: str, *, style: str = "yellow") -> None:
    """Say something that is no part of the answer."""
    errors.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1, default=str))


def _print_csv(columns: Sequence[str], rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_inert(row[column]) for column in columns] for row in rows)
    typer.echo(text.getvalue(), nl=False)


def _inert(value: object) -> object:
    # A text cell that starts like a formula would run as one in a spreadsheet; numbers stay numbers.
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"))
    return f"'{value}" if formula and not _is_number(str(value)) else value


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9][0-9,]*(\.[0-9]+)?", text, re.ASCII) is not None


def _print_table(table: Table) -> None:
    # A table too wide for a file, or a narrow window, is printed whole; letters one below the other help nobody.
    needed = console.measure(table).minimum
    console.print(table, width=max(needed, console.width), soft_wrap=needed > console.width)


def _table(columns: Sequence[str], rows: Sequence[Row]) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        cells = [_cell(row[column]) for row in rows]
        numeric = any(cells) and all(not cell or _is_number(cell) for cell in cells)
        longest, heading = max(cell_len(cell) for cell in cells), column.replace("_", " ")
        # A short cell is never broken, nor is a word of a heading.
        least = max(longest if longest <= SHORT_CELL else NARROWEST, *(cell_len(word) for word in heading.split()))
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))
    return table


def _cell(value: object) -> str:
    # Control characters out of a job's name would move the cursor, or recolour the screen.
    return "" if value is None else "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


@contextmanager
def refusals(*kinds: type[Exception]) -> Iterator[None]:
    """Turn refused work into its message and exit code 1."""
    try:
        yield
    except kinds as error:
        text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
        raise refuse(text) from error


def refuse(message: str) -> typer.Exit:
    """Print why work is refused, and return the exit to raise."""
    errors.print("[bold red]refused:[/]", end=" ")
    errors.print(message, markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(REFUSED)


class Steps:
    """Progress bars by step, on standard error: a new bar for each step that reports."""

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
        return self

    def __exit__(self, *_: object) -> None:
        if self._tasks:
            self.progress.stop()

    def __call__(self, step: str, done: int, every: int) -> None:
        """Report how far a step is."""
        if every == 0:
            return
        if not self._tasks:
            self.progress.start()
        if step not in self._tasks:
            self._tasks[step] = self.progress.add_task(step, total=every)
        self.progress.update(self._tasks[step], completed=done, total=every)
