"""A small supplier with one by-use contract, and short ways to write its usage and its bill."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl

from base.money import to_minor
from metering.clusters import Cluster, CpusPerCore
from metering.rollup import ROLLUP_SCHEMA
from reconciliation.contract import SupplierContract
from reconciliation.match import MatchResult, match
from reconciliation.supplier_bill import SupplierCharge

MONTH = "2026-11"
CPU2 = Cluster(name="cpu2")
AI1 = Cluster(name="ai1", cpus_per_core=(CpusPerCore(cpus=2),))
HPC1 = Cluster(name="hpc1")
CLUSTERS = {cluster.name: cluster for cluster in (CPU2, AI1, HPC1)}

CORE_HOUR = {
    "item": "core-hour",
    "resource": "cpu",
    "unit": "core-hour",
    "unit_price": "0.05",
    "effective_from": "2026-01-01",
}
A800 = {
    "item": "a800-card-hour",
    "resource": "card:a800",
    "unit": "card-hour",
    "unit_price": "5.8",
    "effective_from": "2026-01-01",
}


def contract(*items: dict[str, str], **terms: Any) -> SupplierContract:  # noqa: ANN401 - as written in TOML
    """Write a by-use contract for cpu2: 0.05 per core-hour, one hour and one yuan of tolerance."""
    entry: dict[str, Any] = {
        "number": "CG-1",
        "supplier": "centre",
        "cluster": "cpu2",
        "billing": "by_use",
        "timezone": "Asia/Shanghai",
        "valid_from": "2026-01-01",
        "last_day": "2026-12-31",
        "tax_rate": "0.06",
        "tolerance_quantity": 1,
        "tolerance_amount": "1.00",
        "items": items or (CORE_HOUR,),
    }
    return SupplierContract.model_validate(entry | terms)


def fixed_contract(**terms: Any) -> SupplierContract:  # noqa: ANN401 - as written in TOML
    """Write a contract for hpc1 at 12,000.00 a month."""
    return contract(
        **{
            "number": "CG-3",
            "cluster": "hpc1",
            "billing": "fixed",
            "monthly_amount": "12000.00",
            "items": (),
            **terms,
        }
    )


def used(
    hours: Fraction | int,
    login: str = "grp_a",
    queue: str = "cpu",
    *,
    cluster: str = "cpu2",
    resource: str = "cpu",
    at: datetime = datetime(2026, 11, 9, 16, tzinfo=UTC),
) -> dict[str, Any]:
    """Meter units of a resource in the 24 hours from an instant, as one row of the rollup."""
    scale = 1000 if resource.startswith("card:") else CLUSTERS[cluster].cpus_per_core_on(at.date())
    quantity = hours * 3600 * (scale if resource == "cpu" or resource.startswith("card:") else 1)
    assert Fraction(quantity).denominator == 1
    return {
        "start_date": at.date().isoformat(),
        "span_start": at,
        "span_end": at + timedelta(days=1),
        "cluster": cluster,
        "partition": queue,
        "qos": "normal",
        "account": login,
        "user": "somebody",
        "resource": resource,
        "quantity": int(quantity),
        "jobs": 1,
    }


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    """Put rows of the rollup together."""
    return pl.DataFrame(list(rows), schema=ROLLUP_SCHEMA)


def billed(
    quantity: Fraction | str | int,
    login: str = "grp_a",
    queue: str = "cpu",
    *,
    price: str = "0.05",
    line_id: str = "L1",
    **other: Any,  # noqa: ANN401 - any field of the line
) -> SupplierCharge:
    """Write a line of a bill; the amount is quantity × price unless another is given."""
    units = Fraction(quantity)
    number = int(line_id[1:]) + 1 if line_id[1:].isdigit() else 1
    fields: dict[str, Any] = {
        "cluster": "cpu2",
        "queue": queue,
        "login": login,
        "item": "core-hour",
        "quantity": units,
        "unit": "core-hour",
        "unit_price": Decimal(price),
        "amount_minor": to_minor(units * Fraction(price), "CNY"),
        "line_id": line_id,
        "line_number": number,
        "raw": "",
    }
    return SupplierCharge(**(fields | other))


def compare(
    metered: pl.DataFrame, *lines: SupplierCharge, contracts: tuple[SupplierContract, ...] | None = None
) -> MatchResult:
    """Match a bill of November 2026."""
    return match(metered, contracts or (contract(),), lines, CLUSTERS, month=MONTH, currency="CNY")
