"""Bar charts as slabs: one zero line, few rules, every axis labelled."""

from __future__ import annotations

from decimal import Decimal

from invoices.blocks import BarChart, BarCharts
from invoices.marks import BODY_BOLD, NOTE, SMALL, Box, Line, Mark, Setter, Slab

_HEIGHT = 78.0
_TOP = 24.0
_FOOT = 14.0
_GAP = 24.0
_TICKS = 4


def chart_slab(block: BarCharts, setter: Setter) -> Slab:
    """Set charts side by side, each with its own scale."""
    count = len(block.charts)
    width = (setter.width - _GAP * (count - 1)) / count
    marks: list[Mark] = []
    for i, chart in enumerate(block.charts):
        marks += _chart(chart, i * (width + _GAP), width, setter)
    return Slab(_TOP + _HEIGHT + _FOOT, marks)


def _chart(chart: BarChart, left: float, width: float, setter: Setter) -> list[Mark]:
    """Set one chart into a column of the page."""
    ticks = axis_ticks(min(chart.values, default=Decimal(0)), max(chart.values, default=Decimal(0)))
    names = [f"{tick:,f}" for tick in ticks]
    axis = max(setter.measure(name, NOTE) for name in names) + 5
    low, high = ticks[0], ticks[-1]

    def height_of(value: Decimal) -> float:
        # A place on paper, not a quantity: floats are precise enough here.
        return _TOP + _HEIGHT * float((high - value) / (high - low))

    title = setter.place(left, 9, chart.title, BODY_BOLD)
    marks: list[Mark] = [title, setter.place(left + width, 9, chart.unit, SMALL, "right")]
    for tick, name in zip(ticks, names, strict=True):
        y = height_of(tick)
        marks.append(Line(left + axis, y, left + width, y, "line" if tick == 0 else "rule", 0.5))
        marks.append(setter.place(left + axis - 4, y + 2.2, name, NOTE, "right"))
    slot = (width - axis) / max(len(chart.values), 1)
    for i, value in enumerate(chart.values):
        if value:
            top, foot = sorted((height_of(value), height_of(Decimal(0))))
            marks.append(Box(left + axis + slot * (i + 0.16), top, slot * 0.68, max(foot - top, 0.4), chart.colour))
    return marks + _labels(chart.labels, left + axis, slot, setter)


def _labels(labels: tuple[str, ...], left: float, slot: float, setter: Setter) -> list[Mark]:
    """Set as many labels under the bars as fit beside each other: all, or the first and every fifth or so."""
    widest = max((setter.measure(setter.plain(label), NOTE) for label in labels), default=0)
    stride = next((n for n in (1, 2, 5, 10, 20, 50, 100) if n * slot >= widest + 3), len(labels) + 1)
    y = _TOP + _HEIGHT + 9
    marks: list[Mark] = []
    for i, label in enumerate(labels):
        if (i == 0 and stride > 2) or (i + 1) % stride == 0:  # noqa: PLR2004 (with every second, 2 4 6 reads best)
            middle = left + slot * (i + 0.5)
            marks.append(setter.place(middle - setter.measure(setter.plain(label), NOTE) / 2, y, label, NOTE))
    return marks


def axis_ticks(low: Decimal, high: Decimal) -> list[Decimal]:
    """Return round values, zero among them, that span the data in about four steps of 1, 2 or 5."""
    low, high = min(low, Decimal(0)), max(high, Decimal(0))
    if low == high:
        return [Decimal(0), Decimal(1)]
    exponent = ((high - low) / _TICKS).adjusted()
    steps = (Decimal(digit).scaleb(exponent) for digit in (1, 2, 5, 10))
    step = next(step for step in steps if step * _TICKS >= high - low)
    below, above = _steps(-low, step), _steps(high, step)
    return [_tidy(step * n) for n in range(-below, above + 1)]


def _steps(size: Decimal, step: Decimal) -> int:
    """Return how many steps cover a size."""
    return int(size // step) + (1 if size % step else 0)


def _tidy(value: Decimal) -> Decimal:
    """Drop an exponent and zeros after the point."""
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()
