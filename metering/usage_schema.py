"""The form of a usage event, stated once: the reader's strict types and the published JSON Schema are made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

EVENT_TYPE = "hourbook.usage.v1"
SCHEMA_ID = "https://hourbook.example/v1/schemas/usage"

MAX_EXACT = 2**53 - 1  # beyond it, a JSON number is not the same everywhere
MAX_REVISION = 2**50 - 1  # revisions above it are the operator's words
MAX_UNITS = 2**31  # of CPUs, nodes or cards: more than any machine has
CARD_PARTS = 3  # decimals of a number of cards
MAX_NAME = 256  # characters
MAX_TEXT = 1024
MAX_ENTRIES = 100  # card models or counters of one event

# What nobody sees, or takes for something else: controls, spaces but the plain one, marks of direction, private use.
_UNSEEN = (
    (0x0000, 0x001F),
    (0x007F, 0x00A0),
    (0x00AD, 0x00AD),
    (0x1680, 0x1680),
    (0x2000, 0x200F),
    (0x2028, 0x202F),
    (0x205F, 0x206F),
    (0x3000, 0x3000),
    (0xE000, 0xF8FF),
    (0xFEFF, 0xFEFF),
    (0xFFF0, 0xFFFF),
    (0xE0000, 0xE0FFF),
    (0xF0000, 0x10FFFF),
)
UNSEEN = "".join(f"{chr(first)}-{chr(last)}" for first, last in _UNSEEN)
NAME_PATTERN = f"^[^{UNSEEN}]+$"
KEY_PATTERN = f"^[^;{UNSEEN}]+$"  # of a card model or counter: the lake writes them one after the other with `;`
STATE_PATTERN = f"^ *[^ {UNSEEN}][^{UNSEEN}]*$"
_DATE_AND_TIME = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_ZONE = r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
INSTANT_PATTERN = rf"^{_DATE_AND_TIME}(\.0+)?{_ZONE}$"  # usage is counted in whole seconds
SAID_PATTERN = rf"^{_DATE_AND_TIME}(\.[0-9]+)?{_ZONE}$"

Kind = Literal["constant", "name", "state", "text", "instant", "until", "said", "count", "cards", "counters"]


class Field(NamedTuple):
    """One key of an object: what it holds, and whether it must be there."""

    name: str
    kind: Kind
    says: str
    required: bool = False
    most: int = MAX_EXACT  # of a count
    constant: str = ""


ENVELOPE = (
    Field("specversion", "constant", "The version of CloudEvents.", required=True, constant="1.0"),
    Field("id", "name", "Made by the source from the facts; the same for every revision.", required=True),
    Field("source", "name", "Who says so, as slurm:hpc1; with id it names the event for ever.", required=True),
    Field("type", "constant", "The form of data.", required=True, constant=EVENT_TYPE),
    Field("time", "said", "When the source said it; kept, not counted by."),
    Field("subject", "text", "What it is about; kept, not counted by."),
    # The rest of CloudEvents, and the documented extensions that do not change what is counted.
    Field("datacontenttype", "text", "application/json"),
    Field("dataschema", "text", "Where this schema stands."),
    Field("traceparent", "text", "W3C trace context; kept."),
    Field("tracestate", "text", "W3C trace context."),
    Field("partitionkey", "text", "For brokers."),
)
DATA = (
    Field("cluster", "name", "The cluster as configuration names it.", required=True),
    Field("partition", "name", "Its partition, queue or pool.", required=True),
    Field("account", "name", "The scheduler's account.", required=True),
    Field("user", "name", "The scheduler's user.", required=True),
    Field("state", "state", "The scheduler's word for how it stands; the first word counts.", required=True),
    Field("start", "instant", "Counted from here, in whole seconds with a zone; never changes.", required=True),
    Field("qos", "text", "Quality of service."),
    Field("job", "text", "For the reader."),
    Field("project", "text", "As the source names it; kept, not counted by."),
    Field("revision", "count", "A later revision of an event replaces the earlier.", most=MAX_REVISION),
    Field("suspended_seconds", "count", "Come off CPU time."),
    Field("time_limit_seconds", "count", "How long it may run; kept."),
    Field("end", "until", "Counted until here; not before start and not in the future. Either this or as_of."),
    Field("as_of", "until", "Of what still runs: until when it is known to run."),
)
RESOURCES = (
    Field("cpus", "count", "CPUs as the scheduler counts them.", most=MAX_UNITS),
    Field("nodes", "count", "Nodes.", most=MAX_UNITS),
    Field("memory_bytes", "count", "Memory."),
    Field("cards", "cards", "Accelerator cards by model, in thousandths at the finest."),
    Field("counters", "counters", "Totals by name, as storage_byte_seconds or software_seconds."),
)


def fields_of(part: Sequence[Field], *kinds: Kind) -> tuple[str, ...]:
    """Return the names of the fields of these kinds, in order."""
    return tuple(field.name for field in part if field.kind in kinds)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a usage event.

    What a schema cannot say is checked besides: that the days exist, that the end is neither before the start nor in
    the future, that it was not suspended for longer than it lasted, that no key occurs twice, and that whole numbers
    are written without a point.
    """
    data = _object(DATA, {"resources": {**_object(RESOURCES), "description": "What it held, all through."}})
    data["required"].append("resources")
    # A time that is null is as one that is left out.
    stated = {name: {"required": [name], "properties": {name: {"type": "string"}}} for name in ("end", "as_of")}
    data["oneOf"] = list(stated.values())
    envelope = _object(ENVELOPE, {"data": {**data, "description": "The usage itself."}})
    envelope["required"].append("data")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Usage event",
        "description": "A CloudEvent 1.0 that states what one attempt, pod, volume or licence held from start to end.",
        **envelope,
    }


def _object(part: Sequence[Field], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field.name: {**_value(field), "description": field.says} for field in part} | dict(more or {}),
        "required": [field.name for field in part if field.required],
        "additionalProperties": False,
    }


def _value(field: Field) -> dict[str, Any]:
    instant = {"pattern": INSTANT_PATTERN, "format": "date-time"}
    nullable = {"type": ["string", "null"]}
    values: dict[Kind, dict[str, Any]] = {
        "constant": {"const": field.constant},
        "name": {"type": "string", "maxLength": MAX_NAME, "pattern": NAME_PATTERN},
        "state": {"type": "string", "maxLength": MAX_NAME, "pattern": STATE_PATTERN},
        "text": {"type": "string", "maxLength": MAX_TEXT},
        "instant": {"type": "string", **instant},
        "until": {**nullable, **instant},
        "said": {**nullable, "pattern": SAID_PATTERN, "format": "date-time"},
        "count": {"type": "integer", "minimum": 0, "maximum": field.most},
        "cards": _amounts({"type": "number", "minimum": 0, "maximum": MAX_UNITS, "multipleOf": 10**-CARD_PARTS}),
        "counters": _amounts({"type": "integer", "minimum": 0, "maximum": MAX_EXACT}),
    }
    return values[field.kind]


def _amounts(number: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": number,
        "propertyNames": {"maxLength": MAX_NAME, "pattern": KEY_PATTERN},
        "maxProperties": MAX_ENTRIES,
    }
