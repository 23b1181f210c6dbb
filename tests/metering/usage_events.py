"""Usage events to draw: most are right, some are wrong in one place, and each may be written in several ways."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import strategies as st

from metering.usage_schema import KEY_PATTERN, NAME_PATTERN

NAMES = st.one_of(
    st.sampled_from(["hpc1", "a b", "Ω:x", "用户", 'say "x"', "back\\slash", "null", "true", ": null", "e" * 256]),
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12).filter(
        re.compile(NAME_PATTERN).fullmatch
    ),
)
ODD_TEXTS = [
    "",
    " ",
    "\n",
    "a\x00b",
    "e" * 257,
    "u\u200bser",
    "\ue000",
    "\u3000",
    "a\u00a0b",
    7,
    None,
    True,
    [],
    {},
    1.5,
]
ODD_COUNTS = [-1, 1.0, True, "4", None, 2**31, 2**31 + 1, 2**50, 2**53, 2**64, 10**40, 1e300, [], {}]
TIMES = ["2026-11-22T05:00:00+08:00", "2026-11-22t05:00:00.000z", "2026-11-21T21:00:00Z", "2026-11-22T05:00:00-00:00"]
ODD_TIMES = [
    "2026-11-22T05:00:00",
    "2026-11-22T05:00:00.5Z",
    "2026-11-31T05:00:00Z",
    "2026-13-01T05:00:00Z",
    "2026-11-22T24:00:00Z",
    "2026-11-22T05:00:60Z",
    "2026-11-22T05:00:00+24:00",
    "2026-11-22 05:00:00Z",
    "1969-12-31T23:59:59Z",
    "2027-01-01T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "yesterday",
    "",
    7,
    None,
]
CARDS = [0, 1, 2, 0.5, 0.333, 2.0, 8]
ODD_CARDS = [-1, -0.0, 0.3333, "2", True, None, 2**31, 2**31 + 1, 1e300, 1e-9, [], 1e3]
PLACES = {
    "data": ("cluster", "partition", "account", "user", "state", "qos", "job", "project"),
    "count": ("revision", "suspended_seconds", "time_limit_seconds"),
    "amount": ("cpus", "nodes", "memory_bytes"),
    "time": ("start", "end", "as_of"),
}


@st.composite
def good_events(draw: st.DrawFn) -> dict[str, Any]:
    """An event of which nothing is wrong."""
    data: dict[str, Any] = {name: draw(NAMES) for name in ("cluster", "partition", "account", "user")}
    data["state"] = draw(st.sampled_from(["COMPLETED", "completed", " Cancelled by 7", "OUT_OF_MEMORY", "läuft"]))
    data["start"] = "2026-11-22T04:00:00+08:00"
    data[draw(st.sampled_from(["end", "as_of"]))] = draw(st.sampled_from(TIMES))
    data |= draw(st.fixed_dictionaries({}, optional={"qos": st.just(""), "job": NAMES, "project": NAMES}))
    counts = {"revision": st.integers(0, 2**50 - 1), "suspended_seconds": st.just(7), "time_limit_seconds": st.just(60)}
    data |= draw(st.fixed_dictionaries({}, optional=counts))
    keys = st.text(
        st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters=";"), min_size=1, max_size=5
    ).filter(re.compile(KEY_PATTERN).fullmatch)
    amounts: dict[str, st.SearchStrategy[Any]] = {name: st.integers(0, 2**31) for name in PLACES["amount"]}
    amounts["cards"] = st.dictionaries(keys, st.sampled_from(CARDS), max_size=3)
    amounts["counters"] = st.dictionaries(keys, st.integers(0, 2**53 - 1), max_size=3)
    data["resources"] = draw(st.fixed_dictionaries({}, optional=amounts))
    event = {"specversion": "1.0", "id": draw(NAMES), "source": draw(NAMES), "type": "hourbook.usage.v1", "data": data}
    said = {"time": st.sampled_from([*TIMES, "2026-11-22T05:00:00.25Z", None]), "subject": NAMES, "traceparent": NAMES}
    return event | draw(st.fixed_dictionaries({}, optional=said))


@st.composite
def events(draw: st.DrawFn) -> Any:  # noqa: ANN401
    """An event that may be wrong in one place."""
    event = draw(good_events())
    data, resources = event["data"], event["data"]["resources"]
    fault = draw(
        st.sampled_from(["none", "none", "envelope", "data", "count", "amount", "time", "key", "gone", "cards"])
    )
    if fault == "envelope":
        name = draw(st.sampled_from(["id", "source", "type", "specversion", "time", "subject", "data", "dataschema"]))
        event[name] = draw(st.sampled_from([*ODD_TEXTS, *ODD_TIMES, "x" * 1025]))
    elif fault in {"data", "count"}:
        data[draw(st.sampled_from(PLACES[fault]))] = draw(st.sampled_from(ODD_TEXTS if fault == "data" else ODD_COUNTS))
    elif fault == "amount":
        resources[draw(st.sampled_from(PLACES[fault]))] = draw(st.sampled_from(ODD_COUNTS))
    elif fault == "time":
        data[draw(st.sampled_from(PLACES[fault]))] = draw(st.sampled_from(ODD_TIMES))
    elif fault == "key":
        draw(st.sampled_from([event, data, resources]))[draw(st.sampled_from(["x", "gpus", "start "]))] = 1
    elif fault == "gone":
        part = draw(st.sampled_from([event, data]))
        del part[draw(st.sampled_from(sorted(part)))]
    elif fault == "cards":
        kind = draw(st.sampled_from(["cards", "counters"]))
        name = draw(st.sampled_from(["a100", "", "a;b:1", "x" * 257, "a\nb"]))
        resources[kind] = draw(
            st.one_of(st.just({name: draw(st.sampled_from(ODD_CARDS))}), st.sampled_from(ODD_COUNTS))
        )
    return event


@st.composite
def written(draw: st.DrawFn, event: Any) -> bytes:  # noqa: ANN401
    """An event as JSON, in one of the ways it may be written, and sometimes with something said twice."""
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\r:  ")]))
    text = json.dumps(event, ensure_ascii=draw(st.booleans()), separators=separators)
    twice = draw(st.sampled_from(["", "", "", '"id":"x",', '"end":null,', '"user":"null","user":"u",', '"cpus":1,']))
    if twice:
        at = [number for number, sign in enumerate(text) if sign == "{"]
        place = draw(st.sampled_from(at)) + 1
        text = text[:place] + (twice if text[place:].lstrip()[:1] != "}" else twice[:-1]) + text[place:]
    if draw(st.integers(0, 9)) == 0:
        text = text.replace("hpc1", draw(st.sampled_from([r"\ud800", r"\u003a", r"h\u0070c1", r"\/", "\x01", "\x7f"])))
    return text.encode()


@st.composite
def batches(draw: st.DrawFn) -> list[bytes]:
    """The events of a body, each as JSON."""
    return [draw(written(draw(events()))) for _ in range(draw(st.integers(1, 6)))]
