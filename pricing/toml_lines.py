"""Where in a TOML file an entry and its keys stand, found by looking at the text.

The parser keeps no positions. Headers and keys at the start of a line are what people write; where an entry is
written another way the nearest line above is named, never a wrong one below.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")


def line_of(lines: Sequence[str], table: str, index: int, loc: Sequence[str | int]) -> int:
    """Return the line, from 1, of a key within the table's entry number `index` (from 0); 0 where it is not found."""
    headers = [(number, found.group(1)) for number, line in enumerate(lines) if (found := _HEADER.match(line))]
    starts = [number for number, name in headers if name == table]
    if index >= len(starts):
        return 1 + _find_key(lines, range(len(lines)), table, -1)
    start = starts[index]
    end = _next_header(headers, start, len(lines), inside=table)
    path = list(loc)
    if len(path) > 1 and isinstance(path[1], int):
        nested = [n for n, name in headers if name == f"{table}.{path[0]}" and start < n < end]
        if path[1] < len(nested):
            start, path = nested[path[1]], path[2:]
            end = _next_header(headers, start, end, inside=None)
    names = [name for name in path if isinstance(name, str)]
    own_end = end if len(path) < len(loc) else _next_header(headers, start, end, inside=None)
    return 1 + _find_keys(lines, range(start + 1, own_end), names, start)


def _next_header(headers: Sequence[tuple[int, str]], start: int, end: int, *, inside: str | None) -> int:
    """Return the first header after `start` that does not belong to the table `inside`."""
    for number, name in headers:
        if number > start and not (inside and name.startswith(f"{inside}.")):
            return min(number, end)
    return end


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
