"""The rows of a `sacct -P` file, which escapes nothing: which lines are one row, and which row is broken.

Names are free text. They may hold the delimiter, newlines and even a whole forged row. Where free text stands behind
all other columns, everything before it is read as it is. Where it stands before other columns, a row is whole only if
it has exactly the file's number of columns; a line that ends short opens a row that runs to the line which completes
it, and all of that, whole-looking lines too, is one broken row.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import polars as pl

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Text that a user, or a script for the user, gives to a job.
FREE_TEXT = frozenset(
    "jobname comment admincomment systemcomment submitline workdir container extra stdin stdout stderr".split()
)
REQUIRED = ("JobIDRaw", "Submit", "Start", "End", "State", "AllocTRES")
# All columns that are read, as sacct spells them.
KNOWN = (
    *REQUIRED,
    *("JobID", "Cluster", "DBIndex", "User", "UID", "Account", "Partition", "QOS", "ExitCode", "Elapsed", "ElapsedRaw"),
    *("Suspended", "NNodes", "AllocNodes", "NCPUS", "AllocCPUS", "NodeList", "Timelimit", "TimelimitRaw", "JobName"),
)
# No text that belongs to a job is longer, so a row that a newline has cut starts within this many bytes.
WINDOW_BYTES = 65_536


class SacctFileError(ValueError):
    """A file that is refused as a whole; the message says why and what to do."""


@dataclass(frozen=True)
class Layout:
    """The columns of a file and which of them are free text."""

    columns: tuple[str, ...]
    delimiter: str

    @property
    def delimiters(self) -> int:
        """Delimiters in a row without any in its free text."""
        return len(self.columns) - 1

    @property
    def tail(self) -> int:
        """How many columns at the end are free text (or what stands behind a closing delimiter)."""
        count = 0
        for column in reversed(self.columns):
            if column and not is_free(column):
                break
            count += 1
        return count if any(self.columns[len(self.columns) - count :]) else 0

    @property
    def free_text_last(self) -> bool:
        """Whether no free text stands before another column."""
        return not any(is_free(column) for column in self.columns[: len(self.columns) - self.tail])

    @property
    def first_free(self) -> int:
        """Position of the first free text; the number of columns where there is none."""
        return next((i for i, column in enumerate(self.columns) if is_free(column)), len(self.columns))

    @property
    def id_at(self) -> int:
        """Position of JobIDRaw."""
        return self.columns.index("JobIDRaw")


@dataclass(frozen=True)
class BrokenRow:
    """Lines `[first, stop)`, from 0, that are one row which cannot be read."""

    first: int
    stop: int
    # What still tells whose row it was: all its columns, those before the break, or (several rows may be in it) none.
    readable: Literal["joined", "opening", "nothing"]


@dataclass
class SacctLines:
    """A file cut into lines, with the rows that they make."""

    layout: Layout
    body: bytes
    lines: pl.DataFrame  # line (from 0), text, count (of delimiters), offset, length (bytes, without the newline)
    rows: pl.Series = field(default_factory=lambda: pl.Series("line", [], dtype=pl.Int64))  # lines that are rows
    broken: list[BrokenRow] = field(default_factory=list)
    continued: int = 0  # lines that only continue the free text of the row above
    headers: int = 0  # repeated header lines

    def raw(self, first: int, stop: int) -> bytes:
        """Return the bytes of the lines `[first, stop)`, newlines between them included."""
        ends = self.lines["offset"][stop - 1] + self.lines["length"][stop - 1]
        return self.body[self.lines["offset"][first] : ends]


def is_free(column: str) -> bool:
    """Tell whether a column is text that a user chooses."""
    return column.lower() in FREE_TEXT


def read_lines(payload: bytes, columns: Sequence[str] | None, delimiter: str) -> SacctLines:
    """Cut a file into lines and group them into rows, or say why the file cannot be used."""
    body = _unpack(payload)
    lines = _split(body, delimiter)
    layout, header = _layout(lines, columns, delimiter)
    result = SacctLines(layout=layout, body=body, lines=lines)
    _group(result, header)
    if columns and result.rows.is_empty() and result.broken:
        found = lines["count"].mode().sort()[-1] + 1
        raise SacctFileError(
            f"no line has the {len(columns)} columns that were named; most have {found}: "
            "check --columns and the delimiter"
        )
    return result


def _unpack(payload: bytes) -> bytes:
    if payload.startswith(GZIP_MAGIC):
        try:
            payload = gzip.decompress(payload)
        except (OSError, EOFError, zlib.error) as error:
            raise SacctFileError(f"the gzip file cannot be unpacked ({error}); transfer it again") from error
    payload = payload.removeprefix(BYTE_ORDER_MARK).rstrip(b"\n")
    if not payload.strip():
        raise SacctFileError("the file is empty; a pull without jobs has at least a header line")
    return payload


def _split(body: bytes, delimiter: str) -> pl.DataFrame:
    """Split on newline bytes only: names hold carriage returns and other characters that readers take for line ends."""
    try:
        text = body.decode()
        series = pl.Series("text", [text]).str.split("\n").explode()
        length = series.str.len_bytes().cast(pl.Int64)
    except UnicodeDecodeError:
        series = pl.Series("text", body.decode(errors="replace").split("\n"), dtype=pl.String)
        length = pl.Series("length", [len(line) for line in body.split(b"\n")], dtype=pl.Int64)
    frame = pl.DataFrame({"text": series, "length": length}).with_row_index("line")
    if frame["text"][0].endswith("\r"):  # written on a system whose lines end in CR LF
        frame = frame.with_columns(pl.col("text").str.strip_suffix("\r"))
    return frame.with_columns(
        pl.col("line").cast(pl.Int64),
        pl.col("text").str.count_matches(delimiter, literal=True).cast(pl.Int64).alias("count"),
        ((pl.col("length") + 1).cum_sum() - pl.col("length") - 1).alias("offset"),
    )


def _layout(lines: pl.DataFrame, columns: Sequence[str] | None, delimiter: str) -> tuple[Layout, str | None]:
    """Return the columns and the header line, if there is one."""
    first = str(lines["text"][0])
    cells = [_canonical(cell) for cell in first.split(delimiter)]
    has_header = "JobIDRaw" in cells or {"JobID", "State"} <= set(cells)
    if columns is not None:
        named = [_canonical(column) for column in columns]
        if has_header and cells != named and cells != [*named, ""]:
            raise SacctFileError("the header line names other columns than --columns; leave --columns out")
        if not has_header and _closes_every_line(lines, named, delimiter):
            named.append("")
        cells = cells if has_header else named
    elif not has_header:
        raise SacctFileError("the first line is no header; name the columns with --columns, as in sacct -o")
    _check_columns(cells)
    return Layout(tuple(cells), delimiter), first if has_header else None


def _closes_every_line(lines: pl.DataFrame, columns: Sequence[str], delimiter: str) -> bool:
    """Tell whether the file was written with --parsable, which closes each line with a delimiter."""
    closed = pl.col("text").str.ends_with(delimiter) & (pl.col("count") >= len(columns))
    return bool(lines.select(closed.all()).item())


def _canonical(column: str) -> str:
    name = column.strip().partition("%")[0]
    return next((known for known in KNOWN if known.lower() == name.lower()), name)


def _check_columns(columns: Sequence[str]) -> None:
    missing = [column for column in REQUIRED if column not in columns]
    if "ElapsedRaw" not in columns and "Elapsed" not in columns:
        missing.append("ElapsedRaw")
    if missing:
        raise SacctFileError(
            f"the file has no column {', '.join(missing)}: without it a job cannot be told from another or metered; "
            "ask sacct for it with -o"
        )
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise SacctFileError(f"the column {', '.join(twice)} is there twice; ask sacct for it once")


def _group(result: SacctLines, header: str | None) -> None:
    """Find the rows among the lines. Only lines with an odd number of columns need a closer look."""
    layout, lines = result.layout, result.lines
    is_header = pl.lit(value=False) if header is None else pl.col("text") == header
    body = lines.filter(pl.col("length") > 0, ~is_header)
    exact = not layout.free_text_last or layout.tail == 0
    needed = layout.delimiters if exact else layout.delimiters - layout.tail + 1
    body = body.with_columns((pl.col("count") == needed if exact else pl.col("count") >= needed).alias("whole"))
    if layout.free_text_last:
        _group_plain(result, body)
    else:
        _group_strict(result, body)
    covered = pl.Series([line for row in result.broken for line in range(row.first, row.stop)], dtype=pl.Int64)
    outside = ~pl.col("line").is_in(covered.implode())
    result.rows = body.filter("whole", outside)["line"]
    result.headers = lines.filter(is_header, outside).height - (header is not None)


def _group_plain(result: SacctLines, body: pl.DataFrame) -> None:
    """No free text before other columns: a short line continues the text above, or is a row that was cut off."""
    for line, text, count in body.filter(~pl.col("whole")).select("line", "text", "count").iter_rows():
        alone = result.layout.tail == 0 or line == body["line"][0]
        if alone or _opens_row(text, result.layout):
            readable: Literal["opening", "nothing"] = "opening" if count < result.layout.delimiters else "nothing"
            result.broken.append(BrokenRow(line, line + 1, readable))
        else:
            result.continued += 1


def _opens_row(text: str, layout: Layout) -> bool:
    """Tell whether a short line begins like a row: with a job's number where JobIDRaw stands."""
    if layout.first_free < layout.id_at:
        return True  # the free text stands before the number; nothing can be told
    cells = text.split(layout.delimiter)
    return len(cells) > layout.id_at and cells[layout.id_at].partition("_")[0].isdecimal()


def _group_strict(result: SacctLines, body: pl.DataFrame) -> None:
    """Free text stands before other columns: join what a newline has cut, and trust nothing near it."""
    table = body.select("line", "text", "count", "offset", "whole")
    odd = table.with_row_index("at").filter(~pl.col("whole"))
    resume = 0
    for at, line, text, count in odd.select("at", "line", "text", "count").iter_rows():
        if at < resume:
            continue
        if count > result.layout.delimiters:
            result.broken.append(BrokenRow(line, line + 1, "joined"))
        elif _opens_row(text, result.layout):
            row, resume = _run_to_completion(table, at, result.layout)
            result.broken.append(row)
        elif count < result.layout.tail and at > 0:
            result.continued += 1
        else:
            _break_above(result.broken, table, at)


def _run_to_completion(table: pl.DataFrame, at: int, layout: Layout) -> tuple[BrokenRow, int]:
    """Follow a row that ends short to the fragment which completes its columns; whole rows on the way do not count."""
    first, opening, total = table["line"][at], table["offset"][at], table["count"][at]
    swallowed, stop = False, at + 1
    while stop < table.height and total < layout.delimiters and table["offset"][stop] - opening < WINDOW_BYTES:
        if table["whole"][stop] and _opens_row(table["text"][stop], layout):
            swallowed = True
        else:
            total += table["count"][stop]
        stop += 1
    complete = total >= layout.delimiters and not swallowed
    return BrokenRow(first, table["line"][stop - 1] + 1, "joined" if complete else "opening"), stop


def _break_above(broken: list[BrokenRow], table: pl.DataFrame, at: int) -> None:
    """Break all rows that a fragment without an opening could belong to: one of them must be forged."""
    stop, offset = table["line"][at] + 1, table["offset"][at]
    above = table.slice(0, at + 1).filter(pl.col("offset") >= offset - WINDOW_BYTES)
    first = above["line"][0]
    while broken and broken[-1].stop > first:
        first = min(first, broken.pop().first)
    broken.append(BrokenRow(first, stop, "nothing"))


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
