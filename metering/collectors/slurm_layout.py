"""The columns of a `sacct -P` file: from its header line or as named, and where free text stands among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

# Text that a user, or a script for the user, gives to a job.
FREE_TEXT = frozenset(
    {"jobname", "comment", "admincomment", "systemcomment", "submitline", "workdir"}
    | {"container", "extra", "stdin", "stdout", "stderr"}
)
REQUIRED = ("JobIDRaw", "Submit", "Start", "End", "State", "AllocTRES")
# All columns that are read, as sacct spells them.
KNOWN = (
    *REQUIRED,
    *("JobID", "Cluster", "DBIndex", "User", "UID", "Account", "Partition", "QOS", "ExitCode", "Elapsed", "ElapsedRaw"),
    *("Suspended", "NNodes", "AllocNodes", "NCPUS", "AllocCPUS", "NodeList", "Timelimit", "TimelimitRaw", "JobName"),
)


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
    def number_at(self) -> int | None:
        """Position of a job's number that stands before all free text; a file without one is refused."""
        certain = self.columns[: self.first_free]
        return next((certain.index(name) for name in ("JobIDRaw", "JobID") if name in certain), None)


def is_free(column: str) -> bool:
    """Tell whether a column is text that a user chooses."""
    return column.lower() in FREE_TEXT


def find_layout(lines: pl.DataFrame, columns: Sequence[str] | None, delimiter: str) -> tuple[Layout, str | None]:
    """Return the columns and the header line, if there is one; it is right where columns are named as well."""
    first = str(lines["text"][0])
    cells = [_canonical(cell) for cell in first.split(delimiter)]
    has_header = "JobIDRaw" in cells or {"JobID", "State"} <= set(cells)
    if not has_header:
        if columns is None:
            raise SacctFileError("the first line is no header; name the columns with --columns, as in sacct -o")
        cells = [_canonical(column) for column in columns]
        if _closes_every_line(lines, cells, delimiter):
            cells.append("")
    _check_columns(cells)
    layout = Layout(tuple(cells), delimiter)
    if layout.number_at is None:
        raise SacctFileError(
            f"{layout.columns[layout.first_free]} stands before JobIDRaw, so that a name could forge rows unseen; "
            "ask sacct for JobName last"
        )
    return layout, first if has_header else None


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
