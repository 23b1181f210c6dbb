"""The rollup: events cut at the plan's instants and counted as integers, knowing no customer, SKU or price.

A span's quantities are CPU-, node-, wall- and card-seconds (cards in thousandths), the plan's measures, and named
counters. `jobs` counts the attempts that ended in the span, and stands on rows of the resource `wall` alone, so that a
sum over any rows counts each attempt once.
"""

from __future__ import annotations

import polars as pl

from base.frames import guard_sum
from metering.cells import COUNTED_SCHEMA, NARROW, QUANTITIES, Cube, named, naming_largest
from metering.identity import winners
from metering.names import NAMES_SCHEMA, WHO, Names, unknown_names, with_numbers
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
_LINEAR = ("cpu", "node", "wall")


def roll_up(events: pl.DataFrame, plan: RollupPlan) -> pl.DataFrame:
    """Count the usage of lake rows by span, account and resource, each event once, by its winning row."""
    attempts = winners(events).filter(holds_something())
    names = Names.of(unknown_names(attempts, NAMES_SCHEMA.to_frame()))
    dates = with_numbers(attempts, names.rows).partition_by("start_date", as_dict=True)
    return combine([_date_rolled_up(str(date), rows, plan, names) for (date,), rows in dates.items()])


def _date_rolled_up(date: str, rows: pl.DataFrame, plan: RollupPlan, names: Names) -> pl.DataFrame:
    cube = Cube.of(date, plan, names, int(rows["end_second"].max()))  # type: ignore[arg-type]
    with naming_largest(rows.lazy()):
        counted = cube.add_up(rows.select(*NARROW, "counters")).counted()
    return as_rollup(date, counted, names, plan)


def combine(rollups: list[pl.DataFrame]) -> pl.DataFrame:
    """Put the rollups of several partitions together, by date; each row still says which partition it is from."""
    # Each is in order already, and the date is what orders first.
    filled = sorted((rollup for rollup in rollups if rollup.height), key=lambda rollup: rollup["start_date"][0])
    return pl.concat([ROLLUP_SCHEMA.to_frame(), *filled])


def holds_something() -> pl.Expr:
    """Leave out retractions: an event that holds nothing at all is neither usage nor a job."""
    numbers = pl.max_horizontal("cpus", "nodes", "memory_bytes") > 0
    return numbers | (pl.col("cards") != "") | (pl.col("counters") != "")


def as_rollup(date: str, counted: pl.DataFrame, names: Names, plan: RollupPlan) -> pl.DataFrame:
    """Write out what was counted of a date (COUNTED_SCHEMA): a row per resource, with text and instants for numbers.

    The plan's measures are computed here, so that what is kept of a date depends only on where the plan cuts.
    """
    rows = pl.concat([_linear(counted, names, plan), _cards(counted, names), _counters(counted)])
    return _written_out(date, rows.filter((pl.col("quantity") != 0) | (pl.col("jobs") != 0)), names)


def coarser(counted: pl.DataFrame, names: Names, *without: str) -> tuple[pl.DataFrame, Names]:
    """Add up what was counted over some of who used it, such as `user`; return it with the names that are left."""
    blank = names.who.with_columns(pl.lit("").alias(column) for column in without)
    left = blank.unique(maintain_order=True)
    numbers = blank.join(left.with_row_index("who_number"), on=WHO, how="left", maintain_order="left")["who_number"]
    keys = [name for name in COUNTED_SCHEMA if name not in (*QUANTITIES, "total")]
    fewer = counted.with_columns(numbers.cast(pl.Int32).gather(counted["who_number"]))
    guard_sum(counted, *QUANTITIES, "total")
    return fewer.group_by(keys).agg(pl.col(*QUANTITIES, "total").sum()), Names(names.rows, left, names.cards)


def _linear(counted: pl.DataFrame, names: Names, plan: RollupPlan) -> pl.DataFrame:
    """Bring CPUs, nodes, wall time, ended jobs and the plan's measures together, whatever cards were held."""
    measured = {f"measure:{measure.name}": _measure(measure, names) for measure in plan.measures}
    columns = [*_LINEAR, *measured]
    guard_sum(counted, *QUANTITIES)
    held = counted.filter(pl.col("counter") == "").with_columns(**measured)
    sums = held.group_by("who_number", "span_start", "span_end").agg(pl.col(*columns, "jobs").sum())
    jobs = {name: pl.col("jobs") if name == "wall" else pl.lit(0, pl.Int64) for name in columns}
    return pl.concat([_long(sums, pl.lit(name), pl.col(name), jobs[name]) for name in columns])


def _measure(measure: Measure, names: Names) -> pl.Expr:
    cards = pl.lit(names.cards != "").gather(pl.col("cards_number"))
    holds = {"always": pl.lit(value=True), "cards": cards, "no_cards": ~cards}[measure.when]
    for column, scope in (("cluster", measure.clusters), ("partition", measure.partitions)):
        if scope:
            holds &= pl.lit(names.who[column].is_in(list(scope))).gather(pl.col("who_number"))
    return pl.when(holds).then(pl.col(measure.quantity)).otherwise(0)


def _cards(counted: pl.DataFrame, names: Names) -> pl.DataFrame:
    """Count card-seconds in thousandths by model."""
    held = names.cards.alias("text").to_frame().with_row_index("cards_number").filter(pl.col("text") != "")
    models = named(held, "text").select(pl.col("cards_number").cast(pl.Int32), "name", "number")
    rows = counted.join(models, on="cards_number")
    sums = rows.group_by("who_number", "span_start", "span_end", "name").agg(
        quantity=(pl.col("number").cast(pl.Int128) * pl.col("wall")).sum()
    )
    # Cast back with a check: a total that Int64 cannot hold raises.
    return _long(sums, pl.lit("card:") + pl.col("name"), pl.col("quantity").cast(pl.Int64))


def _counters(counted: pl.DataFrame) -> pl.DataFrame:
    rows = counted.filter(pl.col("counter") != "")
    guard_sum(rows, "total")
    sums = rows.group_by("who_number", "span_start", "span_end", "counter").agg(pl.col("total").sum())
    return _long(sums, pl.lit("counter:") + pl.col("counter"), pl.col("total"))


def _long(rows: pl.DataFrame, resource: pl.Expr, quantity: pl.Expr, jobs: pl.Expr | None = None) -> pl.DataFrame:
    ended = pl.lit(0, pl.Int64) if jobs is None else jobs
    return rows.select("who_number", "span_start", "span_end", resource=resource, quantity=quantity, jobs=ended)


def _written_out(date: str, rows: pl.DataFrame, names: Names) -> pl.DataFrame:
    """Sort by span, who and resource, and put text and instants for numbers."""
    present = names.who.with_row_index("number").filter(pl.col("number").is_in(rows["who_number"].unique().implode()))
    in_order = present.sort(WHO)
    rank = pl.zeros(names.who.height, dtype=pl.Int64, eager=True)
    rank = rank.scatter(in_order["number"], pl.int_range(in_order.height, eager=True))
    resources = rows["resource"].unique().sort()
    code = rows["resource"].cast(pl.Enum(resources)).to_physical().cast(pl.Int64)
    starts = rows["span_start"].unique().sort()
    span = starts.search_sorted(rows["span_start"]).cast(pl.Int64)
    # One number per row sorts several times as fast as four columns do.
    places = rank.gather(rows["who_number"])
    order = ((span * in_order.height + places) * len(resources) + code).arg_sort()
    places = places.gather(order)
    instants = [_instant(column).alias(column) for column in ("span_start", "span_end")]
    texts = [in_order[column].gather(places) for column in WHO]
    sorted_rows = rows[order].with_columns(pl.lit(date).alias("start_date"), *instants, *texts)
    return sorted_rows.select(list(ROLLUP_SCHEMA))


def _instant(column: str) -> pl.Expr:
    return pl.from_epoch(column, time_unit="s").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
