"""Figures for readers: thousands separated, decimals as exact as given."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from base.money import format_grouped, parse_decimal

_SIGNS = {"CNY": "¥", "USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}
_WHOLE_UNITS = {"piece", "card-month", "node-month"}


def grouped(text: str, least: int = 0) -> str:
    """Write decimal text with thousands separated, with at least so many decimals and no idle zeros beyond them."""
    value = parse_decimal(text)
    sign = "-" if value < 0 else ""
    whole, _, part = f"{value:f}".lstrip("-").partition(".")
    part = part.rstrip("0").ljust(least, "0")
    return f"{sign}{int(whole):,}{'.' if part else ''}{part}"


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


def total_text(texts: list[str]) -> str:
    """Add up decimal texts exactly."""
    # Decimal's context would round a sum beyond 28 digits; scaled integers do not.
    scaled = sum(int(Fraction(parse_decimal(text)) * 10**18) for text in texts)
    sign, digits = ("-" if scaled < 0 else ""), f"{abs(scaled):019d}"
    return f"{sign}{digits[:-18]}.{digits[-18:]}".rstrip("0").rstrip(".") or "0"


def decimals(texts: list[str]) -> tuple[Decimal, ...]:
    """Read decimal texts."""
    return tuple(parse_decimal(text) for text in texts)
