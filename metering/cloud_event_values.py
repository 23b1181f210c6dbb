"""The values of CloudEvents, checked column by column: times, spans and what follows from them."""

from __future__ import annotations

import polars as pl

from metering.events import EVENT_SCHEMA

# An event's values as they stand, its form checked; times are text, and NULL where there are none.
RAW_SCHEMA = pl.Schema(
    {
        "position": pl.Int64,
        **dict.fromkeys(("source", "id", "cluster", "partition", "account", "user", "state"), pl.String),
        **dict.fromkeys(("qos", "job", "project"), pl.String),
        **dict.fromkeys(("revision", "suspended_seconds", "cpus", "nodes", "memory_bytes"), pl.Int64),
        **dict.fromkeys(("start", "end", "as_of", "time"), pl.String),
        **dict.fromkeys(("cards", "counters", "evidence"), pl.String),
    }
)
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-2][0-9]:[0-5][0-9]:[0-5][0-9]"
_INSTANT = _DATE + r"(\.0+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
_FRACTIONAL = _DATE + r"\.[0-9]*[1-9][0-9]*([Zz]|[+-][0-9]{2}:[0-9]{2})?$"
_NAIVE = _DATE + r"(\.0+)?$"


def judge(raw: pl.DataFrame, now_second: int) -> pl.DataFrame:
    """Return the event columns with `code`, `message` and `month`; an empty code means that it can be used."""
    seconds = {f"{name}_at": _second(pl.col(name)) for name in ("start", "end", "as_of")}
    rows = raw.with_columns(**seconds).with_columns(
        start_second=pl.col("start_at"),
        end_second=pl.coalesce("end_at", "as_of_at"),
        ended=pl.col("end").is_not_null(),
        revision_derived=pl.lit(value=False),
        state=pl.col("state").str.to_uppercase().str.extract(r"^\s*(\S+)").fill_null(""),
        month=pl.from_epoch("start_at", time_unit="s").dt.strftime("%Y-%m").fill_null(""),
    )
    code, message = pl.lit(""), pl.lit("")
    # The first problem found is the one that is told, so the last in the list is asked first.
    for wrong, name, text in reversed(_problems(now_second)):
        holds = wrong.fill_null(value=False)
        code = pl.when(holds).then(pl.lit(name)).otherwise(code)
        message = pl.when(holds).then(text).otherwise(message)
    return rows.with_columns(code=code, message=message).select(*EVENT_SCHEMA, "position", "code", "message", "month")


def _second(text: pl.Expr) -> pl.Expr:
    """Read an RFC 3339 instant as seconds since 1970; NULL for anything else, fractions included."""
    plain = pl.when(text.str.contains(_INSTANT)).then(text.str.to_uppercase())
    zoned = plain.str.replace(r"\.0+", "").str.replace(r"Z$", "+00:00")
    return zoned.str.to_datetime("%Y-%m-%dT%H:%M:%S%:z", time_unit="us", strict=False).dt.epoch("s")


def _problems(now_second: int) -> list[tuple[pl.Expr, str, pl.Expr]]:
    """List what can be wrong with values: where it is, its code, and what to tell the source."""
    start, end = pl.col("start_at"), pl.col("end_second")
    problems = [problem for name in ("start", "end", "as_of") for problem in _time_problems(name)]
    problems += [
        (
            pl.col("time").str.contains(_NAIVE),
            "naive_time",
            pl.format("time {} has no zone; write it as 2026-11-22T04:00:00+08:00", "time"),
        ),
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
            pl.max_horizontal(start, end) > now_second,
            "future_time",
            pl.lit("it reaches into the future; check the clock of the source"),
        ),
        (start < 0, "bad_time", pl.format("data.start {} lies before 1970", "start")),
        (
            pl.col("suspended_seconds") > end - start,
            "suspended_too_long",
            pl.lit("it was suspended for longer than it lasted"),
        ),
        (pl.col("state") == "", "bad_name", pl.lit("data.state is empty")),
    ]
    return problems


def _time_problems(name: str) -> list[tuple[pl.Expr, str, pl.Expr]]:
    text = pl.col(name)
    return [
        (
            text.str.contains(_FRACTIONAL),
            "fractional_seconds",
            pl.format("data." + name + " {} has a fraction of a second; usage is counted in whole ones", text),
        ),
        (
            text.str.contains(_NAIVE),
            "naive_time",
            pl.format("data." + name + " {} has no zone; write it as 2026-11-22T04:00:00+08:00", text),
        ),
        (
            text.is_not_null() & pl.col(f"{name}_at").is_null(),
            "bad_time",
            pl.format("data." + name + " {} is no instant; write it as 2026-11-22T04:00:00+08:00", text),
        ),
    ]
