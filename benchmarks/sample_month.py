"""A made-up month of a large operator's usage: deterministic, heavy-tailed, any number of events.

12 clusters with 40 partitions, one SKU each; 3,000 accounts of 1,200 customers; 20,000 users, some of whom run most of
the jobs. 3% of the events are recorded twice; 1% were first reported while they ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import polars as pl

from metering.events import EVENT_SCHEMA

FIRST_DATE = date(2026, 11, 1)
DATES = 30
CLUSTERS, ACCOUNTS, USERS, CUSTOMERS = 12, 3_000, 20_000, 1_200
DUPLICATE_PER_MILLE, SUPERSEDED_PER_MILLE = 30, 10
CARD_MODELS = ("a100", "h100", "v100")
ENDED = 2**40
_DAY = 86_400
_MIX, _STEP = 0xBF58476D1CE4E5B9, 0x9E3779B97F4A7C15


def partitions_of(cluster: int) -> list[str]:
    """Return a cluster's partitions: 3 each, and a fourth on four clusters, 40 in all."""
    return ["cpu", "fat", "gpu", *(["gpu2"] if cluster % 3 == 0 else [])]


def dates() -> list[str]:
    """Return the UTC dates on which the events start."""
    return [(FIRST_DATE + timedelta(days=day)).isoformat() for day in range(DATES)]


def batches(events: int, rows_per_batch: int = 1_250_000) -> Iterator[pl.DataFrame]:
    """Make so many events as collectors hand them on, batch by batch, each of one date."""
    for day in range(DATES):
        first, end = events * day // DATES, events * (day + 1) // DATES
        parts = max(1, -(-(end - first) // rows_per_batch))
        for part in range(parts):
            size = end - first
            yield batch(day, first + size * part // parts, first + size * (part + 1) // parts)


def batch(day: int, first: int, end: int, seed: int = 0) -> pl.DataFrame:
    """Make the raw events numbered from `first` to `end`, which start on the given day of the month."""
    number = pl.int_range(first, end, dtype=pl.UInt64, eager=True).alias("number")
    told = _draw(number, 1, 1000, seed)
    # A repeat, or an earlier word, is about an event that the same batch tells of a little before.
    back = _draw(number, 2, 1000, seed) + 1
    repeats = (told < DUPLICATE_PER_MILLE + SUPERSEDED_PER_MILLE) & (number >= back + first)
    about = number.zip_with(~repeats, number - back)
    earlier = repeats & (told >= DUPLICATE_PER_MILLE)
    facts = _who(about, seed).hstack(_what(about, seed, FIRST_DATE + timedelta(days=day)))
    return _told(facts.with_columns(about, earlier.alias("earlier")), seed)


def _who(number: pl.Series, seed: int) -> pl.DataFrame:
    """Choose the user; most work in one account, on one cluster and in one or two of its partitions."""
    user = _heavy(_draw(number, 3, 10**9, seed), USERS)
    habits = _mixed(user.cast(pl.UInt64), 77)
    account = _heavy(habits % 10**9, ACCOUNTS)
    shelf = (habits // 7) % 10
    away = (_draw(number, 4, 10, seed) == 0) & (habits % 10 == 0)
    choices = pl.DataFrame({"u": user, "a": account, "shelf": shelf, "away": away, "habits": habits})
    other = pl.Series("other", _draw(number, 5, 4, seed) == 0)  # a job in four, of those who have two partitions
    choices = choices.with_columns(c=(pl.col("a") + pl.col("away").cast(pl.Int64) * 5) % CLUSTERS, other=other)
    card_user = (pl.col("shelf") >= 7) | ((pl.col("shelf") >= 4) & pl.col("other"))
    large = (pl.col("shelf") == 0) | (pl.col("shelf") == 9)
    return choices.select(
        cluster=_named("c", "c", CLUSTERS, 2),
        account=_named("a", "grp_", ACCOUNTS, 4),
        user=_named("u", "u", USERS, 5),
        partition=pl.when(~card_user & large)
        .then(pl.lit("fat"))
        .when(~card_user)
        .then(pl.lit("cpu"))
        .when(large & (pl.col("c") % 3 == 0))
        .then(pl.lit("gpu2"))
        .otherwise(pl.lit("gpu")),
        qos=pl.when(pl.col("habits") % 9 == 0).then(pl.lit("high")).otherwise(pl.lit("normal")),
    )


def _what(number: pl.Series, seed: int, day: date) -> pl.DataFrame:
    midnight = (day - date(1970, 1, 1)).days * _DAY
    start = midnight + _draw(number, 6, _DAY, seed).cast(pl.Int64)
    # Lengths double evenly from seconds to days: most jobs are short, the long ones make the hours.
    octave = _draw(number, 7, 100, seed).cast(pl.Int64)
    lengths = pl.Series(
        [4] * 8 + [16] * 15 + [64] * 20 + [256] * 25 + [1024] * 16 + [4096] * 10 + [16384] * 5 + [131072]
    )
    base = lengths.gather(octave)
    length = base + _draw(number, 8, 10**6, seed).cast(pl.Int64) * base * 3 // 10**6
    size = pl.Series([1] * 45 + [4] * 20 + [16] * 14 + [64] * 14 + [128] * 4 + [512] * 2 + [4096])
    cpus = size.gather(_draw(number, 9, 100, seed).cast(pl.Int64))
    idle = (_draw(number, 10, 100, seed) == 0).cast(pl.Int64) * length // 5
    state = pl.Series(["COMPLETED"] * 8 + ["FAILED", "CANCELLED"]).gather(_draw(number, 11, 10, seed).cast(pl.Int64))
    cards = pl.Series([1000] * 5 + [2000] * 2 + [4000, 8000, 500]).gather(_draw(number, 12, 10, seed).cast(pl.Int64))
    return pl.DataFrame(
        {"start": start, "length": length, "cpus": cpus, "idle": idle, "state": state, "thousandths": cards}
    )


def _told(facts: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Write the facts as events; an earlier word tells of the first half of the job, while it ran."""
    length = pl.when("earlier").then(pl.col("length") // 2).otherwise("length")
    text = pl.Series("text", [format(number * 2654435761 % 2**64, "016x") * 8 for number in range(4096)])
    some = (_mixed(facts["number"], 13) % 4096).cast(pl.Int64)
    filler = text.gather(some).str.head(10 + some % 110)
    gpu = pl.col("partition").str.starts_with("gpu")
    model = pl.Series([*CARD_MODELS]).gather(facts["cluster"].str.slice(1).cast(pl.Int64) % len(CARD_MODELS))
    return (
        facts.with_columns(filler=filler, model=model)
        .select(
            source="slurm:" + pl.col("cluster"),
            id=pl.format("{}:{}", pl.col("number") + 10**9 * (1 + seed), "start"),
            revision=length + pl.when("earlier").then(0).otherwise(ENDED),
            revision_derived=pl.lit(value=True),
            cluster="cluster",
            partition="partition",
            qos="qos",
            account="account",
            user="user",
            job=pl.col("filler").str.slice(0, 8),
            state=pl.when("earlier").then(pl.lit("RUNNING")).otherwise("state"),
            start_second="start",
            end_second=pl.col("start") + length,
            ended=~pl.col("earlier"),
            suspended_seconds=pl.when("earlier").then(0).otherwise("idle"),
            cpus="cpus",
            nodes=(pl.col("cpus") + 63) // 64,
            memory_bytes=pl.col("cpus") * 2**31,
            cards=pl.when(gpu).then(pl.format("{}:{}", "model", "thousandths")).otherwise(pl.lit("")),
            counters=pl.lit(""),
            evidence='{"text":"' + pl.col("filler") + '"}',
        )
        .select(list(EVENT_SCHEMA))
    )


def _named(column: str, prefix: str, count: int, digits: int) -> pl.Expr:
    names = pl.Series([f"{prefix}{number:0{digits}d}" for number in range(count)])
    return pl.lit(names).gather(pl.col(column))


def _heavy(even: pl.Series, choices: int) -> pl.Series:
    """Choose by a rank's weight 1 / (rank + 10); `even` is spread evenly below a thousand million."""
    weights = pl.Series([10**12 // (rank + 10) for rank in range(choices)]).cum_sum()
    return weights.search_sorted(even.cast(pl.Int64) * (weights[-1] // 10**9), side="right").cast(pl.Int64)


def _draw(number: pl.Series, stream: int, below: int, seed: int) -> pl.Series:
    return _mixed(number, stream + 100 * seed) % below


def _mixed(number: pl.Series, stream: int) -> pl.Series:
    """Scramble numbers, as splitmix64 does, the same way on every machine."""
    mixed = number + pl.Series([stream * _STEP % 2**64], dtype=pl.UInt64)
    for factor in (_MIX, _STEP):
        mixed = (mixed ^ (mixed // 2**30)) * pl.Series([factor], dtype=pl.UInt64)
    return mixed ^ (mixed // 2**31)
