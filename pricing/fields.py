"""Kinds of values in the tables of configuration: exact decimals, days, ids and zones, refused in plain words.

Every table's model builds on `Entry`. What a field accepts from TOML it also accepts from a recorded fact, where
decimals and days are text.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from base.money import parse_decimal

FIRST_DAY = date(1, 1, 1)
LAST_DAY = date(9999, 12, 31)

_LOWER_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
_ANY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_CONTRACT_NUMBER = re.compile(r"[^\s|\x00-\x1f]{1,64}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9-]{0,63}/[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


class Entry(BaseModel):
    """One entry of a table of configuration: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def decimal_text(value: Decimal) -> str:
    """Write a decimal in its one canonical form: no exponent, no zeros at the end, so that 0.10 is 0.1."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _exact(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise ValueError("a decimal is needed, bare or quoted, such as 0.08")  # noqa: TRY004 - shown to the writer
    # A whole number must not be formatted with "f": that goes by way of a float and loses its last digits.
    return parse_decimal(format(value, "f") if isinstance(value, Decimal) else str(value))


def _day(value: object) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value, re.ASCII):
        return date.fromisoformat(value)
    if isinstance(value, datetime) or not isinstance(value, date):
        raise ValueError("a day is needed, such as 2026-11-01")  # noqa: TRY004 - shown to the writer
    return value


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(what)
        return value

    return AfterValidator(check)


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("an IANA time zone is needed, such as Asia/Shanghai") from None
    return value


def _not_negative(value: Decimal) -> Decimal:
    if value < 0:
        raise ValueError("it cannot be negative")
    return value


def _printable(value: str) -> str:
    if any(ord(character) < ord(" ") and character != "\n" for character in value):
        raise ValueError("control characters are not allowed")
    return value


_AS_TEXT: Any = PlainSerializer(decimal_text, return_type=str, when_used="json")

Text = Annotated[str, AfterValidator(_printable), Field(max_length=2000)]
Name = Annotated[str, AfterValidator(_printable), Field(min_length=1, max_length=200)]
Pattern = Annotated[str, AfterValidator(_printable), Field(min_length=1, max_length=255)]  # a name, or "*" for any
ExactDecimal = Annotated[Decimal, BeforeValidator(_exact), _AS_TEXT]
Price = Annotated[Decimal, BeforeValidator(_exact), AfterValidator(_not_negative), _AS_TEXT]
Rate = Annotated[Decimal, BeforeValidator(_exact), AfterValidator(_not_negative), Field(lt=1), _AS_TEXT]
Day = Annotated[date, BeforeValidator(_day)]
Zone = Annotated[str, AfterValidator(_zone)]
WholeNumber = Annotated[int, Field(strict=True, gt=0, lt=2**53)]
LowerId = Annotated[str, _matching(_LOWER_ID, "an id of at most 64 lower case letters, digits and - is needed")]
AnyId = Annotated[str, _matching(_ANY_ID, "an id of at most 64 letters, digits and . _ - is needed")]
ContractNumber = Annotated[
    str, _matching(_CONTRACT_NUMBER, "a contract number of at most 64 characters without spaces and | is needed")
]
ProjectPath = Annotated[str, _matching(_PROJECT, "customer and project are needed, such as u-north-physics/condmat")]
