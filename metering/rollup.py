"""The rollup: events cut at the plan's instants and counted as integers, knowing no customer, SKU or price.

A span's quantities are CPU-, node-, wall- and card-seconds (cards in thousandths), the plan's measures, and named
counters. `jobs` counts the attempts that ended in the span, and stands on rows of the resource `wall` alone, so that a
sum over any rows counts each attempt once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from base.frames import OVERFLOW_GUARD, guard_sum
from metering.cuts import cut_seconds, cut_totals, pieces
from metering.identity import winners
from metering.plan import Measure, RollupPlan

ROLLUP_SCHEMA = pl.Schema(
    {
        "start_date": pl.String(),  # partition of the events it was counted from
        "span_start": pl.Datetime("us", "UTC"),
        "span_end": pl.Datetime("us", "UTC"),  # exclusive; the next cut instant
        "cluster": pl.String(),
        "partition": pl.String(),
        "qos": pl.String(),
        "account": pl.String(),  # the scheduler's
        "user": pl.String(),
        "resource": pl.String(),  # cpu node wall card:<model> measure:<name> counter:<name>
        "quantity": pl.Int64(),  # seconds of it; cards: thousandths × seconds; counters: their total
        "jobs": pl.Int64(),
    }
)
WHO = ("start_date", "cluster", "partition", "qos", "account", "user")
# While it is counted, who used something is one number: grouping and sorting text would cost several times as much.
_GROUP = ("who", "span")
_LINEAR = {"cpu": ("cpus", "active_seconds"), "node": ("nodes", "seconds"), "wall": (None, "seconds")}


def roll_up(events: pl.DataFrame, plan: RollupPlan) -> pl.DataFrame:
    """Count the usage of lake rows by span, account and resource, each event once, by its winning row."""
    attempts = winners(events).filter(_holds_something())
    if attempts.is_empty():
        return ROLLUP_SCHEMA.to_frame()
    _refuse_reversed(attempts)
    first, last = attempts["start_second"].min(), attempts["end_second"].max()
    assert isinstance(first, int)  # noqa: S101 - not empty
    assert isinstance(last, int)  # noqa: S101
    cuts = cut_seconds(plan, first, last)
    names = WhoNames.of(attempts)
    attempts = attempts.with_columns(who=names.numbers)
    cut = pieces(attempts, cuts)
    counted = pl.concat([_linear(cut, plan), _cards(cut), _counters(attempts, cuts)])
    return _with_spans(_in_order(counted, names), cuts, names)


def combine(rollups: list[pl.DataFrame]) -> pl.DataFrame:
    """Put the rollups of several partitions together, by date; each row still says which partition it is from."""
    # Each is in order already, and the date is what orders first.
    filled = sorted((rollup for rollup in rollups if rollup.height), key=lambda rollup: rollup["start_date"][0])
    return pl.concat([ROLLUP_SCHEMA.to_frame(), *filled])


@dataclass(frozen=True)
class WhoNames:
    """Who used something, by number: numbers have the order of the names they stand for."""

    rows: pl.DataFrame  # WHO, one row per number, sorted
    numbers: pl.Series  # of each row of the events

    @classmethod
    def of(cls, events: pl.DataFrame) -> WhoNames:
        """Number the combinations of date, cluster, partition, QOS, account and user that occur."""
        names = [events[column].unique().sort() for column in WHO]
        if math.prod(map(len, names)) >= OVERFLOW_GUARD:
            raise OverflowError("accounts, users and partitions of one date are too many to be numbered")
        code = pl.zeros(events.height, dtype=pl.Int64, eager=True)
        for column, known in zip(WHO, names, strict=True):
            code = code * len(known) + events[column].cast(pl.Enum(known)).to_physical().cast(pl.Int64)
        distinct = code.unique().sort()
        numbers = distinct.search_sorted(code).cast(pl.Int64)
        columns = {}
        for column, known in zip(reversed(WHO), reversed(names), strict=True):
            columns[column] = known.gather(distinct % len(known))
            distinct = distinct // len(known)
        return cls(pl.DataFrame(columns).select(WHO), numbers)


def _holds_something() -> pl.Expr:
    """Leave out retractions: an event that holds nothing at all is neither usage nor a job."""
    numbers = pl.max_horizontal("cpus", "nodes", "memory_bytes") > 0
    return numbers | (pl.col("cards") != "") | (pl.col("counters") != "")


def _refuse_reversed(attempts: pl.DataFrame) -> None:
    wrong = attempts.filter(pl.col("end_second") < pl.col("start_second"))
    if not wrong.is_empty():
        raise ValueError(
            f"event {wrong['id'][0]!r} of {wrong['source'][0]!r} ends before it starts; it was not checked"
        )


def _linear(cut: pl.DataFrame, plan: RollupPlan) -> pl.DataFrame:
    """Count what is an allocation times seconds (CPUs, nodes, wall time, the plan's measures), and ended jobs."""
    _guard_products(cut)
    columns = {name: _quantity(name) for name in _LINEAR}
    columns |= {f"measure:{measure.name}": _measure(measure) for measure in plan.measures}
    quantities = cut.select(*_GROUP, "closes", **columns)
    guard_sum(quantities, *columns)
    sums = quantities.group_by(_GROUP).agg(pl.col(list(columns)).sum(), pl.col("closes").sum())
    long = sums.unpivot(index=[*_GROUP, "closes"], on=list(columns), variable_name="resource", value_name="quantity")
    jobs = pl.when(pl.col("resource") == "wall").then(pl.col("closes").cast(pl.Int64)).otherwise(0)
    rows = long.select(*_GROUP, "resource", "quantity", jobs=jobs)
    return rows.filter((pl.col("quantity") > 0) | (pl.col("jobs") > 0))


def _guard_products(cut: pl.DataFrame) -> None:
    longest = cut["seconds"].max()
    for column in ("cpus", "nodes"):
        largest = cut[column].max()
        if isinstance(longest, int) and isinstance(largest, int) and longest * largest >= OVERFLOW_GUARD:
            raise OverflowError(f"{column}: {largest} held for {longest} s is beyond what can be counted")


def _quantity(name: str) -> pl.Expr:
    allocation, seconds = _LINEAR[name]
    return pl.col(seconds) if allocation is None else pl.col(allocation) * pl.col(seconds)


def _measure(measure: Measure) -> pl.Expr:
    holds = {
        "always": pl.lit(value=True),
        "cards": pl.col("cards") != "",
        "no_cards": pl.col("cards") == "",
    }[measure.when]
    for column, scope in (("cluster", measure.clusters), ("partition", measure.partitions)):
        if scope:
            holds &= pl.col(column).is_in(list(scope))
    return pl.when(holds).then(_quantity(measure.quantity)).otherwise(0)


def _cards(cut: pl.DataFrame) -> pl.DataFrame:
    """Count card-seconds in thousandths by model; equal allocations are summed before they are taken apart."""
    held = cut.filter(pl.col("cards") != "")
    guard_sum(held, "seconds")
    held = held.group_by(*_GROUP, "cards").agg(pl.col("seconds").sum())
    models = _named(held, "cards").with_columns(quantity=pl.col("number").cast(pl.Int128) * pl.col("seconds"))
    return _summed(models, "card:")


def _counters(attempts: pl.DataFrame, cuts: pl.Series) -> pl.DataFrame:
    """Count named totals, spread over the spans in proportion to time."""
    named = _named(attempts.filter(pl.col("counters") != ""), "counters").with_columns(total=pl.col("number"))
    spread = cut_totals(named, cuts).with_columns(quantity=pl.col("total").cast(pl.Int128))
    return _summed(spread, "counter:")


def _named(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Take `a100:2000;v100:1000` apart: one row per name with its `name` and `number`."""
    rows = frame.with_columns(pl.col(column).str.split(";")).explode(column, empty_as_null=False)
    # The last colon parts name and number: a model's name may hold one.
    number = pl.col(column).str.extract(r":([0-9]+)$").cast(pl.Int64)
    return rows.with_columns(name=pl.col(column).str.replace(r":[0-9]+$", ""), number=number)


def _summed(rows: pl.DataFrame, prefix: str) -> pl.DataFrame:
    # In Int128, and cast back with a check: a total that Int64 cannot hold raises.
    sums = rows.group_by(*_GROUP, "name").agg(pl.col("quantity").sum()).filter(pl.col("quantity") > 0)
    resource = pl.lit(prefix) + pl.col("name")
    return sums.select(*_GROUP, resource=resource, quantity=pl.col("quantity").cast(pl.Int64), jobs=pl.lit(0, pl.Int64))


def _in_order(rows: pl.DataFrame, names: WhoNames) -> pl.DataFrame:
    """Sort by date, span, who and resource: the order of the schema's columns."""
    resources = rows["resource"].unique().sort()
    dates = names.rows["start_date"].rank("dense").cast(pl.Int64)
    spans = (rows["span"].max() or 0) + 1  # type: ignore[operator]
    # One number per row sorts several times as fast as four columns do.
    place = (dates.gather(rows["who"]) * spans + rows["span"]) * names.rows.height + rows["who"]
    order = rows["resource"].cast(pl.Enum(resources)).to_physical().cast(pl.Int64)
    return rows[(place * len(resources) + order).arg_sort()]


def _with_spans(rows: pl.DataFrame, cuts: pl.Series, names: WhoNames) -> pl.DataFrame:
    borders = {"span_start": cuts.gather(rows["span"]), "span_end": cuts.gather(rows["span"] + 1)}
    instants = {
        name: pl.from_epoch(seconds, time_unit="s").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        for name, seconds in borders.items()
    }
    who = {column: names.rows[column].gather(rows["who"]) for column in WHO}
    return rows.with_columns(**instants, **who).select(list(ROLLUP_SCHEMA))
