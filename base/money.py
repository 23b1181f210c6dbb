"""Exact money: integers in minor units, fractions in between, every rounding named here.

No float comes near an amount. A price is a `Decimal` read from text; price times quantity is a `Fraction`;
`to_minor` rounds it once, half away from zero, to the currency's minor unit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from math import lcm

# ISO 4217 minor units of the currencies in use; others are refused rather than guessed.
MINOR_DIGITS = {"CNY": 2, "USD": 2, "EUR": 2, "HKD": 2, "GBP": 2, "SGD": 2, "JPY": 0}
MAX_MINOR = 2**62

_DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)


def minor_digits(currency: str) -> int:
    """Return how many decimal places the currency's minor unit has."""
    try:
        return MINOR_DIGITS[currency]
    except KeyError:
        raise ValueError(f"currency {currency!r} is unknown; known are {', '.join(sorted(MINOR_DIGITS))}") from None


def parse_decimal(text: str) -> Decimal:
    """Read a plain decimal such as `0.08`; exponents, signs other than `-`, NaN and other digits are refused."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text!r} is not a plain decimal number such as 1234.56")
    return Decimal(text)


def parse_amount(text: str, currency: str) -> int:
    """Read an amount as minor units; more decimals than the currency has are refused, not rounded."""
    scaled = Fraction(parse_decimal(text)) * 10 ** minor_digits(currency)
    if scaled.denominator != 1:
        raise ValueError(f"{text!r} has more decimals than {currency} has ({minor_digits(currency)})")
    return guard_minor(int(scaled))


def guard_minor(minor: int) -> int:
    """Return the amount, or raise where it would not fit the ledger's integers."""
    if abs(minor) >= MAX_MINOR:
        raise OverflowError(f"an amount of {minor} minor units is beyond what the ledger can hold")
    return minor


def format_minor(minor: int, currency: str) -> str:
    """Write minor units as a plain decimal: `format_minor(-1205, "CNY")` is `-12.05`."""
    digits = minor_digits(currency)
    sign = "-" if minor < 0 else ""
    if digits == 0:
        return f"{sign}{abs(minor)}"
    whole, part = divmod(abs(minor), 10**digits)
    return f"{sign}{whole}.{part:0{digits}d}"


def format_grouped(minor: int, currency: str) -> str:
    """Write minor units for a reader, with thousands separated: `-1,204.50`."""
    text = format_minor(abs(minor), currency)
    whole, dot, part = text.partition(".")
    return f"{'-' if minor < 0 else ''}{int(whole):,}{dot}{part}"


def round_half_away(value: Fraction) -> int:
    """Round to the nearest integer, halves away from zero."""
    doubled = 2 * abs(value) + 1
    rounded = doubled.numerator // (2 * doubled.denominator)
    return -rounded if value < 0 else rounded


def to_minor(amount: Fraction, currency: str) -> int:
    """Round an exact amount in major units to minor units, half away from zero: the one rounding of a line."""
    return guard_minor(round_half_away(amount * 10 ** minor_digits(currency)))


def included_tax(gross_minor: int, rate: Fraction) -> int:
    """Return the tax inside a gross amount: round(gross × r / (1 + r)), half away from zero."""
    return round_half_away(Fraction(gross_minor) * rate / (1 + rate))


def largest_remainder(total: int, weights: Sequence[int | Fraction]) -> list[int]:
    """Split an integer total in proportion to weights; the parts add up to it exactly.

    Units left over after rounding down go to the largest remainders, the earliest first among equals. A negative
    total is split like its opposite. Weights may be negative (corrections); where they cancel out to nothing, all of
    the total falls on the first part.
    """
    if not weights:
        if total:
            raise ValueError(f"nothing to split {total} over")
        return []
    # On integers alone: fractions are brought to one denominator first, which changes no proportion.
    scale = lcm(*(weight.denominator for weight in weights))
    sizes = [weight.numerator * (scale // weight.denominator) for weight in weights]
    whole = sum(sizes)
    if whole == 0:
        return [total, *([0] * (len(weights) - 1))]
    sign, amount = (-1, -total) if total < 0 else (1, total)
    shares = [divmod(amount * size, whole) for size in sizes]
    # A remainder has the sign of the whole, so its size tells how much was rounded down.
    parts = _with_leftover(amount, [part for part, _ in shares], [abs(rest) for _, rest in shares])
    return [sign * part for part in parts]


def split_tax(tax_minor: int, amounts: Sequence[int], rate: Fraction) -> list[int]:
    """Split the tax of amounts of one rate over them: each gets its own exact tax rounded down, then the rest goes out.

    Corrections make amounts of both signs that nearly cancel, and a proportion of what is left of them would be
    absurd; so each part lies beside the amount's own tax. The parts add up to `tax_minor` exactly.
    """
    if all(amount >= 0 for amount in amounts) or all(amount <= 0 for amount in amounts):
        return largest_remainder(tax_minor, [abs(amount) for amount in amounts])
    exact = [amount * rate / (1 + rate) for amount in amounts]
    parts = [share.numerator // share.denominator for share in exact]
    return _with_leftover(tax_minor, parts, [share - part for share, part in zip(exact, parts, strict=True)])


def _with_leftover(total: int, parts: Sequence[int], remainders: Sequence[int | Fraction]) -> list[int]:
    """Hand out what parts lack to a total, evenly, and the last units to the largest remainders, earliest first."""
    each, rest = divmod(total - sum(parts), len(parts))
    favoured = set(sorted(range(len(parts)), key=lambda i: (-remainders[i], i))[:rest])
    return [part + each + (i in favoured) for i, part in enumerate(parts)]


def decimal_text(value: Fraction, digits: int) -> str:
    """Write an exact number with at most so many decimals, half away from zero, without trailing zeros."""
    scaled = round_half_away(value * 10**digits)
    whole, part = divmod(abs(scaled), 10**digits)
    decimals = f"{part:0{digits}d}".rstrip("0") if digits else ""
    return f"{'-' if scaled < 0 else ''}{whole}{'.' if decimals else ''}{decimals}"
