"""Events read many at once and events looked at one by one: the same result, whatever arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from unittest.mock import patch

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering import cloud_event_bodies
from metering.cloud_event_bodies import Format, Parsed, TooManyEventsError, parse
from metering.cloud_events import LONGEST_EVENT, read_bodies, read_events
from metering.events import Collected, RejectedEvent
from tests.metering.usage_events import batches, good_events

NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)
DRAWN = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])

Told = tuple[list[tuple[object, ...]], list[RejectedEvent]]


@contextmanager
def one_by_one() -> Iterator[None]:
    """Switch the quick way off."""
    with (
        patch.object(cloud_event_bodies, "read_strictly", lambda _payload: None),
        patch.object(cloud_event_bodies, "read_one_strictly", lambda _raw: None),
    ):
        yield


def told(collected: Collected) -> Told:
    return collected.events.rows(), list(collected.rejected)


def both_ways(read: Callable[[], Collected]) -> tuple[Told, Told]:
    quick = told(read())
    with one_by_one():
        return quick, told(read())


@DRAWN
@given(batches())
def test_an_array_read_at_once_is_what_its_events_are_one_by_one(raws: list[bytes]) -> None:
    body = b"[" + b" ,".join(raws) + b"]"
    quick, slow = both_ways(lambda: read_events(body, format="json", now=NOW))
    assert quick == slow


@DRAWN
@given(batches(), st.sampled_from([b"\n", b"\r\n", b"\n\n \n"]))
def test_lines_read_at_once_are_what_they_are_one_by_one(raws: list[bytes], ending: bytes) -> None:
    body = ending.join(raw.replace(b"\n", b" ") for raw in raws)
    quick, slow = both_ways(lambda: read_events(body, format="jsonl", now=NOW))
    assert quick == slow


@DRAWN
@given(st.lists(batches(), min_size=1, max_size=4))
def test_bodies_read_together_are_what_each_is_alone(several: list[list[bytes]]) -> None:
    found = [parse(b"[" + b",".join(raws) + b"]", "json") for raws in several]
    bodies = [body for body in found if isinstance(body, Parsed)]
    if not bodies:
        return
    read = read_bodies(bodies, NOW)
    alone = [read_bodies([body], NOW) for body in bodies]
    for number, single in enumerate(alone):
        assert told(read.collected([number])) == told(single.collected([0]))
        assert read.rows(number) == single.rows(0)
    assert told(read.collected(range(len(bodies)))) == (
        [row for single in alone for row in single.events.rows()],
        [refused.event for single in alone for refused in single.refused[0]],
    )


@DRAWN
@given(st.lists(good_events(), min_size=1, max_size=5), st.data())
def test_good_events_are_read_the_quick_way(told_events: list[dict[str, object]], data: st.DataObject) -> None:
    raws = [orjson.dumps(event, option=data.draw(st.sampled_from([0, orjson.OPT_INDENT_2]))) for event in told_events]
    parsed = parse(b"[" + b",".join(raws) + b"]", "json")
    assert isinstance(parsed, Parsed)
    assert (parsed.rows, list(parsed.left)) == (len(raws), [])
    assert read_bodies([parsed], NOW).events.height == len(raws)


@DRAWN
@given(good_events(), st.data())
def test_a_key_that_is_there_twice_is_refused_wherever_it_stands(event: dict[str, object], data: st.DataObject) -> None:
    raw = orjson.dumps(event)
    at = data.draw(st.sampled_from([number for number, sign in enumerate(raw) if raw[number : number + 1] == b"{"]))
    part = orjson.loads(_object_at(raw, at))
    if not part:
        return
    name = data.draw(st.sampled_from(sorted(part)))
    twice = raw[: at + 1] + orjson.dumps(name) + b":" + orjson.dumps(part[name]) + b"," + raw[at + 1 :]
    (rejected,) = read_events(b"[" + twice + b"]", format="json", now=NOW).rejected
    assert rejected.code == "duplicate_key"
    assert rejected.raw == twice


def _object_at(raw: bytes, at: int) -> bytes:
    """The object that opens here, up to where it closes."""
    for end in range(at + 1, len(raw) + 1):
        try:
            orjson.loads(raw[at:end])
        except orjson.JSONDecodeError:
            continue
        return raw[at:end]
    return b"{}"  # a brace in a text opens nothing


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (rb'{"id": "\ud800"}', "not_json"),
        (b'{"id": "\xff"}', "not_json"),
        (b"[" * 500 + b"]" * 500, "wrong_type"),
        (b'{"id":' * 300 + b"1" + b"}" * 300, "missing_field"),
        (b'{"x": 1' + b"0" * 5000 + b"}", "number_range"),
        (b'{"x": 1e999999999}', "missing_field"),
        (b'{"x": "' + b"y" * LONGEST_EVENT + b'"}', "too_large"),
    ],
)
def test_what_is_hard_to_read_is_refused_by_name_beside_its_neighbours(raw: bytes, code: str) -> None:
    good = orjson.dumps(plain_event("before")), orjson.dumps(plain_event("after"))
    collected = read_events(b"[" + good[0] + b"," + raw + b"," + good[1] + b"]", format="json", now=NOW)
    assert collected.events["id"].to_list() == ["before", "after"]
    assert [(row.code, row.raw) for row in collected.rejected] == [(code, raw)]


def plain_event(name: str) -> dict[str, object]:
    times = {"start": "2026-11-22T04:00:00+08:00", "end": "2026-11-22T05:00:00+08:00"}
    data = {"cluster": "c", "partition": "p", "account": "a", "user": "u", "state": "DONE", "resources": {}, **times}
    return {"specversion": "1.0", "id": name, "source": "s", "type": "hourbook.usage.v1", "data": data}


@pytest.mark.parametrize(
    "amount", ["1e999999999", "1e-999999999", "0.00" + "0" * 9000 + "1", "9" * 9000 + ".5", "-1e400"]
)
def test_a_number_of_cards_that_no_machine_can_hold_is_refused_at_once(amount: str) -> None:
    raw = orjson.dumps({**plain_event("x"), "data": {**plain_event("x")["data"], "resources": {"cards": {"a": 1}}}})  # type: ignore[dict-item]
    (rejected,) = read_events(raw.replace(b'"a":1', f'"a":{amount}'.encode()), format="json", now=NOW).rejected
    assert rejected.code == "number_range"


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"[" + b"0," * 8_000_000 + b"0]", "json"),
        (b"0\n" * 11 + b"0", "jsonl"),
        (b"\n" * 8_000_000, "jsonl"),
        (b"[" + b",".join([b"{}"] * 11) + b"]", "json"),
    ],
)
def test_more_events_than_are_taken_are_refused_without_reading_them_all(body: bytes, form: Format) -> None:
    with pytest.raises(TooManyEventsError, match="send them in parts"):
        parse(body, form, most=10)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[" + b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_a_body_that_is_nested_too_deeply_is_one_refused_row(body: bytes) -> None:
    (rejected,) = read_events(body, format="json", now=NOW).rejected
    assert rejected.code == "not_json"
    assert "deep" in rejected.message


def test_two_events_on_one_line_are_no_event() -> None:
    line = orjson.dumps(plain_event("x"))
    for body in (line + line, line + b"," + line, line + b"\n" + line + b"," + line + b'\n{"id":\n"7"}'):
        quick, slow = both_ways(lambda body=body: read_events(body, format="jsonl", now=NOW))  # type: ignore[misc]
        assert quick == slow
        assert "not_json" in [row.code for row in quick[1]]


def test_wrong_times_among_good_ones_are_all_told() -> None:
    odd = ["0000-00-00T00:00:00Z", "2026-11-22T04:00:00", "2026-11-22T04:00:00.5Z", "2026-02-30T04:00:00Z"]
    told_events = [plain_event(str(number)) for number in range(40)]
    for number, text in enumerate(odd):
        data = told_events[number * 9]["data"]
        assert isinstance(data, dict)
        data["start"] = text
    collected = read_events(orjson.dumps(told_events), format="json", now=NOW)
    assert [row.code for row in collected.rejected] == ["bad_time", "naive_time", "fractional_seconds", "bad_time"]
    assert all(text in row.message for text, row in zip(odd, collected.rejected, strict=True))
