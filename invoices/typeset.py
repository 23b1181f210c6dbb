"""Blocks into pages: each block becomes slabs, slabs are stacked down pages, every page gets its footer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from invoices.blocks import (
    BarCharts,
    Block,
    Heading,
    KeyValueGroup,
    KeyValues,
    Masthead,
    PageBreak,
    PageSetup,
    Panel,
    Paragraph,
    Spacer,
    Table,
    Totals,
)
from invoices.marks import BODY, BODY_BOLD, LABEL, NOTE, OUTSET, SMALL, Box, Line, Mark, Setter, Slab
from invoices.text_fit import Measure, Style
from invoices.typeset_chart import chart_slab
from invoices.typeset_table import table_slabs

_A4 = (595.276, 841.89)
_SIDE = 44.0
_TOP = 42.0
_BOTTOM = 50.0
_MASTHEAD_LEFT = 0.6  # of the width, for the issuer


@dataclass(frozen=True)
class Page:
    """One page: slabs with the height, from the top of the sheet, at which each begins."""

    width: float
    height: float
    left: float
    slabs: tuple[tuple[float, Slab], ...]


def typeset(
    blocks: Iterable[Block], setup: PageSetup, measure: Measure, has_glyph: Callable[[str], bool]
) -> list[Page]:
    """Return the finished pages of a document."""
    width, height = _A4[::-1] if setup.landscape else _A4
    setter = Setter(width - 2 * _SIDE, measure, has_glyph)
    slabs: list[Slab | None] = []
    for block in blocks:
        slabs += _slabs(block, setter)
    if setter.missing:
        codes = " ".join(f"U+{ord(char):04X}" for char in sorted(setter.missing))
        slabs += _paragraph(Paragraph(setup.missing_note.format(codes=codes), "muted"), setter)
    stacked = _stack(slabs, height - _TOP - _BOTTOM)
    return [
        Page(width, height, _SIDE, (*page, (height - _BOTTOM, _footer(setup, n, len(stacked), setter))))
        for n, page in enumerate(stacked, start=1)
    ]


def _slabs(block: Block, setter: Setter) -> Sequence[Slab | None]:
    """Set one block; None is the end of a page."""
    match block:
        case Table():
            return table_slabs(block, setter)
        case Paragraph():
            return _paragraph(block, setter)
        case PageBreak():
            return [None]
        case _:
            return [_slab(block, setter)]


_Single = Masthead | Panel | KeyValues | Heading | BarCharts | Totals | Spacer


def _slab(block: _Single, setter: Setter) -> Slab:
    """Set a block that is never broken."""
    set_block: dict[type, Callable[..., Slab]] = {
        Masthead: _masthead,
        Panel: _panel,
        KeyValues: _key_values,
        Heading: _heading,
        BarCharts: chart_slab,
        Totals: _totals,
        Spacer: _spacer,
    }
    return set_block[type(block)](block, setter)


def _stack(slabs: Sequence[Slab | None], room: float) -> list[list[tuple[float, Slab]]]:
    """Stack slabs down pages; what is glued together stays together, and a table's header is repeated."""
    pages: list[list[tuple[float, Slab]]] = [[]]
    used = 0.0
    for group in _groups(slabs):
        if group is None:
            pages.append([])
            used = 0.0
            continue
        if used + sum(slab.height for slab in group) > room and pages[-1]:
            pages.append([])
            used = 0.0
        header = group[0].header
        if not pages[-1] and header is not None:
            group = [header, *group]  # noqa: PLW2901 (the group as it stands on this page)
        for slab in group:
            if not pages[-1] and not slab.marks:
                continue  # no empty space at the top of a page
            pages[-1].append((_TOP + used, slab))
            used += slab.height
    return [page for page in pages if page] or [[]]


def _groups(slabs: Sequence[Slab | None]) -> Iterable[list[Slab] | None]:
    """Yield runs of slabs that stay on one page."""
    group: list[Slab] = []
    for slab in slabs:
        if slab is None:
            if group:
                yield group
            yield None
            group = []
            continue
        group.append(slab)
        if not slab.glued:
            yield group
            group = []
    if group:
        yield group


def _masthead(block: Masthead, setter: Setter) -> Slab:
    """Set issuer and title over a strong rule."""
    left = setter.width * _MASTHEAD_LEFT
    marks: list[Mark] = []
    y = 0.0
    for line in setter.lines(block.issuer, left, Style(12, bold=True)):
        y += 15
        marks.append(setter.place(0, y, line, Style(12, bold=True)))
    for text in block.issuer_lines:
        for line in setter.lines(text, left, SMALL):
            y += 10
            marks.append(setter.place(0, y + 1, line, SMALL))
    room = setter.width - left - 12
    title = setter.fitted(block.title, room, Style(21, bold=True, colour="accent"))
    number = setter.fitted(block.number, room, Style(9.5, bold=True))
    marks.append(setter.place(setter.width, 20, block.title, title, "right"))
    marks.append(setter.place(setter.width, 31, block.subtitle, SMALL, "right"))
    marks.append(setter.place(setter.width, 45, block.number, number, "right"))
    height = max(y, 46) + 9
    marks.append(Line(-OUTSET, height, setter.width + OUTSET, height, "accent", 1.4))
    return Slab(height + 12, marks)


def _panel(block: Panel, setter: Setter) -> Slab:
    """Set figures over a tint, the strong ones in the accent colour."""
    width = setter.width / len(block.figures)
    height = 50 if any(figure.note for figure in block.figures) else 42
    marks: list[Mark] = [Box(-OUTSET, 0, setter.width + 2 * OUTSET, height)]
    for i, figure in enumerate(block.figures):
        x = i * width + 8
        room = width - 18
        colour = "accent" if figure.strong else "ink"
        style = setter.fitted(figure.value, room, Style(16 if figure.strong else 13, bold=True, colour=colour))
        marks.append(setter.place(x, 14, figure.label, setter.fitted(figure.label, room, SMALL, 5)))
        marks.append(setter.place(x, 32, figure.value, style))
        marks.append(setter.place(x, 44, figure.note, setter.fitted(figure.note, room, NOTE, 5)))
        if i:
            marks.append(Line(i * width - OUTSET, 9, i * width - OUTSET, height - 9, "rule", 0.8))
    return Slab(height + 13, marks)


def _key_values(block: KeyValues, setter: Setter) -> Slab:
    """Set lists of facts side by side."""
    gap = 22.0
    width = (setter.width - gap * (len(block.groups) - 1)) / len(block.groups)
    marks: list[Mark] = []
    height = 0.0
    for i, group in enumerate(block.groups):
        part, foot = _facts(group, i * (width + gap), width, setter)
        marks += part
        height = max(height, foot)
    return Slab(height + 10, marks)


def _facts(group: KeyValueGroup, left: float, width: float, setter: Setter) -> tuple[list[Mark], float]:
    """Set one list of facts; values wrap beside their labels."""
    marks: list[Mark] = [setter.place(left, 8, group.title, LABEL), Line(left, 12.5, left + width, 12.5)]
    widest = max((setter.measure(setter.plain(label), SMALL) for label, _ in group.pairs), default=0.0)
    indent = min(widest + 10, width * 0.45)
    y = 14.0
    for label, value in group.pairs:
        labels = setter.lines(label, indent - 6, SMALL)
        values = setter.lines(value, width - indent, BODY)
        for n, line in enumerate(labels):
            marks.append(setter.place(left, y + 10 + 11.5 * n, line, SMALL))
        for n, line in enumerate(values):
            marks.append(setter.place(left + indent, y + 10 + 11.5 * n, line, BODY))
        y += 11.5 * max(len(labels), len(values)) + 1
    return marks, y


def _heading(block: Heading, setter: Setter) -> Slab:
    """Set a section's name; it is never the last thing on a page."""
    style = Style(10, bold=True, colour="ink")
    text = setter.place(0, 21, block.text, style)
    sub = setter.place(setter.measure(text.text, style) + 7, 21, block.sub, SMALL)
    return Slab(28, [text, sub], glued=True)


def _totals(block: Totals, setter: Setter) -> Slab:
    """Set the box of totals on the right, the remark on its left."""
    strong = Style(11, bold=True, colour="accent")
    styles = [strong if row.strong else BODY for row in block.rows]
    need = max(
        setter.measure(setter.plain(row.label), style) + setter.measure(setter.plain(row.value), style)
        for row, style in zip(block.rows, styles, strict=True)
    )
    width = min(max(230.0, need + 40), setter.width)
    edge = setter.width + OUTSET
    left = edge - width
    marks: list[Mark] = []
    y = 0.0
    for row, style in zip(block.rows, styles, strict=True):
        step = 23.0 if row.strong else 15.0
        if row.strong:
            marks += [Box(left, y, width, step), Line(left, y, edge, y, "accent", 1)]
        base = y + step / 2 + style.size * 0.36
        marks.append(setter.place(left + 10, base, row.label, style))
        marks.append(setter.place(setter.width, base, row.value, style, "right"))
        y += step
        if not row.strong:
            marks.append(Line(left, y, edge, y, "rule", 0.4))
    marks += _remark(block, left - 18, setter) if left > 60 else []  # noqa: PLR2004 (no room for a remark)
    return Slab(max(y, 40) + 8, marks)


def _remark(block: Totals, width: float, setter: Setter) -> list[Mark]:
    """Set the remark beside a box of totals."""
    marks: list[Mark] = [setter.place(0, 11, block.remark_label, SMALL)]
    style = Style(9.5, bold=True)
    for n, line in enumerate(setter.lines(block.remark, width, style)[:4]):
        marks.append(setter.place(0, 26 + 14 * n, line, style))
    return marks


def _spacer(block: Spacer, _setter: Setter) -> Slab:
    return Slab(block.height)


def _paragraph(block: Paragraph, setter: Setter) -> list[Slab]:
    """Set running text, one slab per line so that it may break over pages."""
    style = SMALL if block.style == "muted" else BODY
    step = style.size * 1.5
    return [
        Slab(step, [setter.place(0, style.size + 1, line, style)])
        for line in setter.lines(block.text, setter.width, style)
    ]


def _footer(setup: PageSetup, n: int, count: int, setter: Setter) -> Slab:
    """Set what stands under every page: issuer, document and page n / m."""
    page = setter.place(setter.width, 22, f"{n} / {count}", BODY_BOLD._replace(size=7, colour="muted"), "right")
    middle = setter.place(page.x - 18, 22, setup.footer_middle, NOTE, "right")
    left = setter.place(0, 22, setup.footer_left, setter.fitted(setup.footer_left, middle.x - 12, NOTE, 4))
    return Slab(24, [Line(-OUTSET, 12, setter.width + OUTSET, 12), left, middle, page])
