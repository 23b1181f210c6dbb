"""Messages as usage: structured and binary mode, and what is no usage event."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from metering.collectors.kafka_messages import Message, begin_at, lost, next_offsets, origin_of, read_messages
from tests.hourbook.served import usage_event

NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)


def message(value: bytes | None, offset: int = 0, partition: int = 0, **headers: str) -> Message:
    named = {name.replace("content_type", "content-type"): said.encode() for name, said in headers.items()}
    return Message(partition, offset, value, named)


def event(number: int) -> bytes:
    return json.dumps(usage_event(number)).encode()


def in_binary_mode(number: int) -> Message:
    said = usage_event(number)
    attributes = {f"ce_{name}": said[name] for name in ("specversion", "id", "source", "type")}
    return message(json.dumps(said["data"], indent=2).encode(), content_type="application/json", **attributes)


def test_a_message_is_the_same_event_in_either_mode_and_however_it_is_laid_out() -> None:
    spread_out = json.dumps(usage_event(1), indent=2).encode()
    ways = [message(event(1)), message(spread_out), in_binary_mode(1)]
    ways.append(message(event(1), content_type="application/cloudevents+json; charset=utf-8", ce_specversion="1.0"))
    read = [read_messages("usage", [way], NOW) for way in ways]
    assert all(one.events.equals(read[0].events) and one.rows == one.events.height == 1 for one in read)


def test_what_cannot_be_used_says_where_it_stands_and_its_neighbours_are_kept() -> None:
    future = {**usage_event(2), "data": {**usage_event(2)["data"], "end": "2031-01-01T00:00:00Z"}}
    bad = [b"{nonsense", b'{"id": "a\nb"}', b"", b"   ", b"[1]", json.dumps(future).encode(), b"\xff\xfe"]
    messages = [message(event(n), n) for n in range(3)] + [message(one, 3 + n, 7) for n, one in enumerate(bad)]
    collected = read_messages("usage", messages, NOW)
    assert collected.events["id"].to_list() == ["job-0", "job-1", "job-2"]
    assert collected.rows == len(messages)
    told = {row.message.partition(": ")[0]: row for row in collected.rejected}
    assert sorted(told) == [f"usage, partition 7, offset {3 + n}" for n in range(len(bad))]
    assert told["usage, partition 7, offset 3"].raw == b"{nonsense"
    assert told["usage, partition 7, offset 8"].code == "future_time"
    assert {row.code for row in collected.rejected} >= {"not_json", "future_time"}


def test_a_message_without_value_is_no_usage_and_is_counted() -> None:
    collected = read_messages("usage", [message(None), message(event(1), 1)], NOW)
    assert collected.no_usage == {"tombstone": 1}
    assert collected.rows == 2


def test_binary_mode_whose_value_is_no_json_is_refused() -> None:
    broken = message(b"{", 4, ce_specversion="1.0", ce_id="x")
    (refused,) = read_messages("usage", [broken], NOW).rejected
    assert refused.code == "not_json"
    assert refused.raw == b"{"


def test_a_batch_names_its_partitions_and_where_to_read_on() -> None:
    messages = [message(b"", offset, partition) for offset, partition in ((7, 1), (4, 0), (5, 0), (9, 0))]
    assert origin_of("usage", messages) == "usage 0:4-9 1:7"
    assert next_offsets(messages) == {0: 10, 1: 8}


@pytest.mark.parametrize(
    ("known", "first", "expected"),
    [(None, 0, (0, 0)), (None, 90, (90, 0)), (50, 0, (50, 0)), (50, 50, (50, 0)), (50, 60, (60, 10))],
)
def test_what_was_deleted_before_it_was_read_is_counted(
    known: int | None, first: int, expected: tuple[int, int]
) -> None:
    assert begin_at(known, first) == expected


def test_lost_messages_are_an_entry_of_no_known_month_which_blocks_every_close() -> None:
    refused = lost("usage", 3, 50, 60)
    assert refused.month == ""
    assert "usage, partition 3, offsets 50 to 59" in refused.message
