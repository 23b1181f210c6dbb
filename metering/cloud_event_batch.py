"""Many events at once: those whose form is plainly right, read without a Python object per value.

The types are strict: no unknown key, no number for a text, nothing out of range. Whatever does not pass is not refused
here; it is left for the slow way, which names what is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
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
_DELETE = b"\x7f"


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
    """Events whose form is right, read; their amounts are the text that is kept."""

    events: Sequence[Any]
    plain: bool  # none of their texts has a letter that must be looked at closely


NONE = Strict((), plain=True)


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
    return Strict(list(chain.from_iterable(part.events for part in filled)), all(part.plain for part in filled))


def _checked(payload: bytes, events: Sequence[Any]) -> Strict | None:
    """Return the events as they are kept, unless one of them says something twice.

    Of a key that occurs twice, only the last was read. Each key has its colon, and each colon in a text stays one, so
    as many colons must be written as were read.
    """
    if not events:
        return NONE
    lost = _list_amounts(events)
    escaped = b"\\" in payload
    if lost is None or (escaped and _ESCAPED_COLON in payload):
        return None
    if _ENCODER.encode(events).count(b":") + lost != payload.count(b":"):
        return None
    # JSON has no control character in a text, but for the last of ASCII.
    return Strict(events, plain=not escaped and payload.isascii() and _DELETE not in payload)


def _list_amounts(events: Sequence[Any]) -> int | None:
    """Turn cards and counters into the text that is kept; return how many colons that took away."""
    lost = 0
    resources = [event.data.resources for event in events]
    for kind in AMOUNTS:
        stated = [one for one in resources if getattr(one, kind) is not UNSET]
        raws = [bytes(getattr(one, kind)) for one in stated]
        texts = {}
        for raw, times in Counter(raws).items():  # there are few different ones
            text = _amounts_text(kind, raw)
            if text is None:
                return None
            texts[raw] = text
            lost += times * (raw.count(b":") - text.count(":"))
        for one, raw in zip(stated, raws, strict=True):
            setattr(one, kind, texts[raw])
    return lost


def _amounts_text(kind: str, raw: bytes) -> str | None:
    try:
        return amounts_text(kind, raw) if len(raw) <= LONGEST_AMOUNTS else None
    except RefusedError:
        return None


_NAMES = (*fields_of(ENVELOPE, "name"), *fields_of(DATA, "name", "state"))
_SUSPECT = pl.concat_str(_NAMES).str.contains(f"[{UNSEEN}]")


def columns_of(strict: Strict) -> tuple[pl.DataFrame, pl.Series]:
    """Return the values of events as columns, and which of them have a name that must be looked at closely."""
    if not strict.events:
        return RAW_SCHEMA.to_frame(), pl.Series("suspect", [], dtype=pl.Boolean)
    *envelope, data = _read_envelope(strict.events)
    *stated, resources = _read_data(data)
    values = (*envelope, *stated, *_read_resources(resources))
    frame = pl.DataFrame([_column(field, said) for field, said in zip(_FIELDS, values, strict=True)])
    if strict.plain:
        nothing = pl.Series("suspect", [False], dtype=pl.Boolean)
        return frame[RAW_SCHEMA.names()], nothing.new_from_index(0, frame.height)
    return frame[RAW_SCHEMA.names()], frame.select(_SUSPECT).to_series()


def _kept(part: Sequence[Field]) -> list[Field]:
    return [field for field in part if field.name in RAW_SCHEMA]


def _reader(part: Sequence[Field], *more: str) -> Callable[[Sequence[Any]], Sequence[list[Any]]]:
    """Return what takes objects apart, by field; written out, an attribute is read in half the time."""
    names = (*(field.name for field in _kept(part)), *more)
    lists = ", ".join(f"[one.{name} for one in objects]" for name in names)
    reader: Callable[[Sequence[Any]], Sequence[list[Any]]] = eval(f"lambda objects: ({lists},)", {})  # noqa: S307 - of our own names
    return reader


_FIELDS = (*_kept(ENVELOPE), *_kept(DATA), *_kept(RESOURCES))
_read_envelope = _reader(ENVELOPE, "data")
_read_data = _reader(DATA, "resources")
_read_resources = _reader(RESOURCES)


def _column(field: Field, values: Sequence[Any]) -> pl.Series:
    """Make a column of what was said in a field; what was not said is NULL."""
    dtype = RAW_SCHEMA[field.name]
    if values[0] is UNSET and values.count(UNSET) == len(values):
        return pl.Series(field.name, [None], dtype=dtype).new_from_index(0, len(values))
    said = values if field.required else [None if value is UNSET else value for value in values]
    return pl.Series(field.name, said, dtype=dtype)
