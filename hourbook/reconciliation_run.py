"""The reconciliation: what each supplier billed against what was metered and contracted, and what is left as margin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from zoneinfo import ZoneInfo

import polars as pl
from sqlmodel import Session

from base.period import month_days, month_period
from hourbook import facts
from hourbook.reading import Reading
from ledger import store as ledger
from pricing.catalog import Catalog
from reconciliation.contract import Supplier, SupplierContract
from reconciliation.margin import ClusterHours, MarginRow, cost_by_cluster, margin_rows
from reconciliation.match import MatchResult, match
from reconciliation.metered import METERED_SCHEMA
from reconciliation.store import StoredBill, current_bill


@dataclass(frozen=True)
class SupplierCheck:
    """One supplier's month."""

    supplier: Supplier
    bill: StoredBill | None
    result: MatchResult


@dataclass(frozen=True)
class Reconciled:
    """A month's suppliers, and the margin by cluster."""

    month: str
    currency: str
    suppliers: tuple[SupplierCheck, ...]
    margin: tuple[MarginRow, ...]


def reconcile_month(reading: Reading, month: str, only: str | None = None) -> Reconciled:
    """Match every supplier's bill of a month, and compare revenue and cost by cluster."""
    recorded = facts.as_of(reading.session, reading.pins.config_seq)
    catalog = Catalog.from_facts(recorded)
    suppliers = [Supplier.model_validate(body) for _, body in sorted(recorded.get("supplier", {}).items())]
    contracts = [SupplierContract.model_validate(b) for _, b in sorted(recorded.get("supplier_contract", {}).items())]
    if only is not None and only not in {supplier.id for supplier in suppliers}:
        known = ", ".join(supplier.id for supplier in suppliers) or "none yet"
        raise LookupError(f"supplier {only!r} is unknown; known are {known}")
    zones = {catalog.zone_name, *(contract.timezone for contract in contracts)}
    metered = _metered(reading, month, [ZoneInfo(zone) for zone in zones if zone])
    checks = tuple(_check(reading.session, supplier, contracts, metered, catalog, month) for supplier in suppliers)
    margin = margin_rows(
        _revenue(reading.session, month),
        cost_by_cluster([check.result for check in checks]),
        _hours(metered, catalog, month),
        currency=catalog.currency,
    )
    shown = tuple(check for check in checks if only in (None, check.supplier.id))
    return Reconciled(month, catalog.currency, shown, margin)


def _metered(reading: Reading, month: str, zones: Sequence[ZoneInfo]) -> pl.DataFrame:
    """Return the rollup of the month in every zone that a supplier contract, or we, reckon it in."""
    periods = [month_period(month, zone) for zone in zones]
    # Usage is cut at the days of these zones and nowhere else, so the window must begin and end with one of them.
    rows = reading.usage_between(min(period.start for period in periods), max(period.end for period in periods))
    return rows.select(list(METERED_SCHEMA))


def _check(
    session: Session,
    supplier: Supplier,
    contracts: Sequence[SupplierContract],
    metered: pl.DataFrame,
    catalog: Catalog,
    month: str,
) -> SupplierCheck:
    bill = current_bill(session, supplier.id, month)
    own = [contract for contract in contracts if contract.supplier == supplier.id]
    lines = bill.bill.lines if bill else None
    result = match(metered, own, lines, catalog.clusters, month=month, currency=catalog.currency)
    return SupplierCheck(supplier, bill, result)


def _revenue(session: Session, month: str) -> Mapping[str, int]:
    """Return revenue net of tax by cluster, as the ledger has it."""
    revenue: dict[str, int] = defaultdict(int)
    for key, amount in ledger.movements(session, kinds=("accrual",), periods=(month,)).items():
        if key.code == "income:usage":
            revenue[key.detail.partition("|")[2] or "-"] -= amount
    return revenue


def _hours(metered: pl.DataFrame, catalog: Catalog, month: str) -> dict[str, ClusterHours]:
    day = pl.col("span_start").dt.convert_time_zone(catalog.zone_name).dt.date()
    first, last = month_days(month)
    within = metered.with_columns(day=day).filter(pl.col("day").is_between(first, last))
    sums = within.group_by("cluster", "day", "resource").agg(pl.col("quantity").sum())
    hours: dict[str, ClusterHours] = defaultdict(ClusterHours)
    for cluster, local_day, resource, quantity in sums.iter_rows():
        if resource == "cpu":
            known = catalog.clusters.get(cluster)
            per_core = known.cpus_per_core_on(local_day) if known else 1
            hours[cluster] += ClusterHours(core_hours=Fraction(quantity, 3600 * per_core))
        elif resource.startswith("card:"):
            hours[cluster] += ClusterHours(card_hours=Fraction(quantity, 3_600_000))
    return dict(hours)
