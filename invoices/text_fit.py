"""Text into lines: measuring, breaking Latin at spaces and Chinese between characters, and what has no glyph."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

# What stands for a character without a glyph, as Chinese typesetters set it.
GETA = "〓"

_SPACES = re.compile(r"[\s\x00-\x1f\x7f\x85\u2028\u2029]+")
# A word of Latin letters or figures, one wide character with the closing marks that may not begin a line, or spaces.
_CLOSING = "，。、；：？！）】》〉」』’”…·,.;:?!)]}%"
_OPENING = "（【《〈「『‘“([{"
_PIECES = re.compile(
    rf"\s+|[{re.escape(_OPENING)}]*(?:[\u2e80-\u9fff\u3400-\u4dbf\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
    rf"|[^\s\u2e80-\u9fff\u3400-\u4dbf\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff{re.escape(_OPENING)}]+"
    rf"|$)[{re.escape(_CLOSING)}]*|."
)


class Style(NamedTuple):
    """How a text is set."""

    size: float
    bold: bool = False
    colour: str = "ink"


Measure = Callable[[str, Style], float]  # width in points


@lru_cache(maxsize=65536)
def plain_text(text: str, has_glyph: Callable[[str], bool]) -> tuple[str, frozenset[str]]:
    """Return the text as it can be printed on one line, and the characters that have no glyph and became `〓`."""
    tidy = _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip()
    missing = frozenset(char for char in set(tidy) if not has_glyph(char))
    if missing:
        tidy = tidy.translate(dict.fromkeys(map(ord, missing), GETA))
    return tidy, missing


def wrap(text: str, width: float, style: Style, measure: Measure) -> list[str]:
    """Break a text into lines of at most this width; a word wider than a line is broken inside."""
    if not text or measure(text, style) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    for piece in _PIECES.findall(text):
        if measure((line + piece).rstrip(), style) <= width:
            line += piece
            continue
        if line.strip():
            lines.append(line.rstrip())
        line = piece.lstrip()
        while measure(line, style) > width and len(line) > 1:
            cut = _fitting(line, width, style, measure)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line.rstrip()] if line.strip() else lines


def _fitting(text: str, width: float, style: Style, measure: Measure) -> int:
    """Return how many characters fit, at least one."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if measure(text[:middle], style) <= width:
            low = middle
        else:
            high = middle - 1
    return low
