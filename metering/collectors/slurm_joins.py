"""Which lines of a `sacct -P` file are rows, which only continue a name, and which are a broken row.

A user can write anything into a name, a whole row too. Where names stand before other columns, a row counts only if
nothing near it is odd: a line that does not open like a row, or whose columns do not look like what they are, leads
to a broken row that takes all lines with it which could be forged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import polars as pl

from metering.collectors.slurm_layout import Layout, is_free

# No text that belongs to a job is longer, so a row that a newline has cut starts within this many bytes.
WINDOW_BYTES = 65_536
# Lines are laid out in columns this many at a time, to keep the memory small.
LINES_AT_ONCE = 50_000

_TIME = r"[0-9]{9,15}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(?:[+-][0-9:]{4,5})?"
_TIME_IF_ANY = rf"{_TIME}|0|Unknown|None|NONE|N/A|"
_NUMBER_IF_ANY = "[0-9]*"
# What each column looks like at least; a column that is always filled shows best that the columns are in place.
SHAPES = {
    "JobIDRaw": r"[0-9]+(?:[._+].*)?",
    "Submit": _TIME,
    "State": r"[A-Z][A-Z_]*[+]?(?: by .*)?",
    "Start": _TIME_IF_ANY,
    "End": _TIME_IF_ANY,
    "ElapsedRaw": _NUMBER_IF_ANY,
    "UID": _NUMBER_IF_ANY,
    "NNodes": _NUMBER_IF_ANY,
    "NCPUS": _NUMBER_IF_ANY,
    "AllocTRES": "|.*=.*",
}
_JOB_NUMBER = r"^[0-9]+(?:[._+].*)?$"


@dataclass(frozen=True)
class BrokenRow:
    """Lines `[first, stop)`, from 0, that are one row which cannot be read, and what may tell whose it was."""

    first: int
    stop: int
    text: str = ""  # the row as far as it is certain that it belongs together
    joined: bool = False  # whether that holds all its columns, not only those before the break


@dataclass
class Grouped:
    """How the lines of a file fall into rows."""

    whole: pl.Expr  # which lines are rows, broken ones apart
    broken: list[BrokenRow] = field(default_factory=list)
    continued: int = 0  # lines that only continue the free text at the end of the row above


def group_by_count(layout: Layout, body: pl.DataFrame) -> Grouped:
    """Group where there is no free text: each line is a row, and one with another number of columns is broken."""
    whole = pl.col("count") == layout.delimiters
    odd = body.filter(~whole).select("line", "text").iter_rows()
    return Grouped(whole, [BrokenRow(line, line + 1, text) for line, text in odd])


def group_by_opening(layout: Layout, body: pl.DataFrame) -> Grouped:
    """Group where all free text comes last: a short line continues that text, unless it opens like a row cut off."""
    grouped = Grouped(pl.col("count") >= layout.delimiters - layout.tail + 1)
    short = body.with_columns(_opens(layout).alias("opens")).filter(~grouped.whole)
    for line, text, opens in short.select("line", "text", "opens").iter_rows():
        if opens or line == body["line"][0]:
            grouped.broken.append(BrokenRow(line, line + 1, text))
        else:
            grouped.continued += 1
    return grouped


def group_strictly(layout: Layout, body: pl.DataFrame) -> Grouped:
    """Group where free text stands before other columns: join what a newline has cut, and trust nothing near it."""
    marks = (_opens(layout).alias("opens"), _sound(layout).alias("sound"))
    parts = [part.select("line", "text", "count", "offset", *marks) for part in body.iter_slices(LINES_AT_ONCE)]
    if not parts:
        return Grouped(pl.lit(value=True))
    table = pl.concat(parts)
    grouped = Grouped(pl.col("count") == layout.delimiters)
    resume = 0
    odd = table.with_row_index("at").filter(~pl.col("sound"))
    for at, line, text, count, opens in odd.select("at", "line", "text", "count", "opens").iter_rows():
        if at < resume:
            continue
        if not opens and count < layout.tail and at > 0:
            grouped.continued += 1
            continue
        placements = _placements(layout, text) if opens else 0
        if not opens or placements > 1:
            _break_above(grouped.broken, table, at)
        elif placements == 1:
            grouped.broken.append(BrokenRow(line, line + 1, text, joined=True))
        else:
            row, resume = _run_to_completion(table, at, layout)
            grouped.broken.append(row)
    return grouped


def _opens(layout: Layout) -> pl.Expr:
    """Tell whether a line begins like a row: with a job's number."""
    at = layout.number_at or 0
    cell = pl.col("text").str.splitn(layout.delimiter, at + 2).struct.field(f"field_{at}")
    return cell.str.contains(_JOB_NUMBER).fill_null(value=False)


def _sound(layout: Layout) -> pl.Expr:
    """Tell whether a line has the right number of columns, and those with a known shape look like it."""
    cells = pl.col("text").str.splitn(layout.delimiter, len(layout.columns))
    shapes = [
        cells.struct.field(f"field_{at}").fill_null("").str.contains(f"^(?:{SHAPES[name]})$")
        for at, name in enumerate(layout.columns)
        if name in SHAPES
    ]
    return pl.all_horizontal(pl.col("count") == layout.delimiters, *shapes)


def _run_to_completion(table: pl.DataFrame, at: int, layout: Layout) -> tuple[BrokenRow, int]:
    """Follow a cut row to the fragment which completes its columns; whole-looking rows on the way are part of it."""
    first, opening, text = table["line"][at], table["offset"][at], table["text"][at]
    joined, stop = False, at + 1
    while not joined and stop < table.height and table["offset"][stop] - opening < WINDOW_BYTES:
        if not table["sound"][stop]:
            text = f"{text}\n{table['text'][stop]}"
            joined = _placements(layout, text) > 0
        stop += 1
    return BrokenRow(first, table["line"][stop - 1] + 1, text if joined else table["text"][at], joined=joined), stop


def _break_above(broken: list[BrokenRow], table: pl.DataFrame, at: int) -> None:
    """Break all rows that a line could belong to which has no opening, or the ends of two rows: one is forged."""
    stop, offset = table["line"][at] + 1, table["offset"][at]
    first = table.slice(0, at + 1).filter(pl.col("offset") >= offset - WINDOW_BYTES)["line"][0]
    while broken and broken[-1].stop > first:
        first = min(first, broken.pop().first)
    broken.append(BrokenRow(first, stop))


def _placements(layout: Layout, text: str) -> int:
    """Count the ways to lay the columns over the text in which each looks right; none if they are not all there."""
    cells = text.split(layout.delimiter)
    if len(cells) < len(layout.columns):
        return 0
    return sum(map(looks_right, alignments(layout, cells, joined=True)))


def looks_right(cells: Mapping[str, str]) -> bool:
    """Tell whether each cell has the shape of its column."""
    return all(re.fullmatch(SHAPES[name], cell, re.ASCII) for name, cell in cells.items() if name in SHAPES)


def alignments(layout: Layout, cells: Sequence[str], *, joined: bool) -> Iterator[dict[str, str]]:
    """Yield each way to lay the columns over the cells of a broken row.

    What stands before the first free text is certain. Delimiters inside that text shift what stands behind it, up to
    the next free text, by their number.
    """
    certain = dict(zip(layout.columns[: layout.first_free], cells, strict=False))
    borders = [i for i, column in enumerate(layout.columns) if is_free(column)] + [len(layout.columns)]
    behind = next(((a + 1, b) for a, b in pairwise(borders) if b > a + 1), None)
    if not joined or behind is None:
        yield certain
        return
    start, stop = behind
    for shift in range(max(1, len(cells) - len(layout.columns) + 1)):
        yield certain | dict(zip(layout.columns[start:stop], cells[start + shift : stop + shift], strict=False))
