"""A CSV file as columns of text: every record is a row or, where its number of fields is wrong, kept as ragged."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import polars as pl

from metering.collectors.common import LogFileError, log_lines

# Records are laid out in columns this many at a time, to keep the memory small.
RECORDS_AT_ONCE = 50_000


@dataclass(frozen=True)
class Table:
    """The records of a CSV file: `rows` has columns `c:<name>` of text and each record's first `line`, from 0."""

    columns: tuple[str, ...]
    rows: pl.DataFrame
    ragged: Mapping[int, int]  # first line of records with another number of fields than the header -> fields
    raw: Callable[[int], bytes]  # the bytes of the record that begins in a line


def read_table(body: bytes, *, delimiter: str = ",", columns: Sequence[str] | None = None) -> Table:
    """Read CSV with a header line, or with the given names where it has none."""
    return (_quoted if b'"' in body else _plain)(body, delimiter, columns)


def header_text(columns: Sequence[str], delimiter: str) -> str:
    """Write the header line of a file with these columns."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="").writerow(columns)
    return text.getvalue()


def _plain(body: bytes, delimiter: str, columns: Sequence[str] | None) -> Table:
    """Read a file without quotes, in which each line is a record and each delimiter parts two fields."""
    log = log_lines(body)
    lines, names = log.lines, tuple(columns or ())
    if not names:
        names, lines = tuple(name.strip() for name in lines["text"][0].split(delimiter)), lines[1:]
    _check(names)
    found = pl.col("text").str.count_matches(delimiter, literal=True) + 1
    lines = lines.with_columns(found=found.cast(pl.Int64))
    cells = pl.col("text").str.splitn(delimiter, len(names)).struct.rename_fields([f"c:{name}" for name in names])
    rows = lines.filter(pl.col("found") == len(names)).select("line", cells.alias("cells")).unnest("cells")
    ragged = lines.filter(pl.col("found") != len(names)).select("line", "found")
    return Table(names, rows, dict(ragged.iter_rows()), log.raw)


def _quoted(body: bytes, delimiter: str, columns: Sequence[str] | None) -> Table:
    physical = body.rstrip(b"\n").split(b"\n")
    reader = csv.reader(_texts(physical), delimiter=delimiter, strict=True)
    spans: dict[int, int] = {}
    ragged: dict[int, int] = {}
    try:
        names = tuple(columns or (name.strip() for name in next(reader, [])))
        _check(names)
        records = _records(reader, len(names), spans, ragged)
        chunks = []
        while chunk := list(islice(records, RECORDS_AT_ONCE)):
            chunks.append(pl.DataFrame(list(zip(*chunk, strict=True)), schema=_schema(names), orient="col"))
    except csv.Error as error:
        raise LogFileError(f"line {reader.line_num} is no CSV ({error}); check the quotes and the delimiter") from error
    rows = pl.concat(chunks) if chunks else _schema(names).to_frame()
    return Table(names, rows, ragged, lambda line: b"\n".join(physical[line : spans[line]]))


def _texts(physical: Sequence[bytes]) -> Iterator[str]:
    for line in physical:
        yield line.decode(errors="replace") + "\n"


def _schema(names: Sequence[str]) -> pl.Schema:
    return pl.Schema({"line": pl.Int64(), **{f"c:{name}": pl.String() for name in names}})


def _records(
    reader: Iterator[list[str]], fields: int, spans: dict[int, int], ragged: dict[int, int]
) -> Iterator[tuple[int | str, ...]]:
    """Yield whole records behind the line they begin in; note where each ends, and those of another length."""
    before = _line_number(reader)
    for record in reader:
        first, before = before, _line_number(reader)
        spans[first] = before
        if len(record) == fields:
            yield (first, *record)
        elif record:  # an empty line is no record
            ragged[first] = len(record)


def _line_number(reader: object) -> int:
    return int(getattr(reader, "line_num", 0))


def _check(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not any(names):
        problem = f"has the column {', '.join(twice)} twice" if twice else "has no header line"
        raise LogFileError(f"the CSV file {problem}; name its columns once each")
