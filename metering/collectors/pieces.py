"""Logs read piece by piece: where a piece may end, what every later one needs from the beginning, and joining them.

What a log says does not depend on where it is cut, as long as no record is cut in two.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from metering.events import EVENT_SCHEMA, Collected

# About this much of a log is read at once; laid out in fields it takes some ten times as much memory.
PIECE_BYTES = 16 * 2**20
# A record is never longer; where a quote is never closed, reading goes on behind so many bytes all the same.
LONGEST_RECORD = 4 * PIECE_BYTES

_LINE = r'^\{"line":([0-9]+)'
_COUNT = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Cutting:
    """How a kind of log may be cut."""

    head: Literal["none", "comments", "record"] = "none"  # what stands in front and every piece needs
    comment: str = ";"
    quotes: bool = False  # text in quotes may hold line breaks

    def head_length(self, beginning: bytes) -> int:
        """Return how many bytes at the beginning of a log every piece needs."""
        if self.head == "record":
            return self.first_end(beginning)
        length = 0
        if self.head == "comments":
            for line in beginning.split(b"\n")[:-1]:
                if line.strip() and not line.startswith(self.comment.encode()):
                    break
                length += len(line) + 1
        return length

    def first_end(self, body: bytes) -> int:
        """Return where the first record of a log ends; 0 where it does not."""
        end = body.find(b"\n") + 1
        while self.quotes and end and body.count(b'"', 0, end) % 2:
            end = body.find(b"\n", end) + 1
        return end

    def last_end(self, body: bytes) -> int:
        """Return where the last whole record ends; 0 where none does. What follows may be half written."""
        end = body.rfind(b"\n") + 1
        quotes = body.count(b'"', 0, end) if self.quotes else 0
        while end and quotes % 2:
            before = body.rfind(b"\n", 0, end - 1) + 1
            quotes -= body.count(b'"', before, end)
            end = before
        return end


def pieces(body: bytes, cutting: Cutting, size: int = PIECE_BYTES) -> Iterator[tuple[bytes, int]]:
    """Cut a whole log into pieces, each with what it needs from the beginning, and how many lines to add to its own."""
    head = body[: cutting.head_length(body)]
    first = line = 0
    while first < len(body):
        end = first + _piece_length(body, first, cutting, size)
        piece = body[first:end]
        if first == 0:
            yield piece, 0
        else:
            yield head + piece, line - head.count(b"\n")
        line += piece.count(b"\n")
        first = end


def _piece_length(body: bytes, first: int, cutting: Cutting, size: int) -> int:
    rest = len(body) - first
    while size < rest:
        length = cutting.last_end(body[first : first + size])
        # The head alone would be a log without records.
        if length and (first or length > cutting.head_length(body)):
            return length
        size *= 2
    return rest


def shifted(collected: Collected, lines: int) -> Collected:
    """Let what was read of a piece name the lines of the whole log."""
    if lines == 0:
        return collected
    return replace(
        collected,
        events=collected.events.with_columns(evidence=_with_line(_told_line() + lines)),
        rejected=tuple(replace(row, line=row.line + lines) for row in collected.rejected),
    )


def renumbered(events: pl.DataFrame, lines: Mapping[int, int]) -> pl.DataFrame:
    """Let events name other lines: those in which they arrived first, for instance."""
    line = _told_line().replace_strict(lines, default=None, return_dtype=pl.Int64)
    return events.with_columns(evidence=_with_line(line))


def _told_line() -> pl.Expr:
    return pl.col("evidence").str.extract(_LINE).cast(pl.Int64)


def _with_line(line: pl.Expr) -> pl.Expr:
    rest = pl.col("evidence").str.replace(_LINE, "")
    moved = pl.concat_str(pl.lit('{"line":'), line.cast(pl.String), rest)
    return pl.when(line.is_null()).then("evidence").otherwise(moved)


def joined(parts: Sequence[Collected]) -> Collected:
    """Return what the pieces of one log say together."""
    no_usage: Counter[str] = Counter()
    for part in parts:
        no_usage.update(part.no_usage)
    events = pl.concat([part.events for part in parts]) if parts else EVENT_SCHEMA.to_frame()
    rejected = tuple(row for part in parts for row in part.rejected)
    notes = _added([note for part in parts for note in part.notes])
    return Collected(events, rejected, dict(no_usage), notes, parts[0].reading if parts else {})


def _added(notes: Sequence[str]) -> tuple[str, ...]:
    """Add up what notes count, where they differ in nothing else."""
    counts: dict[str, int | None] = {}
    for note in notes:
        count = _COUNT.search(note)
        form = _COUNT.sub("\0", note, count=1)
        counts[form] = int(count[0]) + (counts.get(form) or 0) if count else None
    return tuple(form if count is None else form.replace("\0", str(count), 1) for form, count in counts.items())
