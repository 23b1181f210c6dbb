"""What an attempt held, read from the texts of a log: each different text once, by the card rules of its day."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import polars as pl

from base.period import day_start
from metering.clusters import Cluster
from metering.collectors.common import MOST_HELD, MOST_MEMORY, Outcome
from metering.collectors.tres import Allocation, GresRules, TresError, gres_rules
from metering.events import CARD_DENOMINATOR

# Reads a row's texts, in the order of the columns, by the rules in force; raises a TresError where it cannot.
Reading = Callable[[Sequence[str], GresRules], Allocation]

_MODEL = re.compile(r"[a-z0-9][a-z0-9._+@-]*", re.ASCII)
_READINGS: Mapping[str, pl.DataType] = {
    "held_cpus": pl.Int64(),
    "held_nodes": pl.Int64(),
    "held_memory": pl.Int64(),
    "cards": pl.String(),
    "held_code": pl.String(),
    "detail": pl.String(),
}


def with_held(rows: pl.DataFrame, columns: Sequence[str], read: Reading, cluster: Cluster) -> pl.DataFrame:
    """Add what the texts of the columns say that a row held: CPUs, nodes, memory, cards, or why they cannot be read."""
    days = sorted({card.effective_from for card in cluster.cards})
    borders = [int(day_start(day, cluster.zone or ZoneInfo("UTC")).timestamp()) for day in days]
    started = ((pl.col("start_second") >= border).fill_null(value=False).cast(pl.Int64) for border in borders)
    regime = pl.sum_horizontal(pl.lit(0, pl.Int64), *started).alias("regime")
    rows = rows.with_columns(regime, *(pl.col(name).fill_null("") for name in columns))
    rules = [gres_rules(cluster, day) for day in (date.min, *days)]
    keys = ["regime", *columns]
    known = rows.select(keys).unique()
    readings = [(regime, *texts, *_read(texts, rules[regime], read)) for regime, *texts in known.iter_rows()]
    schema = pl.Schema({"regime": pl.Int64(), **dict.fromkeys(columns, pl.String()), **_READINGS})
    return rows.join(pl.DataFrame(readings, schema=schema, orient="row"), on=keys, how="left", maintain_order="left")


def _read(texts: Sequence[str], rules: GresRules, read: Reading) -> tuple[str | int | None, ...]:
    try:
        held = _countable(read(texts, rules))
    except TresError as error:
        return None, None, None, "", error.code, str(error)
    return held.cpus, held.nodes, held.memory_bytes, held.cards, None, None


def _countable(held: Allocation) -> Allocation:
    """Return what was held, or refuse numbers that no attempt can reach."""
    cards = sum(int(part.rpartition(":")[2]) for part in held.cards.split(";") if part)
    # Kubernetes counts CPUs in thousandths here, as everybody counts cards.
    most = MOST_HELD * CARD_DENOMINATOR
    if max(held.cpus or 0, held.nodes or 0, cards) > most or (held.memory_bytes or 0) > MOST_MEMORY:
        raise TresError("number_range", f"no attempt holds {held}; look it up in the scheduler")
    return held


def allocation_problems(cluster: Cluster, partition: str = "partition") -> Sequence[Outcome]:
    """Return what may be wrong with what a row held: unreadable, no CPUs, or no card where there must be one."""
    held = pl.col("end_second") > pl.col("start_second")
    forced = pl.col(partition).is_in(list(cluster.card_partitions))
    return [
        (pl.col("held_code").is_not_null(), pl.col("held_code")),
        (pl.col("held_cpus").is_null() & held, "cpus_missing"),
        (forced & (pl.col("cards") == ""), "cards_missing"),
    ]


HELD_MESSAGES = {
    "cpus_missing": "job {job} ran, but its row does not say how many CPUs it held; look it up in the scheduler",
    "cards_missing": "job {job} ran in card partition {partition}, but its row names no card; "
    "have the scheduler account for them",
}


def as_columns() -> list[pl.Expr]:
    """Return what was held under the names of the event's columns; what a log does not say is 0."""
    names = {"cpus": "held_cpus", "nodes": "held_nodes", "memory_bytes": "held_memory"}
    return [pl.col(held).fill_null(0).alias(name) for name, held in names.items()]


def card_gres(name: str, rules: GresRules) -> str:
    """Return the generic resource that a log calls `gpu`, `gpus`, `ngpus` or `nvidia.com/gpu`; "" if it is no card."""
    bare = name.lower().rpartition("/")[2]
    plural = bare.removesuffix("s")
    candidates = (name, bare, plural, bare.removeprefix("n"), plural.removeprefix("n"))
    return next((candidate for candidate in candidates if candidate in rules.cards), "")


def model_of(kind: str, gres: str, rules: GresRules) -> str:
    """Return the model of cards that the log calls `kind`; of a kind not told, the generic resource's own."""
    if not kind:
        return rules.cards[gres].model
    model = rules.models.get(kind.lower(), kind.lower())
    if not _MODEL.fullmatch(model):
        raise TresError(
            "bad_cards", f"card type {kind!r} cannot be a model's name; add it to the cluster's card_models"
        )
    return model


def thousandths(count: Decimal, gres: str, rules: GresRules) -> int:
    """Return units of a generic resource as thousandths of a card, or refuse what is no whole number of them."""
    exact = Fraction(count) * rules.cards[gres].thousandths
    if exact.denominator != 1:
        raise TresError("bad_cards", f"{count} × {gres} is no whole number of thousandths of a card")
    return int(exact)


def cards_text(models: Mapping[str, int]) -> str:
    """Write thousandths of cards by model as an event's `cards`."""
    return ";".join(f"{model}:{count}" for model, count in sorted(models.items()) if count)


def agreed(statements: Mapping[str, Counter[str]]) -> Counter[str]:
    """Return the cards that all statements of a row agree on; different ones are refused, none is picked."""
    made = {where: cards for where, cards in statements.items() if cards}
    if not made:
        return Counter()
    first_where, first = next(iter(made.items()))
    for where, cards in made.items():
        if sum(cards.values()) != sum(first.values()):
            raise TresError(
                "cards_contradict",
                f"{first_where} says {sum(first.values())}, {where} says {sum(cards.values())} thousandths of cards; "
                "find out which is true",
            )
    # Of equal numbers the statement that knows the models best is taken.
    return max(made.values(), key=lambda cards: (len(cards), "unknown" not in cards))
