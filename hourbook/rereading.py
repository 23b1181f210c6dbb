"""Refused rows of accounting logs, read again as their file was read, with the cluster as it is described now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any
from zoneinfo import ZoneInfo

from metering.clusters import Cluster
from metering.collectors.common import LogFileError
from metering.collectors.pieces import renumbered
from metering.collectors.registry import collector
from metering.events import EVENT_SCHEMA, Collected
from metering.store import QuarantineRow


def read_rows_again(
    reading: Mapping[str, Any], entries: Sequence[QuarantineRow], clusters: Mapping[str, Cluster]
) -> Collected:
    """Read the refused rows of one file again. Line 1 of what is refused still is the first entry.

    Where the rows cannot be told apart any more nothing comes back.
    """
    reader, zone = collector(reading["collector"]), reading["timezone"]
    nothing = Collected(EVENT_SCHEMA.to_frame(), (), {})
    if reading["options"].get("repeats") == "counted":
        return nothing  # which of equal records these were, only their whole file tells: it is imported again
    payload, firsts = _laid_out(reading, [entry.raw for entry in entries])
    try:
        collected = reader.read(
            payload,
            cluster=clusters.get(reading["cluster"]) or Cluster(name=reading["cluster"]),
            timezone=ZoneInfo(zone) if zone else None,
            options=reader.parse_options(reading["options"]) if reading["options"] else None,
        )
    except LogFileError:
        return nothing
    numbers = {first: number for number, first in enumerate(firsts, start=1)}
    lines = {first: entry.line for first, entry in zip(firsts, entries, strict=True)}
    return replace(
        collected,
        events=renumbered(collected.events, lines),
        # A row that runs on in another line is none of them.
        rejected=tuple(replace(row, line=numbers.get(row.line, 0)) for row in collected.rejected),
    )


def _laid_out(reading: Mapping[str, Any], rows: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """Write the rows as a file of their kind; return it, and in which line each row begins."""
    if reading["collector"] == "kubernetes" and "head" not in reading:
        return b'{"items": [' + b",".join(rows) + b"]}", list(range(1, len(rows) + 1))
    head = [reading["head"].encode()] if reading.get("head") else []
    return b"\n".join([*head, *rows]) + b"\n", list(_first_lines(rows, 1 + sum(map(_lines, head))))


def _first_lines(rows: Sequence[bytes], first: int) -> Iterator[int]:
    yield from accumulate((_lines(row) for row in rows[:-1]), initial=first)


def _lines(row: bytes) -> int:
    return row.count(b"\n") + 1
