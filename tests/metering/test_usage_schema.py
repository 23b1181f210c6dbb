"""The published schema of a usage event and its reader: what one takes, the other takes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from json import dumps, loads
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from metering.cloud_events import read_events
from metering.usage_schema import MAX_EXACT, MAX_REVISION, MAX_UNITS, json_schema
from tests.metering.usage_events import events, good_events

NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)
DRAWN = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
# Decimals as they are written: a schema's thousandths are no floats.
VALIDATOR = Draft202012Validator(loads(dumps(json_schema()), parse_float=Decimal))
# What no schema can say: days that do not exist, ends before starts, the future, and 1.0 for 1.
BEYOND_A_SCHEMA = {"bad_time", "end_before_start", "future_time", "suspended_too_long"}


def is_valid(event: object) -> bool:
    return bool(VALIDATOR.is_valid(loads(dumps(event), parse_float=Decimal)))


def refusal(event: object) -> str:
    """The code with which an event is refused; "" where it is taken."""
    rejected = read_events(dumps([event]).encode(), format="json", now=NOW).rejected
    return rejected[0].code if rejected else ""


def test_the_schema_is_one_of_its_kind() -> None:
    Draft202012Validator.check_schema(json_schema())


@DRAWN
@given(good_events())
def test_what_is_taken_is_valid(event: dict[str, Any]) -> None:
    assert refusal(event) == ""
    assert is_valid(event)


@DRAWN
@given(events())
def test_what_is_valid_is_taken_and_what_is_not_is_refused(event: dict[str, Any]) -> None:
    code = refusal(event)
    if is_valid(event):
        assert code == "" or code in BEYOND_A_SCHEMA or has_a_point_in_a_whole_number(event)
    else:
        assert code != ""


def has_a_point_in_a_whole_number(event: dict[str, Any]) -> bool:
    data = event["data"]
    values = [*data.values(), *data["resources"].values(), *data["resources"].get("counters", {}).values()]
    return any(isinstance(value, float) for value in values)


def plain(**data: Any) -> dict[str, Any]:  # noqa: ANN401
    body = {
        "cluster": "hpc1",
        "partition": "cpu",
        "account": "a",
        "user": "u",
        "state": "COMPLETED",
        "start": "2026-11-22T04:00:00Z",
        "end": "2026-11-22T05:00:00Z",
        "resources": {},
    }
    return {"specversion": "1.0", "id": "1", "source": "s", "type": "hourbook.usage.v1", "data": {**body, **data}}


@pytest.mark.parametrize(
    ("most", "told"),
    [
        (MAX_REVISION, lambda n: plain(revision=n)),
        (MAX_EXACT, lambda n: plain(time_limit_seconds=n)),
        (MAX_UNITS, lambda n: plain(resources={"cpus": n})),
        (MAX_UNITS, lambda n: plain(resources={"nodes": n})),
        (MAX_UNITS, lambda n: plain(resources={"cards": {"a100": n}})),
        (MAX_EXACT, lambda n: plain(resources={"memory_bytes": n})),
        (MAX_EXACT, lambda n: plain(resources={"counters": {"storage_byte_seconds": n, "licence:ansys": 7}})),
    ],
)
def test_a_number_is_taken_up_to_its_limit_and_not_beyond(most: int, told: Any) -> None:  # noqa: ANN401
    assert (refusal(told(most)), is_valid(told(most))) == ("", True)
    assert (refusal(told(most + 1)), is_valid(told(most + 1))) == ("number_range", False)
    assert (refusal(told(-1)), is_valid(told(-1))) == ("number_range", False)


@given(st.integers(0, 10**6), st.integers(0, 9))
def test_thousandths_of_a_card_are_taken_and_nothing_finer(thousandths: int, finer: int) -> None:
    number = Decimal(thousandths) / 1000 + Decimal(finer) / 10**5
    event = plain(resources={"cards": {"a100": "N"}})
    text = dumps(event).replace('"N"', f"{number:f}")
    rejected = read_events(text.encode(), format="json", now=NOW).rejected
    assert bool(rejected) == bool(finer)
    assert VALIDATOR.is_valid(loads(text, parse_float=Decimal)) == (not finer)


def test_a_time_limit_is_kept_with_the_event() -> None:
    read = read_events(orjson.dumps(plain(time_limit_seconds=7200, project="llm")), format="json", now=NOW)
    assert orjson.loads(read.events["evidence"].item()) == {"project": "llm", "time_limit_seconds": 7200}


@pytest.mark.parametrize("count", [100, 101])
def test_an_event_has_up_to_a_hundred_counters(count: int) -> None:
    event = plain(resources={"counters": {f"c{number}": number for number in range(count)}})
    assert (refusal(event) == "") == is_valid(event) == (count == 100)
