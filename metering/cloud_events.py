"""Usage as CloudEvents 1.0 of type `hourbook.usage.v1`: JSON (one or an array), JSON lines, or Parquet.

Form and types are checked event by event, values column by column; whatever is wrong is refused by name, and its good
neighbours are kept. An event that holds nothing, at a higher revision, takes back what was said before.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

import orjson
import polars as pl

from metering.cloud_event_values import RAW_SCHEMA, judge
from metering.events import EVENT_SCHEMA, Collected, RejectedEvent

EVENT_TYPE = "hourbook.usage.v1"
MAX_EXACT = 2**53 - 1  # beyond it, a JSON number is not the same everywhere
MAX_NAME_BYTES = 256


class _Form(NamedTuple):
    """Which keys an object must and may have."""

    where: str
    required: frozenset[str]
    allowed: frozenset[str]


def _form(where: str, required: Iterable[str], optional: Iterable[str]) -> _Form:
    return _Form(where, frozenset(required), frozenset((*required, *optional)))


_NAMES = ("cluster", "partition", "account", "user", "state")
_OPTIONAL_NAMES = ("qos", "job", "project")
_NUMBERS = ("revision", "suspended_seconds")
_AMOUNTS = ("cpus", "nodes", "memory_bytes")
_EVENT = _form(
    "event",
    ("specversion", "id", "source", "type", "data"),
    # The rest of CloudEvents, and the documented extensions that do not change what is counted.
    ("time", "subject", "datacontenttype", "dataschema", "traceparent", "tracestate", "partitionkey"),
)
_DATA = _form("data", (*_NAMES, "start", "resources"), (*_OPTIONAL_NAMES, *_NUMBERS, "end", "as_of"))
_RESOURCES = _form("data.resources", (), (*_AMOUNTS, "cards", "counters"))

Item = Mapping[str, Any]


class _RefusedError(Exception):
    """An event has not the form it must have."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Arrived(NamedTuple):
    """One event as it arrived, and where."""

    line: int
    raw: bytes
    item: Any


def read_events(payload: bytes, *, format: Literal["json", "jsonl", "parquet"], now: datetime) -> Collected:  # noqa: A002
    """Read usage events; what cannot be used is returned with the reason, and events after `now` are refused."""
    arrived, rejected = _READERS[format](payload)
    rows: list[dict[str, object]] = []
    for position, event in enumerate(arrived):
        try:
            rows.append({**_row(event.item), "position": position})
        except _RefusedError as refused:
            rejected.append(_rejected(event, refused.code, str(refused)))
    judged = judge(pl.DataFrame(rows, schema=RAW_SCHEMA, orient="row"), int(now.timestamp()))
    wrong = judged.filter(pl.col("code") != "").select("position", "code", "message", "month")
    rejected += [_rejected(arrived[at], code, message, month) for at, code, message, month in wrong.iter_rows()]
    events = judged.filter(pl.col("code") == "").select(list(EVENT_SCHEMA))
    return Collected(events, tuple(sorted(rejected, key=lambda row: row.line)), {})


def _read_json(payload: bytes) -> tuple[list[_Arrived], list[RejectedEvent]]:
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        return [], [_not_json(payload, 1, error)]
    items = document if isinstance(document, list) else [document]
    return [_Arrived(number, orjson.dumps(item), item) for number, item in enumerate(items, start=1)], []


def _read_lines(payload: bytes) -> tuple[list[_Arrived], list[RejectedEvent]]:
    arrived, rejected = [], []
    for number, line in enumerate(payload.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            arrived.append(_Arrived(number, line, orjson.loads(line)))
        except orjson.JSONDecodeError as error:
            rejected.append(_not_json(line, number, error))
    return arrived, rejected


def _read_parquet(payload: bytes) -> tuple[list[_Arrived], list[RejectedEvent]]:
    try:
        frame = pl.read_parquet(io.BytesIO(payload))
    except (pl.exceptions.PolarsError, OSError) as error:
        return [], [RejectedEvent("not_parquet", f"this is no Parquet file: {error}", payload, 1)]
    items = (_without_nulls(row) for row in frame.iter_rows(named=True))
    return [_Arrived(n, orjson.dumps(item, default=str), item) for n, item in enumerate(items, start=1)], []


_READERS = {"json": _read_json, "jsonl": _read_lines, "parquet": _read_parquet}


def _without_nulls(value: object) -> object:
    """Leave out what a Parquet row does not fill: each of its columns stands in every row."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return value


def _not_json(raw: bytes, line: int, error: Exception) -> RejectedEvent:
    return RejectedEvent("not_json", f"line {line} is no JSON: {error}; send CloudEvents as JSON", raw, line)


def _rejected(event: _Arrived, code: str, message: str, month: str = "") -> RejectedEvent:
    """Keep an event that cannot be used, under its identity where that can be read."""
    item = event.item if isinstance(event.item, dict) else {}
    source, event_id = (item.get(name) for name in ("source", "id"))
    known = isinstance(source, str) and isinstance(event_id, str)
    return RejectedEvent(
        code,
        f"event {event.line}: {message}",
        event.raw,
        event.line,
        source=str(source) if known else "",
        event_id=str(event_id) if known else "",
        month=month,
    )


def _row(item: object) -> dict[str, object]:
    """Return an event's values as they stand, or refuse its form."""
    envelope = _object(item, _EVENT)
    _one_of(envelope, "specversion", "1.0", "unknown_version")
    _one_of(envelope, "type", EVENT_TYPE, "unknown_type")
    data = _object(envelope["data"], _DATA)
    resources = _object(data["resources"], _RESOURCES)
    row: dict[str, object] = {name: _name(envelope, name, "event") for name in ("source", "id")}
    row |= {name: _name(data, name, "data") for name in _NAMES}
    row |= {name: _text(data.get(name, ""), "data", name) for name in _OPTIONAL_NAMES}
    row |= {name: _count(data.get(name, 0), "data", name) for name in _NUMBERS}
    row |= {name: _count(resources.get(name, 0), "data.resources", name) for name in _AMOUNTS}
    row["start"] = _text(data["start"], "data", "start")
    for name in ("end", "as_of"):
        row[name] = None if data.get(name) is None else _text(data[name], "data", name)
    row["time"] = None if envelope.get("time") is None else _text(envelope["time"], "event", "time")
    row["cards"] = _listed(_cards(resources.get("cards", {})))
    row["counters"] = _listed(_counters(resources.get("counters", {})))
    row["evidence"] = orjson.dumps(_evidence(envelope, data)).decode()
    return row


def _object(value: object, form: _Form) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _RefusedError("wrong_type", f"{form.where} is no object")
    keys = value.keys()
    if form.required <= keys <= form.allowed:
        return value
    if missing := sorted(form.required - keys):
        raise _RefusedError("missing_field", f"{form.where} has no {', '.join(missing)}")
    unknown = ", ".join(sorted(keys - form.allowed))
    raise _RefusedError("unknown_key", f"{form.where} has unknown {unknown}; it might change what is meant")


def _one_of(envelope: Item, name: str, expected: str, code: str) -> None:
    if envelope[name] != expected:
        raise _RefusedError(code, f"{name} is {envelope[name]!r}; only {expected!r} is understood")


def _text(value: object, where: str, name: str) -> str:
    if not isinstance(value, str):
        raise _RefusedError("wrong_type", f"{where}.{name} is {value!r}, no text")
    return value


def _name(values: Item, name: str, where: str) -> str:
    text = _text(values[name], where, name)
    if not text or len(text.encode()) > MAX_NAME_BYTES or not text.isprintable():
        raise _RefusedError("bad_name", f"{where}.{name} is empty, too long or not printable: {text[:40]!r}")
    return text


def _count(value: object, where: str, name: str) -> int:
    if type(value) is not int:
        raise _RefusedError("wrong_type", f"{where}.{name} is {value!r}, no whole number")
    if not 0 <= value <= MAX_EXACT:
        raise _RefusedError("number_range", f"{where}.{name} is {value}; it must lie between 0 and {MAX_EXACT}")
    return value


def _cards(value: object) -> Iterable[tuple[str, int]]:
    """Yield thousandths of cards by model; finer parts of a card are refused, not rounded."""
    where = "data.resources.cards"
    for model, number in _named(value, "cards"):
        if type(number) not in {int, float}:
            raise _RefusedError("wrong_type", f"{where}.{model} is {number!r}, no number")
        # The shortest decimal that reads as this number is what was written, up to 15 digits.
        whole, _, part = str(number).partition(".")
        if not whole.isdigit() or (part and not part.isdigit()) or len(part) > 3:  # noqa: PLR2004
            raise _RefusedError("number_range", f"{where}.{model} is {number!r}, no plain thousandths")
        yield model, _count(int(whole) * 1000 + int(part.ljust(3, "0")), where, model)


def _counters(value: object) -> Iterable[tuple[str, int]]:
    for name, number in _named(value, "counters"):
        yield name, _count(number, "data.resources.counters", name)


def _named(value: object, what: str) -> Iterable[tuple[str, object]]:
    if not isinstance(value, dict):
        raise _RefusedError("wrong_type", f"data.resources.{what} is no object")
    for name, number in value.items():
        if not name or ";" in name or not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
            raise _RefusedError("bad_name", f"data.resources.{what} has a name that cannot be used: {name[:40]!r}")
        yield name, number


def _listed(amounts: Iterable[tuple[str, int]]) -> str:
    return ";".join(f"{name}:{number}" for name, number in sorted(amounts) if number)


def _evidence(envelope: Item, data: Item) -> dict[str, object]:
    """Keep what the source says besides, for whoever follows a bill back to it."""
    said = {name: envelope.get(name) for name in ("time", "subject", "traceparent")}
    said["project"] = data.get("project")
    return {name: value for name, value in said.items() if value is not None}
