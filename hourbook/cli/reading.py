"""What stands on the command line, read: days, months, zones, amounts. What cannot be read is wrong use, exit 2."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from base.money import format_minor, parse_amount
from base.period import parse_month
from hourbook.settings import Home
from pricing.catalog import Catalog

# Days outside are slips of the keyboard; the arithmetic of zones would not hold at the ends of the calendar.
FIRST_YEAR, LAST_YEAR = 1970, 2199


def read_day(text: str) -> date:
    """Read a day, or refuse it as wrong use."""
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no day; write it as 2026-11-30") from error
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise typer.BadParameter(f"{text!r} lies outside the years {FIRST_YEAR} to {LAST_YEAR}")
    return day


def read_month(text: str) -> str:
    """Read a month, or refuse it as wrong use."""
    try:
        month = parse_month(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    read_day(f"{month}-01")
    return month


def read_zone(text: str) -> ZoneInfo:
    """Read the name of a time zone, or refuse it as wrong use."""
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise typer.BadParameter(f"{text!r} is no time zone; write it as Asia/Shanghai") from error


def read_instant(text: str) -> datetime:
    """Read an instant with its zone, or refuse it as wrong use."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no instant; write it as 2026-12-01T10:00:00+08:00") from error
    if instant.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone; write it as 2026-12-01T10:00:00+08:00")
    read_day(instant.date().isoformat())
    return instant


def read_words(text: str) -> str:
    """Read a text that must say something, such as a reference or a reason."""
    if not text.strip() or not text.isprintable():
        raise typer.BadParameter("it must say something, in one line of printable characters")
    return text.strip()


def amount_of(text: str, currency: str) -> int:
    """Read an amount of money, which must be more than nothing, or refuse it as wrong use."""
    try:
        minor = parse_amount(text, currency)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error), param_hint="'AMOUNT'") from error
    if minor <= 0:
        smallest = format_minor(1, currency)
        raise typer.BadParameter(f"{text!r} is not more than nothing; the least is {smallest}", param_hint="'AMOUNT'")
    return minor


def day_until_today(day: date | None, home: Home, catalog: Catalog, option: str) -> date:
    """Return the day, or today where none is named; a day that has not come yet is wrong use."""
    today = home.today(catalog.zone())
    if day is not None and day > today:
        raise typer.BadParameter(f"{day} has not come yet; today is {today}", param_hint=f"'{option}'")
    return day or today


Month = Annotated[str, typer.Argument(parser=read_month, metavar="MONTH", help="As 2026-11.")]
Reference = Annotated[
    str, typer.Option(parser=read_words, metavar="TEXT", help="Of the payment; the same one again changes nothing.")
]
