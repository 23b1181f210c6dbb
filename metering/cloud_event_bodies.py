"""Bodies and files of CloudEvents, taken apart into events: which are plainly right, and which must be looked at."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Literal, NamedTuple

import msgspec
import orjson
import polars as pl
from msgspec import Raw

from metering.cloud_event_batch import NONE, Strict, join, read_one_strictly, read_strictly
from metering.events import RejectedEvent

Format = Literal["json", "jsonl", "parquet"]

BLANK = b" \t\r\n"
# Half of a pair of escapes. It is no character, but no reason to refuse the events beside it.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_LINES_PER_EVENT = 10  # of which all but one are blank


class TooManyEventsError(ValueError):
    """There are more events in a body than are taken at once."""


class _NotJsonError(ValueError):
    """A body is no JSON, so no event in it can be told from the next."""


class _Items(NamedTuple):
    """The events of a body, each as it arrived, and in which line, from 1."""

    raws: Sequence[bytes]
    lines: Sequence[int]


@dataclass(frozen=True)
class Parsed:
    """A body taken apart. Events are known by their place, from 0."""

    rows: int
    strict: Strict  # those that are plainly right
    places: Sequence[int]  # of these, in order
    left: Sequence[int]  # all other places
    _items: Callable[[], _Items] = field(repr=False)

    def raw(self, place: int) -> bytes:
        """Return an event exactly as it arrived."""
        return self._items().raws[place]

    def line(self, place: int) -> int:
        """Return in which line it arrived, or which of the array's it is, from 1."""
        return self._items().lines[place]


def parse(payload: bytes, format: Format, most: int | None = None) -> Parsed | RejectedEvent:  # noqa: A002
    """Take a body apart; what is nothing of the kind is one refused row, and more events than `most` are an error."""
    try:
        parsed = _PARSERS[format](payload, most)
    except _NotJsonError as error:
        return RejectedEvent("not_json", f"this is no JSON: {error}; send CloudEvents as JSON", payload, 1)
    except (pl.exceptions.PolarsError, OSError) as error:
        return RejectedEvent("not_parquet", f"this is no Parquet file: {error}", payload, 1)
    _check_number(parsed.rows, most)
    return parsed


def _parse_json(payload: bytes, most: int | None) -> Parsed:
    if payload.lstrip(BLANK)[:1] != b"[":
        _check_json(payload)
        return _one_by_one(_numbered([payload]))
    strict = read_strictly(payload)
    if strict is not None:
        return _all_right(strict, cache(lambda: _numbered(_split(payload, None))))
    return _one_by_one(_numbered(_split(payload, most)))


def _parse_lines(payload: bytes, most: int | None) -> Parsed:
    if most is not None and payload.count(b"\n") > most * _LINES_PER_EVENT:
        raise TooManyEventsError("there are too many lines; send them in parts")
    filled = [(number, line) for number, line in enumerate(payload.split(b"\n"), start=1) if line.strip(BLANK)]
    items = _Items([line for _, line in filled], [number for number, _ in filled])
    _check_number(len(filled), most)
    told = [line.strip(BLANK) for line in items.raws]
    # Each line must open an object of its own, so that no comma put between joins the halves of one.
    strict = read_strictly(b"[" + b",".join(told) + b"]") if all(line[:1] == b"{" for line in told) else None
    if strict is not None and len(strict.events) == len(filled):
        return _all_right(strict, lambda: items)
    return _one_by_one(items)


def _parse_parquet(payload: bytes, _most: int | None) -> Parsed:
    rows = pl.read_parquet(io.BytesIO(payload)).iter_rows(named=True)
    items = _numbered([orjson.dumps(_without_nulls(row), default=str) for row in rows])
    strict = read_strictly(b"[" + b",".join(items.raws) + b"]")
    return _one_by_one(items) if strict is None else _all_right(strict, lambda: items)


_PARSERS: Mapping[Format, Callable[[bytes, int | None], Parsed]] = {
    "json": _parse_json,
    "jsonl": _parse_lines,
    "parquet": _parse_parquet,
}


def _check_number(events: int, most: int | None) -> None:
    if most is not None and events > most:
        raise TooManyEventsError(f"{events:,} events are more than {most:,}; send them in parts")


def _all_right(strict: Strict, items: Callable[[], _Items]) -> Parsed:
    return Parsed(len(strict.events), strict, range(len(strict.events)), (), items)


def _one_by_one(items: _Items) -> Parsed:
    read = [read_one_strictly(raw) for raw in items.raws]
    places = [place for place, strict in enumerate(read) if strict is not None]
    left = [place for place, strict in enumerate(read) if strict is None]
    strict = join(strict for strict in read if strict is not None) if places else NONE
    return Parsed(len(read), strict, places, left, lambda: items)


def _numbered(raws: Sequence[bytes]) -> _Items:
    return _Items(raws, range(1, len(raws) + 1))


def _check_json(payload: bytes) -> None:
    try:
        msgspec.json.decode(_SURROGATE.sub(rb"\\u0041", payload), type=Raw)
    except RecursionError as error:
        raise _NotJsonError("it is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise _NotJsonError(str(error)) from error


def _split(payload: bytes, most: int | None) -> list[bytes]:
    """Take an array apart without looking into its items."""
    try:
        found = [bytes(raw) for raw in _raw_items(payload, most)]
    except RecursionError as error:
        raise _NotJsonError("it is nested too deeply") from error
    except msgspec.DecodeError:
        return _split_masked(payload, most)
    return found


def _split_masked(payload: bytes, most: int | None) -> list[bytes]:
    """Take an array apart in which an item may have half a character: found without it, taken with it."""
    masked = _SURROGATE.sub(rb"\\u0041", payload)
    found, at = [], 0
    try:
        for raw in _raw_items(masked, most):
            item = bytes(raw)
            at = masked.index(item, at)  # only blanks and a comma lie between, so the first found is the item itself
            found.append(payload[at : at + len(item)])
            at += len(item)
    except msgspec.DecodeError as error:
        raise _NotJsonError(str(error)) from error
    return found


def _raw_items(payload: bytes, most: int | None) -> Sequence[Any]:
    """Return the items of an array; of one that has more than `most`, just one more than that."""
    if most is None:
        return msgspec.json.decode(payload, type=list[Raw])
    limited = msgspec.json.decode(payload, type=_limited(most + 1))
    return [item for item in msgspec.structs.astuple(limited) if item is not None]


@cache
def _limited(most: int) -> type[Any]:
    """A type that reads so many items of an array and passes over the rest: they take no memory."""
    return msgspec.defstruct("Items", [(f"item_{n}", Raw, None) for n in range(most)], array_like=True)


def _without_nulls(value: object) -> object:
    """Leave out what a Parquet row does not fill: each of its columns stands in every row."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return value
