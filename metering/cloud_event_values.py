"""The values of CloudEvents, checked column by column: times, spans and what follows from them."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import polars as pl

from metering.events import EVENT_SCHEMA
from metering.usage_schema import INSTANT_PATTERN, SAID_PATTERN

# An event's values as they stand, its form checked; times are text, and NULL is what was not said.
RAW_SCHEMA = pl.Schema(
    {
        **dict.fromkeys(("source", "id", "cluster", "partition", "account", "user", "state"), pl.String),
        **dict.fromkeys(("qos", "job", "project", "subject", "traceparent"), pl.String),
        **dict.fromkeys(("revision", "suspended_seconds", "cpus", "nodes", "memory_bytes"), pl.Int64),
        "time_limit_seconds": pl.Int64,
        **dict.fromkeys(("start", "end", "as_of", "time"), pl.String),
        **dict.fromkeys(("cards", "counters"), pl.String),
    }
)
# What the source says besides, kept for whoever follows a bill back to it.
EVIDENCE = ("time", "subject", "traceparent", "project", "time_limit_seconds")

_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-2][0-9]:[0-5][0-9]:[0-5][0-9]"
_FRACTIONAL = _DATE + r"\.[0-9]*[1-9][0-9]*([Zz]|[+-][0-9]{2}:[0-9]{2})?$"
_NAIVE = _DATE + r"(\.[0-9]*)?$"
TIMES = ("start", "end", "as_of")
MANY = 100
_PLAIN_STATE = re.compile(r"[A-Z_]+\Z")
# There is nothing to gain from planning for a few columns and a thousand rows.
_AS_WRITTEN = pl.QueryOptFlags.none()

WHY_SCHEMA = pl.Schema({"row": pl.Int64, "code": pl.String, "message": pl.String, "month": pl.String})
Problem = tuple[pl.Expr, str, pl.Expr]  # where it is, its code, and what to tell the source


class Judged(NamedTuple):
    """Events whose values were checked."""

    events: pl.DataFrame  # EVENT_SCHEMA: all that were given
    wrong: pl.Series  # which of them cannot be used
    why: pl.DataFrame  # row, code, message and month of those


def judge(raw: pl.DataFrame, now_second: int) -> Judged:
    """Check values column by column; only where something is wrong is it looked into what."""
    unsaid = frozenset(name for name in raw.columns if raw[name].null_count() == raw.height)
    read = raw.lazy().with_columns(_read(unsaid, plain_states=_are_plain(raw["state"])))
    rows = read.with_columns(*_following(unsaid), _evidence(raw)).collect(optimizations=_AS_WRITTEN)
    wrong = rows["wrong"]
    if _latest(rows) > now_second:
        wrong |= (rows["start_second"] > now_second) | (rows["end_second"] > now_second).fill_null(value=False)
    why = WHY_SCHEMA.to_frame()
    if wrong.any():
        why = _named(rows.with_row_index("row").filter(wrong), _problems(now_second))
    return Judged(rows[EVENT_SCHEMA.names()], wrong, why)


def _latest(rows: pl.DataFrame) -> int:
    found = [rows[name].max() for name in ("start_second", "end_second")]
    return max((second for second in found if isinstance(second, int)), default=0)


def _are_plain(states: pl.Series) -> bool:
    """Tell whether states are single words in capitals, as they are kept; there are few different ones."""
    words = states.unique()
    return len(words) < MANY and all(_PLAIN_STATE.match(word) for word in words)


@cache
def _read(unsaid: frozenset[str], *, plain_states: bool) -> list[pl.Expr]:
    """Say how the values are read; what was not said is nothing."""
    zeros = dict.fromkeys(("revision", "suspended_seconds", "cpus", "nodes", "memory_bytes"), 0)
    empty = {**dict.fromkeys(("qos", "job", "cards", "counters"), ""), **zeros}
    filled = [
        pl.lit(value, dtype=RAW_SCHEMA[name]).alias(name) if name in unsaid else pl.col(name).fill_null(value)
        for name, value in empty.items()
    ]
    times = [_second(name, unsaid).alias(f"{name}_at") for name in TIMES]
    words = [] if plain_states else [pl.col("state").str.to_uppercase().str.extract(r"^\s*(\S+)").fill_null("")]
    return [*filled, *times, *words]


def _second(name: str, unsaid: frozenset[str]) -> pl.Expr:
    """Read RFC 3339 instants as seconds since 1970; NULL for anything else, fractions included."""
    if name in unsaid:
        return pl.lit(None, dtype=pl.Int64)
    plain = pl.when(pl.col(name).str.contains(INSTANT_PATTERN)).then(pl.col(name))
    return plain.str.to_datetime("%+", time_unit="us", strict=False).dt.epoch("s")


@cache
def _following(unsaid: frozenset[str]) -> list[pl.Expr]:
    """Say what follows from the values, and whether any of what `_problems` names is wrong, the future apart."""
    start, end = pl.col("start_at"), pl.coalesce("end_at", "as_of_at")
    wrong = (
        start.is_null()
        | (start < 0)
        | end.is_null()
        | (pl.col("end").is_null() == pl.col("as_of").is_null())
        | (end - start < pl.col("suspended_seconds"))
        | (pl.col("state") == "")
    )
    if "time" not in unsaid:
        wrong |= ~pl.col("time").str.contains(SAID_PATTERN).fill_null(value=True)
    return [
        start.alias("start_second"),
        end.alias("end_second"),
        pl.col("end").is_not_null().alias("ended"),
        pl.lit(value=False).alias("revision_derived"),
        wrong.fill_null(value=True).alias("wrong"),
    ]


def _evidence(rows: pl.DataFrame) -> pl.Expr:
    """Write what the source said besides as a JSON object, without what it did not say."""
    said = [name for name in EVIDENCE if rows[name].null_count() < rows.height]
    if not said:
        return pl.lit("{}").alias("evidence")
    # A quote inside a text has a backslash before it, so nothing that a source wrote is taken for what is taken out.
    text = pl.struct(said).struct.json_encode()
    for name in said[1:]:
        if rows[name].null_count():
            text = text.str.replace(f',"{name}":null', "", literal=True)
    if rows[said[0]].null_count():
        text = text.str.replace(rf'^\{{"{said[0]}":null,?', "{")
    return text.alias("evidence")


def _named(rows: pl.DataFrame, problems: list[Problem]) -> pl.DataFrame:
    """Say of each row what is wrong with it."""
    code, message = pl.lit(""), pl.lit("")
    # The first problem found is the one that is told, so the last in the list is asked first.
    for wrong, name, text in reversed(problems):
        holds = wrong.fill_null(value=False)
        code = pl.when(holds).then(pl.lit(name)).otherwise(code)
        message = pl.when(holds).then(text).otherwise(message)
    month = pl.from_epoch("start_at", time_unit="s").dt.strftime("%Y-%m").fill_null("")
    return rows.select(pl.col("row").cast(pl.Int64), code=code, message=message, month=month)


def _problems(now_second: int) -> list[Problem]:
    """List what can be wrong with values."""
    start, end = pl.col("start_at"), pl.col("end_second")
    return [
        *(problem for name in TIMES for problem in _time_problems(name)),
        *_said_problems(),
        (
            pl.col("end").is_null() & pl.col("as_of").is_null(),
            "missing_field",
            pl.lit("data has neither end nor as_of; a running job states until when it is known to run"),
        ),
        (
            pl.col("end").is_not_null() & pl.col("as_of").is_not_null(),
            "contradiction",
            pl.lit("data has an end and as_of; only a running job states as_of"),
        ),
        (end < start, "end_before_start", pl.lit("it ends before it starts")),
        (
            (start > now_second) | (end > now_second),
            "future_time",
            pl.lit("it reaches into the future; check the clock of the source"),
        ),
        (start < 0, "bad_time", _told("data.start ", pl.col("start"), " lies before 1970")),
        (
            pl.col("suspended_seconds") > end - start,
            "suspended_too_long",
            pl.lit("it was suspended for longer than it lasted"),
        ),
        (pl.col("state") == "", "bad_name", pl.lit("data.state is empty")),
    ]


def _told(before: str, text: pl.Expr, after: str) -> pl.Expr:
    """Put what was said into a message. polars' own `format` panics where only some rows of a column are left."""
    return pl.lit(before) + text + pl.lit(after)


def _time_problems(name: str) -> list[Problem]:
    text, unread = pl.col(name), pl.col(name).is_not_null() & pl.col(f"{name}_at").is_null()
    return [
        (
            unread & text.str.contains(_FRACTIONAL),
            "fractional_seconds",
            _told(f"data.{name} ", text, " has a fraction of a second; usage is counted in whole ones"),
        ),
        (
            unread & text.str.contains(_NAIVE),
            "naive_time",
            _told(f"data.{name} ", text, " has no zone; write it as 2026-11-22T04:00:00+08:00"),
        ),
        (
            unread,
            "bad_time",
            _told(f"data.{name} ", text, " is no instant; write it as 2026-11-22T04:00:00+08:00"),
        ),
    ]


def _said_problems() -> list[Problem]:
    text = pl.col("time")
    return [
        (
            text.str.contains(_NAIVE),
            "naive_time",
            _told("time ", text, " has no zone; write it as 2026-11-22T04:00:00+08:00"),
        ),
        (
            ~text.str.contains(SAID_PATTERN),
            "bad_time",
            _told("time ", text, " is no instant; write it as 2026-11-22T04:00:00+08:00"),
        ),
    ]
