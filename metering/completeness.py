"""Completeness: what a sender states of an hour against what the lake holds of it.

An attempt belongs to the hour, in UTC, in which it ended. Of each attempt that its source says has ended, the sender
states the latest revision; the operator's own words are not part of it. A statement is met if exactly these attempts,
in these revisions, have arrived. A correction that moved an attempt's end or raised its revision afterwards does not
break an earlier statement, as what was stated is still there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from metering.identity import AMENDED, KEY, key_hash
from metering.statement_sums import MASK, MIX, STEP

HOUR_SECONDS = 3600
NO_EVENTS = "0" * 16  # the checksum of nothing
MAX_EVENTS = 2**40

State = Literal["complete", "quiet", "missing", "too_few", "differs", "waived", "not_expected", "not_yet"]
STATES: tuple[State, ...] = get_args(State)
GAPS: frozenset[State] = frozenset({"missing", "too_few", "differs"})


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it must be printable")
    return text


Name = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]


def _full_hour(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError(f"{instant} has no zone; write it as 2026-11-30T08:00:00Z")
    if int(instant.timestamp()) % HOUR_SECONDS or instant.microsecond:
        raise ValueError(f"{instant} is no full hour in UTC; write it as 2026-11-30T08:00:00Z")
    if instant.year < 2000:  # noqa: PLR2004 - no cluster reports from before
        raise ValueError(f"{instant} lies before the year 2000")
    return instant.astimezone(UTC)


class Statement(BaseModel):
    """What one sender saw end in one hour of a cluster; nothing at all is a statement too: a heartbeat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cluster: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
    source: Name  # of the events, e.g. "slurm:hpc1"
    hour: Annotated[datetime, AfterValidator(_full_hour)]  # its first second, UTC
    events: int = Field(ge=0, le=MAX_EVENTS, strict=True)
    checksum: str = Field(default=NO_EVENTS, pattern=r"^[0-9a-f]{16}$")

    @property
    def hour_second(self) -> int:
        """The first second of the hour."""
        return int(self.hour.timestamp())


@dataclass(frozen=True)
class Arrived:
    """What the lake holds of one source and hour."""

    events: int = 0
    checksum: str = NO_EVENTS
    # As the attempts first ended in the hour, before corrections raised their revision or moved their end.
    events_before: int = 0
    checksum_before: str = NO_EVENTS

    def __add__(self, other: Arrived) -> Arrived:
        """Add what other dates hold of the same hour."""
        return Arrived(
            self.events + other.events,
            added(self.checksum, other.checksum),
            self.events_before + other.events_before,
            added(self.checksum_before, other.checksum_before),
        )


def added(one: str, other: str) -> str:
    """Add two checksums of different attempts."""
    return f"{(int(one, 16) + int(other, 16)) & MASK:016x}"


NOTHING = Arrived()
HourKey = tuple[str, str, int]  # cluster, source, first second


def arrived(rows: pl.DataFrame) -> dict[HourKey, Arrived]:
    """Sum up what has arrived by cluster, source and hour of end; `rows` are whole events: all their revisions."""
    ended = rows.filter(pl.col("ended") & (pl.col("revision") < AMENDED)).with_columns(
        hour=pl.col("end_second") // HOUR_SECONDS * HOUR_SECONDS
    )
    ordered = ended.select(*KEY, "cluster", "revision", "hour").unique().sort("revision", "hour", descending=True)
    latest = _sums(ordered.unique(KEY, keep="first", maintain_order=True))
    before = _sums(ordered.reverse().unique([*KEY, "hour"], keep="first", maintain_order=True))
    return {
        key: Arrived(*latest.get(key, (0, NO_EVENTS)), *before.get(key, (0, NO_EVENTS))) for key in {*latest, *before}
    }


def _sums(rows: pl.DataFrame) -> dict[HourKey, tuple[int, str]]:
    """Count attempts by hour, and add up their numbers; in halves, as a sum of whole ones would overflow."""
    number = _event_numbers(rows)
    parts = rows.with_columns(low=number % 2**32, high=number // 2**32)
    sums = parts.group_by("cluster", "source", "hour").agg(pl.len(), pl.col("low").sum(), pl.col("high").sum())
    return {
        (cluster, source, hour): (count, f"{(high * 2**32 + low) & MASK:016x}")
        for cluster, source, hour, count, low, high in sums.iter_rows()
    }


def _event_numbers(rows: pl.DataFrame) -> pl.Series:
    """Return what each attempt adds to a checksum, as `statement_sums.event_sum` reckons it."""
    step, mix = (pl.Series([factor], dtype=pl.UInt64) for factor in (STEP, MIX))
    key = key_hash(rows).reinterpret(signed=False)
    mixed = (key ^ (rows["revision"].reinterpret(signed=False) * step)) * mix
    return mixed ^ (mixed // pl.Series([2**29], dtype=pl.UInt64))


@dataclass(frozen=True)
class HourCheck:
    """One hour of a cluster: what was stated, what arrived, and what that means."""

    cluster: str
    hour_second: int
    state: State
    stated: int | None = None  # attempts over all sources; None where nobody said anything
    arrived: int = 0
    silent: tuple[str, ...] = ()  # sources that should have said something and did not

    @property
    def hour(self) -> datetime:
        """Its first second."""
        return datetime.fromtimestamp(self.hour_second, UTC)


def check_hour(
    cluster: str,
    hour_second: int,
    stated: Mapping[str, tuple[int, str]],
    found: Mapping[HourKey, Arrived],
    *,
    expected: Sequence[str] | None,
) -> HourCheck:
    """Compare what sources stated of an hour (number and checksum by source) with what arrived.

    `expected` names the sources that must speak; an empty sequence asks for any one, None for none. What a source
    states is compared in any case.
    """
    here = {source: found.get((cluster, source, hour_second), NOTHING) for source in stated}
    total = sum(one.events for one in here.values())
    count = sum(events for events, _ in stated.values()) if stated else None
    silent = tuple(source for source in expected or () if source not in stated)
    state = _state(stated, here, silent, expected)
    return HourCheck(cluster, hour_second, state, count, total, silent)


def _state(
    stated: Mapping[str, tuple[int, str]],
    here: Mapping[str, Arrived],
    silent: Sequence[str],
    expected: Sequence[str] | None,
) -> State:
    # What has not arrived is told before what is not even stated.
    unmet = [source for source, said in stated.items() if not _met(said, here[source])]
    if unmet:
        return "too_few" if any(here[source].events < stated[source][0] for source in unmet) else "differs"
    if expected is None and not stated:
        return "not_expected"
    if silent or not stated:
        return "missing"
    return "complete" if any(events for events, _ in stated.values()) else "quiet"


def _met(said: tuple[int, str], found: Arrived) -> bool:
    return said in {(found.events, found.checksum), (found.events_before, found.checksum_before)}
