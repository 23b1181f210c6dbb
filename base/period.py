"""Spans of time: half-open, in UTC; days and months belong to a named zone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


@dataclass(frozen=True, order=True)
class Period:
    """A span of time `[start, end)` between two instants with a zone; the end does not belong to it."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError(f"a period needs instants with a zone, got {self.start} and {self.end}")
        if self.end < self.start:
            raise ValueError(f"a period cannot end ({self.end}) before it starts ({self.start})")

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end


def parse_month(text: str) -> str:
    """Return the month `YYYY-MM` as written, or refuse what is none."""
    if not _MONTH.fullmatch(text):
        raise ValueError(f"{text!r} is not a month; write it as 2026-11")
    return text


def month_of(day: date) -> str:
    """Name the month a local day lies in, as `YYYY-MM`."""
    return day.strftime("%Y-%m")


def month_days(month: str) -> tuple[date, date]:
    """Return the first and the last day of a month."""
    first = date.fromisoformat(f"{parse_month(month)}-01")
    return first, next_month_start(first) - timedelta(days=1)


def next_month_start(day: date) -> date:
    """Return the first day of the month after the one that the day lies in."""
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def each_month(first: str, last: str) -> Iterator[str]:
    """Yield the months from `first` to `last`, both included; none where the last lies before the first."""
    day = month_days(first)[0]
    while month_of(day) <= parse_month(last):
        yield month_of(day)
        day = next_month_start(day)


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant, in UTC, at which a local day begins."""
    # fold=0 takes the earlier of two midnights where a zone turns its clock back over midnight.
    return datetime.combine(day, time(0), tzinfo=zone).astimezone(UTC)


def days_period(first: date, last: date, zone: ZoneInfo) -> Period:
    """Return the period of local days from `first` to `last`, both included."""
    return Period(day_start(first, zone), day_start(last + timedelta(days=1), zone))


def month_period(month: str, zone: ZoneInfo) -> Period:
    """Return the period of a month as the zone reckons it."""
    return days_period(*month_days(month), zone)


def local_day(instant: datetime, zone: ZoneInfo) -> date:
    """Return the local day that an instant belongs to."""
    return instant.astimezone(zone).date()


def each_day(first: date, last: date) -> Iterator[date]:
    """Yield the days from `first` to `last`, both included."""
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)
