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

import polars as pl

from metering.collectors.slurm_joins import BrokenRow, group_by_count, group_by_opening, group_strictly
from metering.collectors.slurm_layout import Layout, SacctFileError, find_layout

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# About this much of a file is laid out in columns at once, which takes some ten times as much memory.
PIECE_BYTES = 16 * 2**20


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
    lines_before: int = 0  # of the file, where this is a piece of it

    def raw(self, first: int, stop: int) -> bytes:
        """Return the bytes of the lines `[first, stop)`, newlines between them included."""
        ends = self.lines["offset"][stop - 1] + self.lines["length"][stop - 1]
        return self.body[self.lines["offset"][first] : ends]


def read_lines(payload: bytes, columns: Sequence[str] | None, delimiter: str) -> SacctLines:
    """Cut a file into lines and group them into rows, or say why the file cannot be used."""
    body = unpack(payload)
    lines = _split(body, delimiter)
    layout, header = find_layout(lines, columns, delimiter)
    result = SacctLines(layout=layout, body=body, lines=lines)
    _group(result, header)
    if columns and result.rows.is_empty() and result.broken:
        found = lines["count"].mode().sort()[-1] + 1
        raise SacctFileError(
            f"no line has the {len(columns)} columns that were named; most have {found}: "
            "check --columns and the delimiter"
        )
    return result


def sacct_pieces(payload: bytes, columns: Sequence[str] | None, delimiter: str) -> Iterator[tuple[bytes, int]]:
    """Cut a large file where a row begins, each piece under the header line; yield also the lines to add to its own.

    A file in which names stand before other columns is not cut: there a row may be forged across any border.
    """
    body = unpack(payload)
    if len(body) <= PIECE_BYTES or body.find(b"\n", PIECE_BYTES // 16) < 0:
        yield body, 0
        return
    layout, header = find_layout(_split(body[: body.find(b"\n", PIECE_BYTES // 16) + 1], delimiter), columns, delimiter)
    head = body[: body.index(b"\n") + 1] if header is not None else b""
    first = line = 0
    while first < len(body):
        end = len(body) if not layout.free_text_last else _row_after(body, first + PIECE_BYTES, layout)
        piece = body[first:end]
        yield (piece, 0) if first == 0 else (head + piece, line - head.count(b"\n"))
        line += piece.count(b"\n")
        first = end


def _row_after(body: bytes, position: int, layout: Layout) -> int:
    """Return where the first line behind a position begins that is a row, whatever stands before it."""
    delimiter, needed = layout.delimiter.encode(), layout.delimiters - layout.tail + 1 if layout.tail else 0
    begin = body.find(b"\n", position) + 1
    while begin:
        end = body.find(b"\n", begin)
        if body.count(delimiter, begin, end if end >= 0 else len(body)) >= needed:
            return begin
        begin = end + 1
    return len(body)


def unpack(payload: bytes) -> bytes:
    """Return the bytes of a file, plain or gzip, without what surrounds its lines; an empty one is refused."""
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


def _group(result: SacctLines, header: str | None) -> None:
    """Find the rows among the lines. Only lines with an odd number of columns need a closer look."""
    layout, lines = result.layout, result.lines
    is_header = pl.lit(value=False) if header is None else pl.col("text") == header
    body = lines.filter(pl.col("length") > 0, ~is_header)
    if not layout.free_text_last:
        grouped = group_strictly(layout, body)
    elif layout.tail:
        grouped = group_by_opening(layout, body)
    else:
        grouped = group_by_count(layout, body)
    result.broken, result.continued = grouped.broken, grouped.continued
    covered = pl.Series([line for row in grouped.broken for line in range(row.first, row.stop)], dtype=pl.Int64)
    outside = ~pl.col("line").is_in(covered.implode())
    result.rows = body.filter(grouped.whole, outside)["line"]
    result.headers = lines.filter(is_header, outside).height - (header is not None)
