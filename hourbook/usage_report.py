"""The usage report: hours of any days by any fields, from rollups, with or without customers and prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

import polars as pl
from sqlmodel import Session

from base.period import days_period
from hourbook import facts
from hourbook.refreshing import plan_now
from hourbook.rollups import Window, read_rollup
from hourbook.settings import Home
from metering.lake import EventLake
from metering.plan import RollupPlan
from metering.usage import HOURS, ROLLUP_FIELDS, hours
from pricing.assignment import LABELS, label
from pricing.catalog import Catalog

METERED_FIELDS = ROLLUP_FIELDS  # what is known of usage without customers and SKUs
FIELDS = (*METERED_FIELDS, *LABELS)
COLUMNS = (*HOURS, "jobs")
SOLD_FIELDS = ("sku", "product")
# How usage that a SKU sells is counted in the report: by the SKU's unit, whatever it was measured as.
_RESOURCE_OF_UNIT = {"core-hour": "cpu", "card-hour": "card:any", "node-hour": "node", "wall-hour": "wall"}


class UnknownFieldError(ValueError):
    """A report by something that usage is not known by."""

    def __init__(self, fields: Sequence[str]) -> None:
        super().__init__(f"unknown field(s) {', '.join(fields)}; usage is known by {', '.join(FIELDS)}")


@dataclass(frozen=True)
class UsageQuery:
    """Which days, both included, grouped by what, in which zone; `customer` narrows it to one."""

    first: date
    last: date
    fields: tuple[str, ...]
    timezone: str | None = None
    customer: str | None = None


def usage_report(home: Home, session: Session, query: UsageQuery) -> pl.DataFrame:
    """Return hours and jobs by the fields asked for, in order; hours as text with 6 decimals."""
    unknown = [field for field in query.fields if field not in FIELDS]
    if unknown:
        raise UnknownFieldError(unknown)
    if query.last < query.first:
        raise ValueError(f"the last day {query.last} lies before the first {query.first}")
    catalog = Catalog.from_facts(facts.as_of(session))
    zone = ZoneInfo(query.timezone or catalog.zone_name)
    period = days_period(query.first, query.last, zone)
    plan = _plan(plan_now(session), zone, hourly="hour" in query.fields)
    rows = read_rollup(session, EventLake(home.lake), plan, Window(period.start, period.end))
    if query.customer is not None or any(field in LABELS for field in query.fields):
        rows = label(rows, catalog)
    if query.customer is not None:
        rows = rows.filter(pl.col("customer") == query.customer)
    if any(field in SOLD_FIELDS for field in query.fields):
        rows = _as_sold(rows, catalog)
    return hours(rows, query.fields, zone=zone, clusters=catalog.clusters.values())


def _plan(plan: RollupPlan, zone: ZoneInfo, *, hourly: bool) -> RollupPlan:
    """Return the plan in force if it cuts where the report needs it, else one that is counted from the lake."""
    if not hourly and zone.key in plan.zones:
        return plan
    return plan.model_copy(update={"zones": tuple(sorted({*plan.zones, zone.key})), "hourly": hourly or plan.hourly})


def _as_sold(rows: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    units = {sku.id: _RESOURCE_OF_UNIT.get(sku.unit, "other") for sku in catalog.skus.values()}
    sold = rows.filter(pl.col("sku") != "")
    return sold.with_columns(pl.col("sku").replace_strict(units, return_dtype=pl.String).alias("resource"))
