"""Whose usage is it, under which contract, and which SKU: from the rollup to each customer's usage by local day.

Every row of the rollup ends in exactly one place: assigned, included in what is charged otherwise, an exception, or
written off. `Assignment.sums` says how much lies where; more or less than came in is an error, never a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from base.frames import OVERFLOW_GUARD, check_frame
from metering.rollup import ROLLUP_SCHEMA
from pricing.catalog import Catalog
from pricing.charges import CUSTOMER_USAGE_SCHEMA
from pricing.exceptions import UsageException, exceptions_of, is_written_off
from pricing.matching import (
    local_days,
    with_contract,
    with_cpus_per_core,
    with_first_price,
    with_owner,
    with_sku,
)
from pricing.sums import sum_by, wide

LABELS = ("customer", "project", "customer_type", "sku", "product")
_MILLISECONDS = 1000
_ONE_MICROSECOND = pl.duration(microseconds=1)


class SpanError(ValueError):
    """The rollup was cut for other zones than the catalog's, so a day is no sum of its spans."""


@dataclass(frozen=True)
class Quantities:
    """How much of one resource lies where, in the rollup's own parts."""

    rows: int = 0
    total: int = 0  # in the rollup
    assigned: int = 0
    included: int = 0
    excepted: int = 0
    written_off: int = 0

    @property
    def is_conserved(self) -> bool:
        """Whether nothing was lost and nothing counted twice."""
        return self.total == self.assigned + self.included + self.excepted + self.written_off


@dataclass(frozen=True)
class Assignment:
    """Each customer's usage, and what cannot be charged yet."""

    usage: pl.DataFrame  # CUSTOMER_USAGE_SCHEMA
    exceptions: tuple[UsageException, ...]  # each blocks the close of its month
    written_off: tuple[UsageException, ...]  # decided on by a person
    sums: Mapping[str, Quantities]  # by resource


def label(rollup: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    """Add customer, project, customer_type, sku and product to each row, "" where there is none; needs no prices."""
    rows = with_sku(with_owner(check_frame(rollup, ROLLUP_SCHEMA, "rollup"), catalog), catalog)
    types = {name: customer.kind for name, customer in catalog.customers.items()}
    products = {name: sku.product for name, sku in catalog.skus.items()}
    return rows.with_columns(pl.col("customer", "project", "sku").fill_null("")).select(
        *ROLLUP_SCHEMA,
        "customer",
        "project",
        _looked_up("customer", types, "customer_type"),
        "sku",
        _looked_up("sku", products, "product"),
    )


def _looked_up(column: str, names: Mapping[str, str], alias: str) -> pl.Expr:
    return pl.col(column).replace_strict(names, default="", return_dtype=pl.String).alias(alias)


def assign(rollup: pl.DataFrame, catalog: Catalog) -> Assignment:
    """Give each row of the rollup to the customer, contract and SKU that the catalog names, or say why not."""
    checked = check_frame(rollup, ROLLUP_SCHEMA, "rollup")
    _refuse_huge(checked)
    rows = checked
    for step in (with_owner, with_sku, _with_day, with_contract, with_first_price):
        rows = step(rows, catalog)
    coded = _with_code(rows, catalog)
    excepted = coded.filter(pl.col("code") != "")
    exceptions = exceptions_of(excepted.filter(pl.col("code") != "included"), checked)
    written_off = [e for e in exceptions if is_written_off(e, catalog.write_offs)]
    still_open = [e for e in exceptions if not is_written_off(e, catalog.write_offs)]
    assigned = coded.filter(pl.col("code") == "")
    sums = _sums(checked, coded, still_open, written_off)
    return Assignment(_usage(assigned, catalog), tuple(still_open), tuple(written_off), sums)


def _refuse_huge(rollup: pl.DataFrame) -> None:
    """Refuse quantities that would wrap when counted in milliseconds."""
    largest = rollup["quantity"].max()
    if isinstance(largest, int) and largest * _MILLISECONDS >= OVERFLOW_GUARD:
        raise OverflowError(f"a quantity of {largest} in one row of the rollup is beyond what can be priced")


def _with_day(rows: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    """Add the local day in the customer's zone, in the operator's where there is no customer."""
    zoned = rows.with_columns(pl.col("zone").fill_null(catalog.zone_name))
    zones = [catalog.zone_name, *catalog.customer_zones.values()]
    days = local_days(rows["span_start"], zones)
    _refuse_spans_over_midnight(zoned)
    return zoned.join(days, on=["zone", "span_start"], how="left", maintain_order="left")


def _refuse_spans_over_midnight(zoned: pl.DataFrame) -> None:
    spans = zoned.select("zone", "span_start", "span_end").unique()
    for zone in spans["zone"].unique().sort().to_list():
        first = pl.col("span_start").dt.convert_time_zone(zone).dt.date()
        last = (pl.col("span_end") - _ONE_MICROSECOND).dt.convert_time_zone(zone).dt.date()
        across = spans.filter((pl.col("zone") == zone) & (first != last))
        for _, start, end in across.head(1).iter_rows():
            raise SpanError(
                f"the span from {start!s} to {end!s} lies on two days of {zone}; roll up again with the plan that "
                "the catalog asks for"
            )


def _with_code(rows: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    """Say in `code` why a row is not charged: "" where it is, `included`, or the first reason that holds."""
    listed = [(name, partition) for name, cluster in catalog.clusters.items() for partition in cluster.partitions]
    known = pl.DataFrame(listed, schema={"cluster": pl.String, "partition": pl.String}, orient="row").unique()
    marked = rows.join(
        known.with_columns(listed=pl.lit(value=True)), on=["cluster", "partition"], how="left", maintain_order="left"
    )
    unlisted = pl.col("cluster").is_in(known["cluster"].unique().to_list()) & pl.col("listed").is_null()
    unpriced = pl.col("priced_from").is_null() | (pl.col("priced_from") > pl.col("day"))
    code = (
        pl.when(unlisted)
        .then(pl.lit("unknown_partition"))
        .when(pl.col("sku") == "")
        .then(pl.lit("included"))
        .when(pl.col("customer").is_null())
        .then(pl.lit("unassigned"))
        .when(pl.col("contract").is_null())
        .then(pl.lit("no_contract"))
        .when(pl.col("sku").is_null())
        .then(pl.lit("unmatched"))
        .when(unpriced)
        .then(pl.lit("unpriced"))
        .otherwise(pl.lit(""))
    )
    return marked.with_columns(code.alias("code"))


def _usage(assigned: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    """Sum what is charged by customer, contract, project, user, day, cluster and SKU, in parts of the SKU's unit."""
    units = {name: sku.unit for name, sku in catalog.skus.items()}
    counted = with_cpus_per_core(assigned, catalog).with_columns(_looked_up("sku", units, "unit"))
    in_milliseconds = (
        pl.when(pl.col("unit") == "core-hour")
        .then(pl.col("quantity") * _MILLISECONDS // pl.col("cpus_per_core"))
        .when(pl.col("unit").is_in(["node-hour", "wall-hour"]))
        .then(pl.col("quantity") * _MILLISECONDS)
        .otherwise("quantity")
    )
    priced = counted.with_columns(in_milliseconds.alias("quantity"))
    keys = [column for column in CUSTOMER_USAGE_SCHEMA if column != "quantity"]
    return check_frame(sum_by(priced, keys).sort(keys), CUSTOMER_USAGE_SCHEMA, "customer usage")


def _sums(
    rollup: pl.DataFrame, coded: pl.DataFrame, still_open: list[UsageException], written_off: list[UsageException]
) -> dict[str, Quantities]:
    """Add up what lies where, the exceptions from their groups, and refuse any difference to what came in."""
    came_in = rollup.group_by("resource").agg(pl.len().alias("rows"), wide("quantity").sum().alias("total"))
    placed = coded.group_by("resource").agg(
        wide("quantity").filter(pl.col("code") == "").sum().alias("assigned"),
        wide("quantity").filter(pl.col("code") == "included").sum().alias("included"),
    )
    sums = {}
    for resource, rows, total, assigned, included in came_in.join(placed, on="resource").sort("resource").iter_rows():
        excepted = sum(e.quantity for e in still_open if e.resource == resource)
        decided = sum(e.quantity for e in written_off if e.resource == resource)
        sums[resource] = Quantities(rows, total, assigned, included, excepted, decided)
        if not sums[resource].is_conserved:
            raise ArithmeticError(f"{resource}: usage was lost or counted twice: {sums[resource]}")
    return sums
