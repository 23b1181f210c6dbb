"""Where in a TOML file an entry and its keys stand, found by looking at the text.

The parser keeps no positions. Headers and keys at the start of a line are what people write; where an entry is
written another way the nearest line above is named, never a wrong one below.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")


class Places:
    """Where the headers of one file stand, so that each entry is found without reading the file again."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        found = [(number, match.group(1)) for number, line in enumerate(self._lines) if (match := _HEADER.match(line))]
        self._numbers = [number for number, _ in found]
        self._names = [name for _, name in found]
        self._starts: dict[str, list[int]] = {}
        for number, name in found:
            self._starts.setdefault(name, []).append(number)

    def line_of(self, table: str, index: int, loc: Sequence[str | int] = ()) -> int:
        """Return the line, from 1, of a key in the table's entry number `index` (from 0); 0 where it is not found."""
        starts = self._starts.get(table, [])
        if index >= len(starts):
            return 1 + _find_key(self._lines, range(len(self._lines)), table, -1)
        start, path = starts[index], list(loc)
        if len(path) > 1 and isinstance(path[1], int):
            end = self._end_of_entry(start, table)
            nested = [number for number in self._starts.get(f"{table}.{path[0]}", ()) if start < number < end]
            if path[1] < len(nested):
                start, path = nested[path[1]], path[2:]
        names = [name for name in path if isinstance(name, str)]
        return 1 + _find_keys(self._lines, range(start + 1, self._next_header(start)), names, start)

    def _next_header(self, start: int) -> int:
        after = bisect_right(self._numbers, start)
        return self._numbers[after] if after < len(self._numbers) else len(self._lines)

    def _end_of_entry(self, start: int, table: str) -> int:
        """Return where the entry ends with all tables nested in it."""
        after = bisect_right(self._numbers, start)
        while after < len(self._numbers) and self._names[after].startswith(f"{table}."):
            after += 1
        return self._numbers[after] if after < len(self._numbers) else len(self._lines)


def _find_keys(lines: Sequence[str], where: range, names: Sequence[str], fallback: int) -> int:
    """Return the line of the innermost key that can be seen, the outer one's where it cannot."""
    at = fallback
    for name in names:
        at = _find_key(lines, range(max(at, where.start), where.stop), name, at)
    return at


def _find_key(lines: Sequence[str], where: range, name: str, fallback: int) -> int:
    word = rf"[\"']?{re.escape(name)}[\"']?\s*="
    at_start = re.compile(rf"\s*{word}")
    anywhere = re.compile(rf"[{{,\s]{word}")
    for pattern in (at_start.match, anywhere.search):
        for number in where:
            if pattern(lines[number]):
                return number
    return fallback
