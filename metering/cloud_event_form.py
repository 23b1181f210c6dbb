"""The form of one event, checked by itself: whatever is wrong is named. Slow, so only for events that may be wrong."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

import orjson

from metering.usage_schema import (
    CARD_PARTS,
    DATA,
    ENVELOPE,
    KEY_PATTERN,
    MAX_ENTRIES,
    MAX_EXACT,
    MAX_NAME,
    MAX_TEXT,
    MAX_UNITS,
    NAME_PATTERN,
    RESOURCES,
    Field,
)

LONGEST_NUMBER = 40  # digits; a longer one is beyond every range anyway
_SHOWN = 40

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")
_KEY = re.compile(KEY_PATTERN.removesuffix("$") + r"\Z")


class RefusedError(Exception):
    """An event has not the form it must have."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Form(NamedTuple):
    """Which keys an object must and may have."""

    where: str
    required: frozenset[str]
    allowed: frozenset[str]


def _form(where: str, part: Sequence[Field], *more: str) -> _Form:
    required = frozenset((*(field.name for field in part if field.required), *more))
    return _Form(where, required, required | {field.name for field in part})


_EVENT = _form("event", ENVELOPE, "data")
_DATA = _form("data", DATA, "resources")
_RESOURCES = _form("data.resources", RESOURCES)


def row_of(raw: bytes) -> dict[str, object]:
    """Return the values of an event as they stand, or refuse its form by name."""
    envelope = _object(read_json(raw), _EVENT)
    for field in ENVELOPE:
        if field.kind == "constant" and envelope[field.name] != field.constant:
            code = {"specversion": "unknown_version", "type": "unknown_type"}[field.name]
            raise RefusedError(code, f"{field.name} is {_shown(envelope[field.name])}; only {field.constant!r} is read")
    data = _object(envelope["data"], _DATA)
    resources = _object(data["resources"], _RESOURCES)
    row = _values(envelope, ENVELOPE, "event") | _values(data, DATA, "data")
    return row | _values(resources, RESOURCES, "data.resources")


def read_json(raw: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Read the JSON of one event; a key that occurs twice is refused, and numbers keep every digit."""
    try:
        text = raw.decode()
        if _SURROGATE.search(text):
            orjson.loads(raw)  # refuses half of a pair of escapes, which is no character
        return json.loads(
            text, object_pairs_hook=_without_repeats, parse_int=_whole, parse_float=Decimal, parse_constant=_no_number
        )
    except RecursionError as error:
        raise RefusedError("too_deep", "it is nested too deeply") from error
    except ValueError as error:  # what both libraries and the decoding of text raise
        raise RefusedError("not_json", f"it is no JSON: {error}") from error


def _without_repeats(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise RefusedError("duplicate_key", f"{_plain(twice)} is there twice; what is meant cannot be known")
    return found


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise RefusedError("number_range", f"a number of {len(digits)} digits is no quantity")
    return int(digits)


def _no_number(text: str) -> NoReturn:
    raise RefusedError("not_json", f"{text} is no number")


def _object(value: object, form: _Form) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RefusedError("wrong_type", f"{form.where} is no object")
    keys = value.keys()
    if form.required <= keys <= form.allowed:
        return value
    if missing := sorted(form.required - keys):
        raise RefusedError("missing_field", f"{form.where} has no {', '.join(missing)}")
    unknown = ", ".join(_plain(name) for name in sorted(keys - form.allowed)[:5])
    raise RefusedError("unknown_key", f"{form.where} has unknown {unknown}; it might change what is meant")


def _values(values: Mapping[str, Any], part: Sequence[Field], where: str) -> dict[str, object]:
    """Return the values of an object's fields; those that are not kept are checked all the same."""
    found: dict[str, object] = {}
    for field in part:
        value, at = values.get(field.name), f"{where}.{field.name}"
        if field.name not in values:
            found[field.name] = None
        elif field.kind in {"name", "state"}:
            found[field.name] = _name(value, at)
        elif field.kind in {"text", "instant"}:
            found[field.name] = _text(value, at)
        elif field.kind in {"until", "said"}:
            found[field.name] = None if value is None else _text(value, at)
        elif field.kind == "count":
            found[field.name] = _count(value, at, field.most)
        elif field.kind == "cards":
            found[field.name] = listed(_cards(value, at))
        elif field.kind == "counters":
            found[field.name] = listed(_counters(value, at))
    return found


def amounts_text(kind: str, raw: bytes) -> str:
    """Return cards or counters, given as JSON, in the text in which they are kept."""
    value = read_json(raw)
    at = f"data.resources.{kind}"
    return listed(_cards(value, at) if kind == "cards" else _counters(value, at))


def listed(amounts: Iterable[tuple[str, int]]) -> str:
    """Write amounts by name, those of nothing left out."""
    return ";".join(f"{name}:{number}" for name, number in sorted(amounts) if number)


def _text(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise RefusedError("wrong_type", f"{at} is {_shown(value)}, no text")
    if len(value) > MAX_TEXT:
        raise RefusedError("too_long", f"{at} has {len(value):,} characters; {MAX_TEXT:,} are kept")
    return value


def _name(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise RefusedError("wrong_type", f"{at} is {_shown(value)}, no text")
    if len(value) > MAX_NAME or not _NAME.match(value):
        raise RefusedError("bad_name", f"{at} is empty, too long or not printable: {_shown(value)}")
    return value


def _count(value: object, at: str, most: int) -> int:
    if type(value) is not int:
        raise RefusedError("wrong_type", f"{at} is {_shown(value)}, no whole number")
    if not 0 <= value <= most:
        raise RefusedError("number_range", f"{at} is {value}; it must lie between 0 and {most}")
    return value


def _cards(value: object, at: str) -> Iterable[tuple[str, int]]:
    """Yield thousandths of cards by model; finer parts of a card are refused, not rounded."""
    for model, number in _named(value, at):
        if type(number) is not int and not isinstance(number, Decimal):
            raise RefusedError("wrong_type", f"{at}.{model} is {_shown(number)}, no number")
        if not 0 <= number <= MAX_UNITS:
            raise RefusedError(
                "number_range", f"{at}.{model} is {_shown(number)}; it must lie between 0 and {MAX_UNITS}"
            )
        thousandths = _thousandths(Decimal(number))
        if thousandths is None:
            raise RefusedError("number_range", f"{at}.{model} is {_shown(number)}, no plain thousandths")
        yield model, thousandths


def _thousandths(number: Decimal) -> int | None:
    """Return a number that is neither negative nor huge times a thousand; None where that is not whole."""
    _, digits, exponent = number.as_tuple()
    if not number:
        return 0
    text = "".join(map(str, digits))
    short = text.rstrip("0")
    power = int(exponent) + len(text) - len(short) + CARD_PARTS
    return int(short) * 10**power if power >= 0 else None


def _counters(value: object, at: str) -> Iterable[tuple[str, int]]:
    for name, number in _named(value, at):
        yield name, _count(number, f"{at}.{name}", MAX_EXACT)


def _named(value: object, at: str) -> Iterable[tuple[str, object]]:
    if not isinstance(value, dict):
        raise RefusedError("wrong_type", f"{at} is no object")
    if len(value) > MAX_ENTRIES:
        raise RefusedError("number_range", f"{at} has {len(value)} entries; {MAX_ENTRIES} are taken")
    for name, number in value.items():
        if len(name) > MAX_NAME or not _KEY.match(name):
            raise RefusedError("bad_name", f"{at} has a name that cannot be used: {_shown(name)}")
        yield name, number


def _shown(value: object) -> str:
    """Show a value in a message, cut short: it may be of any length."""
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _plain(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
