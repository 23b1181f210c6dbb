"""CloudEvents: what is usage is kept, what is wrong is refused by name, and good neighbours stay."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.cloud_events import read_events
from metering.events import EVENT_SCHEMA, Collected
from metering.plan import RollupPlan
from metering.rollup import roll_up
from metering.sealing import recorded

NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)
START = 1_795_294_603  # 2026-11-22T04:56:43+08:00


def event(event_id: str = "pod-1", *, without: str = "", resources: Any = None, **data: Any) -> dict[str, Any]:  # noqa: ANN401
    """A usage event of an hour on two cards, with other data where given."""
    body: dict[str, Any] = {
        "cluster": "ai1",
        "partition": "gpu",
        "qos": "high",
        "account": "grp_ml",
        "user": "sl_carol",
        "project": "llm",
        "job": "train",
        "state": "completed",
        "start": "2026-11-22T04:56:43+08:00",
        "end": "2026-11-21T21:56:43Z",
        "suspended_seconds": 12,
        "resources": resources
        if resources is not None
        else {"cpus": 16, "nodes": 1, "memory_bytes": 2**37, "cards": {"k100": 0.5, "a100": 2}, "counters": {"io": 7}},
        **data,
    }
    body.pop(without, None)
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "k8s:ai1",
        "type": "hourbook.usage.v1",
        "time": "2026-11-21T21:56:44.250Z",
        "subject": "ns/train",
        "data": body,
    }


def read(*events: Any) -> Collected:  # noqa: ANN401
    return read_events(orjson.dumps(list(events)), format="json", now=NOW)


def refusal(told: Any) -> tuple[str, str]:  # noqa: ANN401
    """Code and message of an event that must be refused, while its neighbours are kept."""
    collected = read(event("before"), told, event("after"))
    assert collected.events["id"].to_list() == ["before", "after"]
    (rejected,) = collected.rejected
    assert collected.rows == 3
    assert rejected.line == 2
    assert orjson.loads(rejected.raw) == told
    return rejected.code, rejected.message


def test_an_event_is_read_whole() -> None:
    collected = read(event())
    assert collected.rejected == ()
    assert collected.events.schema == EVENT_SCHEMA
    assert collected.events.row(0, named=True) == {
        "source": "k8s:ai1",
        "id": "pod-1",
        "revision": 0,
        "revision_derived": False,
        "cluster": "ai1",
        "partition": "gpu",
        "qos": "high",
        "account": "grp_ml",
        "user": "sl_carol",
        "job": "train",
        "state": "COMPLETED",
        "start_second": START,
        "end_second": START + 3600,
        "ended": True,
        "suspended_seconds": 12,
        "cpus": 16,
        "nodes": 1,
        "memory_bytes": 2**37,
        "cards": "a100:2000;k100:500",
        "counters": "io:7",
        "evidence": '{"time":"2026-11-21T21:56:44.250Z","subject":"ns/train","project":"llm"}',
    }


def test_a_running_job_counts_until_when_it_is_known_to_run() -> None:
    (row,) = read(event(end=None, as_of="2026-11-22T05:00:00+08:00")).events.iter_rows(named=True)
    assert (row["ended"], row["end_second"] - row["start_second"]) == (False, 197)


def test_a_later_revision_that_holds_nothing_takes_the_usage_back() -> None:
    events = read(event(), event(revision=1, resources={})).events
    rows = recorded(events, first_seq=1, batch_seq=1)
    plan = RollupPlan(zones=("Asia/Shanghai",))
    assert not roll_up(rows.head(1), plan).is_empty()
    assert roll_up(rows, plan).is_empty()


@pytest.mark.parametrize("form", ["one", "array", "lines", "parquet"])
def test_every_format_says_the_same(form: str) -> None:
    told = [event("a"), event("b", end=None, as_of="2026-11-22T05:00:00+08:00")][: 1 if form == "one" else 2]
    expected = read(*told).events
    if form == "parquet":
        buffer = io.BytesIO()
        pl.DataFrame(told, infer_schema_length=None).write_parquet(buffer)
        collected = read_events(buffer.getvalue(), format="parquet", now=NOW)
    elif form == "lines":
        lines = b"\n\n".join(orjson.dumps(item) for item in told) + b"\r\n"
        collected = read_events(lines, format="jsonl", now=NOW)
    else:
        collected = read_events(orjson.dumps(told[0] if form == "one" else told), format="json", now=NOW)
    assert collected.rejected == ()
    assert collected.events.equals(expected)


REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("naive_time", "data.start 2026-11-22T04:56:43 has no zone", event(start="2026-11-22T04:56:43")),
    ("naive_time", "data.end", event(end="2026-11-22T05:56:43.000")),
    ("fractional_seconds", "data.start", event(start="2026-11-22T04:56:43.5+08:00")),
    ("fractional_seconds", "data.end", event(end="2026-11-22T05:56:43.001Z")),
    ("bad_time", "data.end", event(end="yesterday")),
    ("bad_time", "data.end", event(end="2026-11-31T05:56:43Z")),
    ("bad_time", "data.start", event(start="2026-11-22T24:56:43Z")),
    ("bad_time", "before 1970", event(start="1969-11-22T04:56:43Z")),
    ("wrong_type", "data.start", event(start=START)),
    ("wrong_type", "data.start", event(start=None)),
    ("end_before_start", "ends before", event(end="2026-11-22T04:56:42+08:00")),
    ("future_time", "future", event(end="2026-12-01T02:00:01Z")),
    ("future_time", "future", event(start="2027-01-01T00:00:00Z", end="2027-01-01T00:00:00Z")),
    ("missing_field", "neither end nor as_of", event(end=None)),
    ("contradiction", "as_of", event(as_of="2026-11-22T05:00:00+08:00")),
    ("suspended_too_long", "suspended", event(suspended_seconds=3601)),
    ("missing_field", "data has no account", event(without="account")),
    ("missing_field", "data has no resources", event(without="resources")),
    ("unknown_key", "data has unknown gpus", event(gpus=1)),
    ("unknown_key", "data.resources has unknown gpu", event(resources={"gpu": 1})),
    ("unknown_key", "event has unknown sampledrate", {**event(), "sampledrate": 10}),
    ("unknown_version", "'0.3'", {**event(), "specversion": "0.3"}),
    ("unknown_type", "'com.example'", {**event(), "type": "com.example"}),
    ("wrong_type", "data.resources.cpus", event(resources={"cpus": 1.0})),
    ("wrong_type", "data.resources.cpus", event(resources={"cpus": True})),
    ("wrong_type", "data.resources.cpus", event(resources={"cpus": "4"})),
    ("number_range", "data.resources.cpus", event(resources={"cpus": -1})),
    ("number_range", "data.resources.memory_bytes", event(resources={"memory_bytes": 2**53})),
    ("wrong_type", "data.resources.memory_bytes", event(resources={"memory_bytes": 1e30})),
    ("number_range", "data.resources.cards.a100", event(resources={"cards": {"a100": 0.3333}})),
    ("number_range", "data.resources.cards.a100", event(resources={"cards": {"a100": -1}})),
    ("number_range", "data.resources.cards.a100", event(resources={"cards": {"a100": 1e300}})),
    ("wrong_type", "data.resources.cards.a100", event(resources={"cards": {"a100": "2"}})),
    ("bad_name", "cards", event(resources={"cards": {"a;b:1": 1}})),
    ("wrong_type", "data.resources.counters.io", event(resources={"counters": {"io": 0.5}})),
    ("wrong_type", "data.user", event(user=7)),
    ("bad_name", "data.cluster", event(cluster="")),
    ("bad_name", "id", event("a\nb")),
    ("bad_name", "id", event("x" * 257)),
    ("bad_name", "data.state", event(state="  ")),
    ("wrong_type", "data is no object", {**event(), "data": []}),
    ("naive_time", "time", {**event(), "time": "2026-11-22T04:56:43"}),
]


@pytest.mark.parametrize(("code", "says", "told"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_wrong_is_refused_by_name_and_its_neighbours_are_kept(
    code: str, says: str, told: dict[str, Any]
) -> None:
    found, message = refusal(told)
    assert found == code
    assert says in message


@pytest.mark.parametrize("told", [7, None, "usage", []])
def test_what_is_no_event_is_refused(told: object) -> None:
    assert refusal(told)[0] == "wrong_type"


def test_a_refused_event_is_known_by_its_identity_and_month() -> None:
    (rejected,) = read(event(end="2026-11-22T04:56:42+08:00")).rejected
    assert (rejected.source, rejected.event_id, rejected.month) == ("k8s:ai1", "pod-1", "2026-11")


@pytest.mark.parametrize(("form", "code"), [("json", "not_json"), ("jsonl", "not_json"), ("parquet", "not_parquet")])
def test_bytes_that_are_nothing_of_the_kind_are_one_refused_row(form: Any, code: str) -> None:  # noqa: ANN401
    collected = read_events(b'{"id": ', format=form, now=NOW)
    assert [row.code for row in collected.rejected] == [code]
    assert collected.rejected[0].raw == b'{"id": '
    assert collected.rows == 1


def test_a_broken_line_does_not_take_its_neighbours_with_it() -> None:
    collected = read_events(orjson.dumps(event("a")) + b"\n{oops\n" + orjson.dumps(event("b")), format="jsonl", now=NOW)
    assert collected.events["id"].to_list() == ["a", "b"]
    assert [(row.code, row.line) for row in collected.rejected] == [("not_json", 2)]


def test_an_empty_file_holds_nothing() -> None:
    assert read().rows == 0
    assert read_events(b"", format="jsonl", now=NOW).rows == 0


@given(st.integers(0, 99_999))
def test_thousandths_of_cards_are_read_exactly(thousandths: int) -> None:
    number = f"{thousandths // 1000}.{thousandths % 1000:03d}"
    payload = orjson.dumps(event(resources={"cards": {"a100": 8888}})).replace(b"8888", number.encode())
    cards = read_events(payload, format="json", now=NOW).events["cards"].item()
    assert cards == (f"a100:{thousandths}" if thousandths else "")
