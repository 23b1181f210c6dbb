"""Tables as slabs: figures as wide as they need, names wrapped, the header repeated on every page."""

from __future__ import annotations

from typing import NamedTuple

from invoices.blocks import Column, Row, Table
from invoices.marks import LABEL, NOTE, OUTSET, Box, Line, Mark, Setter, Slab
from invoices.text_fit import Style

_SIZES = (8.0, 7.5, 7.0, 6.5, 6.0, 5.5)
_GAP = 11.0
_LEAST_FIGURES = 38.0  # points that a column of figures gets, so that short ones stand apart
_LEAST_FLEX = 88.0  # points that a wrapped column gets at least, before the type is made smaller
_PAD = 3.2
_WHOLE_ROWS = 6  # a table of so few rows stays on one page
_MAX_LINES = 40  # of one slab; a longer row is cut into several so that it fits a page


class _Grid(NamedTuple):
    """Where the columns stand and how large their type is."""

    size: float
    widths: list[float]
    lefts: list[float]

    def edge(self, i: int, column: Column) -> float:
        return self.lefts[i] + (self.widths[i] if column.align == "right" else 0)


def table_slabs(table: Table, setter: Setter) -> list[Slab]:
    """Return the header and one slab per row; the first rows and the last rows stay together."""
    grid = _grid(table, setter)
    header = _header(table.columns, grid, setter)
    slabs = [header]
    last = len(table.rows) - 1
    for i, row in enumerate(table.rows):
        pieces = _row_slabs(row, table.columns, grid, setter)
        for piece in pieces:
            piece.header = header
        # No row stands alone above or below a page's end, a total least of all.
        pieces[-1].glued = i < last and (last < _WHOLE_ROWS or i == 0 or i == last - 1)
        slabs += pieces
    return slabs


def _grid(table: Table, setter: Setter) -> _Grid:
    """Find the largest type in which the wrapped columns keep room to breathe."""
    natural = [_natural_em(table, i, setter) for i in range(len(table.columns))]
    room = setter.width - _GAP * (len(table.columns) - 1)
    flex = [column.flex for column in table.columns]
    least = _LEAST_FLEX * sum(1 for weight in flex if weight)
    for size in _SIZES:
        fixed = sum(width * size for width, weight in zip(natural, flex, strict=True) if not weight)
        if room - fixed >= least:
            break
    else:
        # Not even small type suffices: narrow the figures too, whose cells then wrap.
        shrink = (room - least) / fixed
        natural = [width * (1 if weight else shrink) for width, weight in zip(natural, flex, strict=True)]
        fixed = room - least
    widths = _shares(table.columns, natural, size, room - fixed)
    lefts = [sum(widths[:i]) + _GAP * i for i in range(len(widths))]
    return _Grid(size, widths, lefts)


def _natural_em(table: Table, i: int, setter: Setter) -> float:
    """Return the width of a column's widest text, per point of type size."""
    column = table.columns[i]
    unit, unit_bold = Style(1), Style(1, bold=True)
    widths = [
        setter.measure(setter.plain(row.cells[i]), unit_bold if row.style == "total" else unit) for row in table.rows
    ]
    notes = [setter.measure(setter.plain(row.notes[i]), unit) * 0.8 for row in table.rows if row.notes]
    label = max(setter.measure(column.label, unit_bold) * 0.9, setter.measure(column.sub, unit) * 0.8)
    return max([label, *widths, *notes]) + 0.01


def _shares(columns: tuple[Column, ...], natural: list[float], size: float, room: float) -> list[float]:
    """Give columns of short figures some air, and each wrapped column its share of the room that is left."""
    widths = [width * size for width in natural]
    wrapped = {i: column.flex for i, column in enumerate(columns) if column.flex}
    for i, column in enumerate(columns):
        more = min(_LEAST_FIGURES - widths[i], room - _LEAST_FLEX * len(wrapped))
        if column.align == "right" and not column.flex and more > 0:
            widths[i] += more
            room -= more
    while wrapped:
        share = room / sum(wrapped.values())
        # A column that needs less than its share leaves the rest to the others.
        content = [i for i, weight in wrapped.items() if widths[i] <= share * weight]
        if not content or len(content) == len(wrapped):
            widths = [share * wrapped[i] if i in wrapped else width for i, width in enumerate(widths)]
            break
        room -= sum(widths[i] for i in content)
        wrapped = {i: weight for i, weight in wrapped.items() if i not in content}
    return widths


def _header(columns: tuple[Column, ...], grid: _Grid, setter: Setter) -> Slab:
    """Set the labels, in two languages where there are two, between two rules."""
    style = LABEL._replace(size=min(LABEL.size, grid.size * 0.9))
    note = NOTE._replace(size=grid.size * 0.75)
    label_lines = [setter.lines(c.label, w + 0.1, style) for c, w in zip(columns, grid.widths, strict=True)]
    sub_lines = [setter.lines(c.sub, w + 0.1, note) if c.sub else [] for c, w in zip(columns, grid.widths, strict=True)]
    top = 3 + style.size
    step = style.size * 1.25
    marks: list[Mark] = []
    height = 0.0
    for i, column in enumerate(columns):
        y = top
        for line in label_lines[i]:
            marks.append(setter.place(grid.edge(i, column), y, line, style, column.align))
            y += step
        for line in sub_lines[i]:
            marks.append(setter.place(grid.edge(i, column), y - 0.5, line, note, column.align))
            y += note.size * 1.25
        height = max(height, y - step + 5)
    frame: list[Mark] = [
        Box(-OUTSET, 0, setter.width + 2 * OUTSET, height, "tint"),
        Line(-OUTSET, height, setter.width + OUTSET, height, "accent", 0.8),
    ]
    return Slab(height + 1, frame + marks, glued=True)


def _row_slabs(row: Row, columns: tuple[Column, ...], grid: _Grid, setter: Setter) -> list[Slab]:
    """Set one row: its cells wrapped, notes in small type under them."""
    total = row.style == "total"
    style = Style(grid.size, bold=total)
    note = NOTE._replace(size=grid.size * 0.79)
    cells = []
    for i, text in enumerate(row.cells):
        width = grid.widths[i] + 0.1
        lines = [(line, style) for line in setter.lines(text, width, style)]
        if row.notes and row.notes[i]:
            lines += [(line, note) for line in setter.lines(row.notes[i], width, note)]
        cells.append(lines)
    longest = max(len(lines) for lines in cells)
    pieces = [
        _piece([lines[start : start + _MAX_LINES] for lines in cells], columns, grid, setter)
        for start in range(0, longest, _MAX_LINES)
    ]
    foot = pieces[-1]
    foot.marks.append(Line(-OUTSET, foot.height, setter.width + OUTSET, foot.height, "rule", 0.4))
    if total:
        pieces[0].marks.append(Line(-OUTSET, 0, setter.width + OUTSET, 0, "line", 0.8))
    return pieces


def _piece(cells: list[list[tuple[str, Style]]], columns: tuple[Column, ...], grid: _Grid, setter: Setter) -> Slab:
    """Set the lines of one slab of a row."""
    marks: list[Mark] = []
    height = 0.0
    for i, lines in enumerate(cells):
        y = _PAD
        for text, style in lines:
            y += style.size * 1.32
            if text:
                marks.append(
                    setter.place(grid.edge(i, columns[i]), y - style.size * 0.26, text, style, columns[i].align)
                )
        height = max(height, y + _PAD)
    return Slab(height, marks)
