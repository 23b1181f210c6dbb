"""Spans of time: half-open, in UTC, with days and months as each zone reckons them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.period import (
    Period,
    day_start,
    days_period,
    each_day,
    each_month,
    local_day,
    month_days,
    month_of,
    month_period,
    next_month_start,
    parse_month,
)

SHANGHAI = ZoneInfo("Asia/Shanghai")
NEW_YORK = ZoneInfo("America/New_York")
# Zones that turn their clocks: at two, at midnight (forward and back), by half an hour, and none; and odd offsets.
ZONES = st.sampled_from(
    [SHANGHAI, NEW_YORK]
    + [ZoneInfo(name) for name in ("America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC", "Asia/Beirut")]
)
DAYS = st.dates(date(2000, 1, 1), date(2035, 12, 31))


@given(DAYS, ZONES)
def test_days_follow_each_other_without_gap_or_overlap(day: date, zone: ZoneInfo) -> None:
    whole = days_period(day, day, zone)
    assert whole.end == day_start(day + timedelta(days=1), zone)
    assert local_day(whole.start, zone) == day
    assert local_day(whole.end - timedelta(microseconds=1), zone) == day
    assert local_day(whole.start - timedelta(microseconds=1), zone) == day - timedelta(days=1)


@given(DAYS, ZONES)
def test_a_month_is_the_sum_of_its_days(day: date, zone: ZoneInfo) -> None:
    month = month_of(day)
    first, last = month_days(month)
    assert first <= day <= last
    assert next_month_start(day) == last + timedelta(days=1)
    lengths = [days_period(one, one, zone) for one in each_day(first, last)]
    whole = month_period(month, zone)
    assert sum((one.end - one.start for one in lengths), timedelta()) == whole.end - whole.start


@pytest.mark.parametrize(
    ("day", "zone", "minutes"),
    [
        (date(2026, 11, 1), NEW_YORK, 25 * 60),
        (date(2026, 3, 8), NEW_YORK, 23 * 60),
        (date(2026, 11, 1), SHANGHAI, 24 * 60),
        (date(2026, 4, 5), ZoneInfo("Australia/Lord_Howe"), 24 * 60 + 30),
        (date(2024, 3, 10), ZoneInfo("America/Havana"), 23 * 60),  # its midnight does not exist
        (date(2024, 11, 3), ZoneInfo("America/Havana"), 25 * 60),  # its midnight stands once, one o'clock twice
    ],
)
def test_a_day_is_as_long_as_its_clock_makes_it(day: date, zone: ZoneInfo, minutes: int) -> None:
    whole = days_period(day, day, zone)
    assert whole.end - whole.start == timedelta(minutes=minutes)


def test_a_month_begins_when_it_begins_in_its_zone() -> None:
    november = month_period("2026-11", SHANGHAI)
    assert november == Period(datetime(2026, 10, 31, 16, tzinfo=UTC), datetime(2026, 11, 30, 16, tzinfo=UTC))
    assert datetime(2026, 10, 31, 16, tzinfo=UTC) in november
    assert datetime(2026, 11, 30, 16, tzinfo=UTC) not in november


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "26-01", "2026-1", "2026-11-01", "", "2026-11\n", "٢٠٢٦-11"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it as 2026-11"):
        parse_month(text)


def test_a_month_ends_on_its_last_day_in_leap_years_too() -> None:
    assert month_days("2028-02") == (date(2028, 2, 1), date(2028, 2, 29))
    assert month_days("2026-02") == (date(2026, 2, 1), date(2026, 2, 28))
    assert month_days("2026-12") == (date(2026, 12, 1), date(2026, 12, 31))


def test_months_run_over_the_year() -> None:
    assert list(each_month("2026-11", "2027-02")) == ["2026-11", "2026-12", "2027-01", "2027-02"]
    assert list(each_month("2026-11", "2026-10")) == []
    assert list(each_day(date(2026, 2, 27), date(2026, 3, 1))) == [
        date(2026, 2, 27),
        date(2026, 2, 28),
        date(2026, 3, 1),
    ]


def test_a_period_needs_zones_and_cannot_end_before_it_starts() -> None:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="instants with a zone"):
        Period(start.replace(tzinfo=None), start)
    with pytest.raises(ValueError, match="cannot end"):
        Period(start, start - timedelta(seconds=1))
    assert start not in Period(start, start)
