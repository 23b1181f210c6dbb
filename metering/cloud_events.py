"""Usage as CloudEvents 1.0 of type `hourbook.usage.v1`: JSON (one or an array), JSON lines, or Parquet.

Events whose form is plainly right are read many at once; any other is looked at by itself. Values are checked column by
column. Whatever is wrong is refused by name, and its good neighbours are kept. An event that holds nothing, at a higher
revision, takes back what was said before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

import orjson
import polars as pl

from metering.cloud_event_batch import columns_of, join, read_one_strictly
from metering.cloud_event_bodies import Format, Parsed, parse
from metering.cloud_event_form import RefusedError, row_of
from metering.cloud_event_values import RAW_SCHEMA, judge
from metering.events import EVENT_SCHEMA, Collected, RejectedEvent
from metering.usage_schema import EVENT_TYPE

__all__ = ["EVENT_TYPE", "read_bodies", "read_events", "within"]

# The code of an event of a cluster that its sender does not report of.
NOT_REPORTED = "not_reported_by_key"
_OF_COLLECTORS = r"^(?:csv|kubernetes|lsf|pbs|sge|slurm|swf|uge):(.+)$"
LONGEST_EVENT = 512 * 1024  # bytes of an event that is not plainly right; a longer one is not looked at


class Refused(NamedTuple):
    """An event that is refused, and which of its body's it is, from 0."""

    place: int
    event: RejectedEvent


@dataclass(frozen=True)
class Read:
    """What several bodies hold: all their events that can be used, and what became of each body's others."""

    events: pl.DataFrame  # EVENT_SCHEMA
    positions: pl.Series  # of the events, counted through all bodies
    offsets: Sequence[int]  # where each body's positions begin, and where the last ends
    refused: Sequence[Sequence[Refused]]  # by body

    def rows(self, body: int) -> int:
        """Return how many events a body has, the refused ones included."""
        return self.offsets[body + 1] - self.offsets[body]

    def collected(self, bodies: Sequence[int]) -> Collected:
        """Return what some of the bodies hold, as one."""
        rejected = tuple(refused.event for body in bodies for refused in self.refused[body])
        if len(bodies) == len(self.refused):
            return Collected(self.events, rejected, {})
        mine = [self.positions.is_between(self.offsets[body], self.offsets[body + 1], closed="left") for body in bodies]
        return Collected(self.events.filter(pl.any_horizontal(mine)), rejected, {})


def read_events(payload: bytes, *, format: Format, now: datetime) -> Collected:  # noqa: A002
    """Read usage events; what cannot be used is returned with the reason, and events after `now` are refused."""
    body = parse(payload, format)
    if isinstance(body, RejectedEvent):
        return Collected(EVENT_SCHEMA.to_frame(), (body,), {})
    return read_bodies([body], now).collected([0])


def read_bodies(bodies: Sequence[Parsed], now: datetime) -> Read:
    """Read the events of several bodies in one go; each body keeps its own account."""
    offsets = _offsets(bodies)
    raw, positions, refused = _columns(bodies, offsets)
    judged = judge(raw, int(now.timestamp()))
    for row, code, message, month in judged.why.iter_rows():
        body = _body_at(offsets, positions[row])
        refused[body].append(_refused(bodies[body], positions[row] - offsets[body], code, message, month))
    events = judged.events
    if not judged.why.is_empty():
        events, positions = events.filter(~judged.wrong), positions.filter(~judged.wrong)
    told = [sorted(refusals, key=lambda one: one.place) for refusals in refused]
    return Read(events, positions, offsets, told)


def within(read: Read, bodies: Sequence[Parsed], reported: Sequence[Collection[str]]) -> Read:
    """Refuse, of each body, the events of clusters that its sender does not report of; one that names none, of any.

    A source written as our collectors write theirs, `slurm:hpc1`, speaks for its cluster: whoever may not report of
    that one must not say later revisions of its events under the name of another.
    """
    if not any(reported):
        return read
    wrong = pl.zeros(len(read.positions), dtype=pl.Boolean, eager=True)
    for number, clusters in enumerate(reported):
        if clusters:
            mine = read.positions.is_between(read.offsets[number], read.offsets[number + 1], closed="left")
            wrong |= mine & read.events.select(_is_foreign(clusters)).to_series()
    if not wrong.any():
        return read
    refused = [list(refusals) for refusals in read.refused]
    of_others = read.events.filter(wrong).select("source", "cluster", _month())
    for position, row in zip(read.positions.filter(wrong), of_others.iter_rows(), strict=True):
        body = _body_at(read.offsets, position)
        refused[body].append(_foreign(bodies[body], position - read.offsets[body], reported[body], *row))
    told = [sorted(refusals, key=lambda one: one.place) for refusals in refused]
    return Read(read.events.filter(~wrong), read.positions.filter(~wrong), read.offsets, told)


def _is_foreign(clusters: Collection[str]) -> pl.Expr:
    mine = pl.Series(sorted(clusters), dtype=pl.String).implode()
    speaks_for = pl.col("source").str.extract(_OF_COLLECTORS)
    return ~pl.col("cluster").is_in(mine) | ~speaks_for.is_in(mine).fill_null(value=True)


def _month() -> pl.Expr:
    return pl.from_epoch("start_second", time_unit="s").dt.strftime("%Y-%m")


def _foreign(body: Parsed, place: int, clusters: Collection[str], *told: str) -> Refused:
    source, cluster, month = told
    known = ", ".join(sorted(clusters))
    message = f"{source} reports of {cluster}, but this key reports of {known} only; send it with that cluster's key"
    return _refused(body, place, NOT_REPORTED, message, month)


def _offsets(bodies: Sequence[Parsed]) -> list[int]:
    """Return where each body's events begin, counted through all bodies, and where the last ends."""
    return list(accumulate((body.rows for body in bodies), initial=0))


def _body_at(offsets: Sequence[int], position: int) -> int:
    return bisect_right(offsets, position, hi=len(offsets) - 1) - 1


def _columns(bodies: Sequence[Parsed], offsets: Sequence[int]) -> tuple[pl.DataFrame, pl.Series, list[list[Refused]]]:
    """Return the values of all events whose form is right, with their positions, and by body the others."""
    frame, suspect = columns_of(join(body.strict for body in bodies))
    refused: list[list[Refused]] = [[] for _ in bodies]
    positions = _positions(bodies, offsets)
    doubtful = positions.filter(suspect).to_list() if suspect.any() else []
    doubtful += [first + place for body, first in zip(bodies, offsets, strict=False) for place in body.left]
    if not doubtful:
        return frame, positions, refused
    rows: dict[int, dict[str, object]] = {}
    for position in sorted(doubtful):
        body = _body_at(offsets, position)
        try:
            rows[position] = _look_at(bodies[body], position - offsets[body])
        except RefusedError as error:
            refused[body].append(_refused(bodies[body], position - offsets[body], error.code, str(error)))
    looked_at = pl.DataFrame(list(rows.values()), schema=RAW_SCHEMA, orient="row")
    frame = pl.concat([frame.filter(~suspect), looked_at])
    positions = pl.concat([positions.filter(~suspect), pl.Series(list(rows), dtype=pl.Int64)])
    order = positions.arg_sort()
    return frame[order], positions.gather(order), refused


def _positions(bodies: Sequence[Parsed], offsets: Sequence[int]) -> pl.Series:
    """Return the positions of the events that are plainly right."""
    if not any(body.left for body in bodies):
        return pl.int_range(offsets[-1], eager=True)
    return pl.Series(
        [first + place for body, first in zip(bodies, offsets, strict=False) for place in body.places], dtype=pl.Int64
    )


def _look_at(body: Parsed, place: int) -> dict[str, object]:
    """Read one event by itself; a very long one that is not plainly right is refused unread."""
    raw = body.raw(place)
    if len(raw) > LONGEST_EVENT and read_one_strictly(raw) is None:
        raise RefusedError("too_large", f"it has {len(raw):,} bytes; such an event is taken up to {LONGEST_EVENT:,}")
    return row_of(raw)


def _refused(body: Parsed, place: int, code: str, message: str, month: str = "") -> Refused:
    """Keep an event that cannot be used, under its identity where that can be read."""
    raw, line = body.raw(place), body.line(place)
    source, event_id = _identity(raw)
    return Refused(
        place, RejectedEvent(code, f"event {line}: {message}", raw, line, source=source, event_id=event_id, month=month)
    )


def _identity(raw: bytes) -> tuple[str, str]:
    try:
        item = orjson.loads(raw) if len(raw) <= LONGEST_EVENT else None
    except orjson.JSONDecodeError:
        item = None
    if not isinstance(item, dict):
        return "", ""
    source, event_id = (item.get(name) for name in ("source", "id"))
    known = isinstance(source, str) and isinstance(event_id, str)
    return (str(source), str(event_id)) if known else ("", "")
