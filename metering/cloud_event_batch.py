"""Many events at once: those whose form is plainly right, read without a Python object per value.

The types are strict: no unknown key, no number for a text, nothing out of range. Whatever does not pass is not refused
here; it is left for the slow way, which names what is wrong.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import polars as pl
from msgspec import UNSET, Meta, Raw, UnsetType

from metering.cloud_event_form import RefusedError, amounts_text
from metering.cloud_event_values import RAW_SCHEMA
from metering.usage_schema import (
    DATA,
    ENVELOPE,
    MAX_NAME,
    MAX_TEXT,
    RESOURCES,
    UNSEEN,
    Field,
    fields_of,
)

AMOUNTS = ("cards", "counters")
LONGEST_AMOUNTS = 512 * 1024  # bytes

_LEFT = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
# A colon written as an escape would upset the count by which a repeated key is found.
_ESCAPED_COLON = b"\\u003"


def _type_of(field: Field) -> Any:  # noqa: ANN401 - a type
    types: Mapping[str, Any] = {
        "constant": Literal[field.constant],
        "name": Annotated[str, Meta(min_length=1, max_length=MAX_NAME)],
        "text": Annotated[str, Meta(max_length=MAX_TEXT)],
        "instant": str,
        "until": Annotated[str, Meta(max_length=MAX_TEXT)] | None,
        "count": Annotated[int, Meta(ge=0, le=field.most)],
        "cards": Raw,
    }
    same = {"state": "name", "said": "until", "counters": "cards", "instant": "text"}
    return types[same.get(field.kind, field.kind)]


def _struct(name: str, part: Sequence[Field], **more: Any) -> type[Any]:  # noqa: ANN401
    required: list[Any] = [(field.name, _type_of(field)) for field in part if field.required]
    optional = [(field.name, _type_of(field) | UnsetType, UNSET) for field in part if not field.required]
    fields = [*required, *more.items(), *optional]
    # Nothing in an event refers back to it, so the garbage collector need not count them all.
    return msgspec.defstruct(name, fields, forbid_unknown_fields=True, omit_defaults=True, gc=False)


_Resources = _struct("Resources", RESOURCES)
_Data = _struct("Data", DATA, resources=_Resources)
_Event = _struct("Event", ENVELOPE, data=_Data)

_ONE = msgspec.json.Decoder(_Event)
_MANY = msgspec.json.Decoder(list[_Event])  # type: ignore[valid-type]
_ENCODER = msgspec.json.Encoder()


class Strict(NamedTuple):
    """Events whose form is right, as JSON in one spelling: separated by commas, amounts as the text that is kept."""

    encoded: bytes
    events: int


NONE = Strict(b"", 0)


def read_strictly(payload: bytes) -> Strict | None:
    """Read a JSON array of events; None where any of them has to be looked at by itself."""
    try:
        return _checked(payload, _MANY.decode(payload))
    except _LEFT:
        return None


def read_one_strictly(raw: bytes) -> Strict | None:
    """Read one event; None where it has to be looked at closely."""
    try:
        return _checked(raw, [_ONE.decode(raw)])
    except _LEFT:
        return None


def join(parts: Iterable[Strict]) -> Strict:
    """Put events together, in order."""
    filled = [part for part in parts if part.events]
    return Strict(b",".join(part.encoded for part in filled), sum(part.events for part in filled))


def _checked(payload: bytes, events: Sequence[Any]) -> Strict | None:
    """Return the events in one spelling, unless one of them says something twice.

    Of a key that occurs twice, only the last was read. Each key has its colon, and each colon in a text stays one, so
    as many colons must be written as were read.
    """
    if not events:
        return NONE
    lost = _list_amounts(events)
    if lost is None or (b"\\" in payload and _ESCAPED_COLON in payload):
        return None
    encoded = _ENCODER.encode(events)
    if encoded.count(b":") + lost != payload.count(b":"):
        return None
    return Strict(encoded[1:-1], len(events))


def _list_amounts(events: Sequence[Any]) -> int | None:
    """Turn cards and counters into the text that is kept; return how many colons that took away."""
    lost = 0
    for kind in AMOUNTS:
        stated = [event.data.resources for event in events if getattr(event.data.resources, kind) is not UNSET]
        raws = [bytes(getattr(resources, kind)) for resources in stated]
        texts = {}
        for raw, times in Counter(raws).items():  # there are few different ones
            text = _amounts_text(kind, raw)
            if text is None:
                return None
            texts[raw] = text
            lost += times * (raw.count(b":") - text.count(":"))
        for resources, raw in zip(stated, raws, strict=True):
            setattr(resources, kind, texts[raw])
    return lost


def _amounts_text(kind: str, raw: bytes) -> str | None:
    try:
        return amounts_text(kind, raw) if len(raw) <= LONGEST_AMOUNTS else None
    except RefusedError:
        return None


_NAMES = (*fields_of(ENVELOPE, "name"), *fields_of(DATA, "name", "state"))


def _schema() -> pl.Schema:
    def columns(part: Sequence[Field]) -> dict[str, Any]:
        return {field.name: RAW_SCHEMA[field.name] for field in part if field.name in RAW_SCHEMA}

    data = {**columns(DATA), "resources": pl.Struct(columns(RESOURCES))}
    return pl.Schema({**columns(ENVELOPE), "data": pl.Struct(data)})


_SCHEMA = _schema()
_SUSPECT = pl.concat_str(_NAMES).str.contains(f"[{UNSEEN}]")


def columns_of(strict: Strict) -> tuple[pl.DataFrame, pl.Series]:
    """Return the values of events as columns, and which of them have a name that must be looked at closely."""
    if not strict.events:
        return RAW_SCHEMA.to_frame(), pl.Series("suspect", [], dtype=pl.Boolean)
    read = pl.read_json(io.BytesIO(b"[" + strict.encoded + b"]"), schema=_SCHEMA).unnest("data").unnest("resources")
    if read.height != strict.events:
        raise AssertionError(f"{strict.events} events became {read.height}")
    return read[RAW_SCHEMA.names()], read.select(_SUSPECT).to_series()
