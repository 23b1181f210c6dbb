"""Messages of a Kafka topic as usage: one CloudEvent each, whole in the value or in binary mode with its headers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

import orjson

from metering.cloud_events import read_events
from metering.events import Collected, RejectedEvent

# Of binary mode, in the Kafka protocol binding of CloudEvents 1.0.
ATTRIBUTE = "ce_"
STRUCTURED = b"application/cloudevents"
TOMBSTONE = "tombstone"  # a message without a value says only that a key is to be forgotten
LOST = "messages_lost"


@dataclass(frozen=True)
class Message:
    """One message, and where it stands."""

    partition: int
    offset: int
    value: bytes | None
    headers: Mapping[str, bytes]

    @property
    def place(self) -> tuple[int, int]:
        """By which messages are in order."""
        return self.partition, self.offset


def read_messages(topic: str, messages: Sequence[Message], now: datetime) -> Collected:
    """Read messages of one topic; one that cannot be used is returned with the reason and where it stands."""
    written = [message for message in messages if message.value is not None]
    events: list[tuple[Message, bytes]] = []
    rejected = []
    for message in written:
        try:
            events.append((message, _event_of(message)))
        except ValueError as error:
            text = f"it is no JSON: {error}; send CloudEvents as JSON"
            rejected.append(_placed(RejectedEvent("not_json", text, message.value or b"", 0), topic, message))
    collected = read_events(b"\n".join(line for _, line in events), format="jsonl", now=now)
    # One message is one line, so the line tells the message.
    rejected += [_placed(row, topic, events[row.line - 1][0]) for row in collected.rejected]
    return replace(collected, rejected=tuple(rejected), no_usage={TOMBSTONE: len(messages) - len(written)})


def lost(topic: str, partition: int, first: int, end: int) -> RejectedEvent:
    """Say that messages were deleted before anybody here had read them; until someone decides, no month closes."""
    where = f"{topic}, partition {partition}, offsets {first} to {end - 1}"
    message = f"{where}: the broker deleted them before they were read; have their sources send that usage again"
    return RejectedEvent(LOST, message, where.encode(), 0)


def begin_at(known: int | None, first: int) -> tuple[int, int]:
    """Return from which offset to read a partition on, and how many messages before it were deleted unread.

    `known` is up to where it was read before, `first` the first that the broker still holds.
    """
    if known is None:
        return first, 0
    return max(known, first), max(first - known, 0)


def origin_of(topic: str, messages: Sequence[Message]) -> str:
    """Name what a batch holds: `usage 0:120-180 1:77`, each partition with its offsets."""
    return " ".join([topic, *(f"{partition}:{_span(some)}" for partition, some in _by_partition(messages))])


def next_offsets(messages: Sequence[Message]) -> dict[int, int]:
    """Return, for each partition of a batch, the offset from which to read on."""
    return {partition: some[-1].offset + 1 for partition, some in _by_partition(messages)}


def _by_partition(messages: Sequence[Message]) -> Iterator[tuple[int, list[Message]]]:
    in_order = sorted(messages, key=lambda message: message.place)
    for partition, some in groupby(in_order, key=lambda message: message.partition):
        yield partition, list(some)


def _span(messages: Sequence[Message]) -> str:
    first, last = messages[0].offset, messages[-1].offset
    return str(first) if first == last else f"{first}-{last}"


def _event_of(message: Message) -> bytes:
    """Return the CloudEvent of a message in one line, or refuse what is no JSON."""
    value = message.value or b""
    content_type = message.headers.get("content-type", b"")
    if f"{ATTRIBUTE}specversion" in message.headers and not content_type.startswith(STRUCTURED):
        value = _from_binary_mode(value, message.headers)
    elif b"\n" in value or not value.strip():
        orjson.loads(value)
    # Where it is JSON, a line end is never part of a text.
    return value.replace(b"\n", b" ")


def _from_binary_mode(value: bytes, headers: Mapping[str, bytes]) -> bytes:
    """Write the event that headers and value are, as structured mode has it."""
    orjson.loads(value)
    attributes: dict[str, object] = {
        name.removeprefix(ATTRIBUTE): content.decode()
        for name, content in headers.items()
        if name.startswith(ATTRIBUTE)
    }
    if content_type := headers.get("content-type"):
        attributes["datacontenttype"] = content_type.decode()
    return orjson.dumps({**attributes, "data": orjson.Fragment(value)})


def _placed(row: RejectedEvent, topic: str, message: Message) -> RejectedEvent:
    said = re.sub(r"^(event|line) [0-9]+:? ", "", row.message)
    where = f"{topic}, partition {message.partition}, offset {message.offset}"
    return replace(row, message=f"{where}: {said}", line=0)
