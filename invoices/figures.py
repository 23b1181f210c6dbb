"""Figures for readers: thousands separated, decimals as exact as given."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

from base.money import format_grouped, parse_decimal

_PLAIN = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_SIGNS = {"CNY": "¥", "USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}
_WHOLE_UNITS = {"piece", "card-month", "node-month"}


def grouped(text: str, least: int = 0, most: int | None = None) -> str:
    """Write decimal text with thousands separated, with at least so many decimals and no idle zeros beyond them.

    Of more decimals than `most` the rest is cut off, and the figure says so with a `≈`.
    """
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"{text!r} is not a plain decimal number such as 1234.56")
    whole, _, part = text.lstrip("-").partition(".")
    part = part.rstrip("0")
    rough = "≈" if most is not None and len(part) > most else ""
    part = part[:most].ljust(least, "0")
    sign = "-" if text.startswith("-") and (int(whole) or part.strip("0")) else ""
    return f"{rough}{sign}{int(whole):,}{'.' if part else ''}{part}"


def unit_price(text: str) -> str:
    """Write a unit price; what a pack's price comes to per hour may have no end, so it is cut after ten decimals."""
    return grouped(text, 2, 10)


def quantity(text: str, unit: str) -> str:
    """Write a quantity: hours with at least two decimals, pieces as they are."""
    return grouped(text, 0 if unit in _WHOLE_UNITS else 2)


def money(minor: int, currency: str) -> str:
    """Write an amount with the currency's sign: `-¥1,204.50`."""
    text = format_grouped(abs(minor), currency)
    return f"{'-' if minor < 0 else ''}{_SIGNS.get(currency, currency + ' ')}{text}"


def percent(rate: str) -> str:
    """Write a rate as a percentage: `0.06` is `6%`."""
    return f"{grouped(format(parse_decimal(rate) * 100, 'f'))}%"


def total_text(texts: Iterable[str]) -> str:
    """Add up decimal texts exactly."""
    # Decimal's context would round a sum beyond 28 digits; scaled integers do not.
    scaled = sum(int(Fraction(parse_decimal(text)) * 10**18) for text in texts)
    sign, digits = ("-" if scaled < 0 else ""), f"{abs(scaled):019d}"
    return f"{sign}{digits[:-18]}.{digits[-18:]}".rstrip("0").rstrip(".") or "0"


def decimals(texts: Iterable[str]) -> tuple[Decimal, ...]:
    """Read decimal texts."""
    return tuple(parse_decimal(text) for text in texts)
