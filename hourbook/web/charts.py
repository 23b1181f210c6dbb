"""Bar charts as plain SVG: geometry in percent, colours from the style sheet, a title on every bar; no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from base.money import decimal_text

HEIGHT = 100  # of the drawing; the page stretches it
GAP = Fraction(28, 100)  # of a bar's room
_TENTHS = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)


@dataclass(frozen=True)
class Bar:
    """One bar: where it stands, how high it is, and what it says when pointed at."""

    x: str
    y: str
    width: str
    height: str
    title: str
    last: bool


@dataclass(frozen=True)
class Chart:
    """Bars over a scale that ends at a round number."""

    width: int
    bars: tuple[Bar, ...]
    top: Fraction  # the value at the upper edge


def bar_chart(values: Sequence[Fraction], titles: Sequence[str]) -> Chart:
    """Lay bars out side by side; the scale begins at nothing."""
    room = 10
    top = round_above(max((value for value in values), default=Fraction(0)))
    bars = []
    for place, (value, title) in enumerate(zip(values, titles, strict=True)):
        height = max(value, Fraction(0)) / top * HEIGHT
        bars.append(
            Bar(
                x=_text(place * room + GAP * room / 2),
                y=_text(HEIGHT - height),
                width=_text(room * (1 - GAP)),
                height=_text(height),
                title=title,
                last=place == len(values) - 1,
            )
        )
    return Chart(max(len(values), 1) * room, tuple(bars), top)


def round_above(value: Fraction) -> Fraction:
    """Return the next round number that is not below the value: 1.2, 25, 400; 1 for nothing."""
    if value <= 0:
        return Fraction(1)
    size = Fraction(1)
    while size * 10 <= value:
        size *= 10
    while size > value:
        size /= 10
    return next(size * tenths / 10 for tenths in _TENTHS if size * tenths >= value * 10)


def share(part: Fraction | int, whole: Fraction | int) -> str:
    """Return a part of a whole in percent, from 0 to 100, for the width of a bar."""
    if whole <= 0:
        return "0"
    return _text(min(max(Fraction(part) / Fraction(whole), Fraction(0)), Fraction(1)) * 100)


def _text(value: Fraction) -> str:
    return decimal_text(value, 2)
