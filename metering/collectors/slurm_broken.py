"""A broken sacct row for quarantine, with whose row it was where that is certain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from metering.clusters import Cluster
from metering.collectors.slurm_fields import ID_PATTERN, STATES
from metering.collectors.slurm_joins import BrokenRow, alignments, looks_right
from metering.collectors.slurm_layout import Layout
from metering.collectors.slurm_rows import SacctLines
from metering.collectors.slurm_verdicts import month_of_usage
from metering.events import RejectedEvent


def broken_event(found: SacctLines, row: BrokenRow, cluster: Cluster, zone: ZoneInfo | None) -> RejectedEvent:
    """Make a broken row ready for quarantine: all its bytes, and its id if the row can be read in one way only.

    The id decides only which clean row resolves this one later; nothing is metered from a broken row.
    """
    raw = found.raw(row.first, row.stop)
    cells = _certain_cells(found.layout, row)
    submit = _second(cells.get("Submit", ""), zone)
    job = cells.get("JobIDRaw", "")
    known = submit is not None and re.search(ID_PATTERN, job) is not None
    first, last = row.first + 1 + found.lines_before, row.stop + found.lines_before
    lines = f"line {first}" if first == last else f"lines {first} to {last}"
    return RejectedEvent(
        code="broken_row",
        message=f"{lines}: not {len(found.layout.columns)} columns, because free text holds the delimiter or a newline "
        "(or the file was cut off); pull it again with JobName last and no other free text",
        raw=raw,
        line=row.first + 1,
        source=f"slurm:{cluster.name}",
        event_id=f"{job}:{submit}" if known else "",
        month=month_of_usage(_second(cells.get("Start", ""), zone), _second(cells.get("End", ""), zone)),
    )


def _certain_cells(layout: Layout, row: BrokenRow) -> Mapping[str, str]:
    """Return the cells if exactly one way of laying the columns over them makes sense."""
    cells = row.text.split(layout.delimiter)
    ways = [
        way
        for way in alignments(layout, cells if row.joined else cells[:-1], joined=row.joined)
        if looks_right(way) and ("State" not in way or way["State"].partition(" ")[0] in STATES)
    ]
    return ways[0] if len(ways) == 1 else {}


def _second(text: str, zone: ZoneInfo | None) -> int | None:
    """Read one time as seconds since 1970 UTC; None where it is none, or the clock showed it twice or never."""
    if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII):
        return int(text)
    try:
        naive = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=zone)
    except ValueError:
        return None
    if naive.tzinfo is None or naive.utcoffset() != naive.replace(fold=1).utcoffset():
        return None
    return int(naive.astimezone(UTC).timestamp())
