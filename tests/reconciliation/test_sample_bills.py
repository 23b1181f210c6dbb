"""The sample operator's supplier bills: the match finds the differences planted in them, all of them and no others."""

from __future__ import annotations

import csv
import json
import tomllib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from base.money import parse_amount
from metering.clusters import Cluster
from metering.rollup import ROLLUP_SCHEMA
from reconciliation.contract import Supplier, SupplierContract, check
from reconciliation.match import MatchResult, match
from reconciliation.supplier_bill import read_bill

OPERATOR = Path(__file__).resolve().parents[2] / "fixtures" / "operator"
MONTH = "2026-11"
SUPPLIERS = ("lanjiang-centre", "xuanpu-ai", "yuanhe-idc")


def facts(name: str) -> dict[str, Any]:
    return tomllib.loads((OPERATOR / "facts" / name).read_text(encoding="utf-8"), parse_float=Decimal)


def clusters() -> dict[str, Cluster]:
    return {row["name"]: Cluster.model_validate(row) for row in facts("clusters.toml")["clusters"]}


def contracts() -> list[SupplierContract]:
    return [SupplierContract.model_validate(row) for row in facts("suppliers.toml")["supplier_contracts"]]


def metered() -> pl.DataFrame:
    """Write the generator's own totals of the month as rows of the rollup, all on one day."""
    truth = json.loads((OPERATOR / "truth.json").read_text(encoding="utf-8"))
    day = datetime(2026, 11, 10, 16, tzinfo=UTC)
    rows = [
        {
            "start_date": "2026-11-10",
            "span_start": day,
            "span_end": day + timedelta(days=1),
            "cluster": usage["cluster"],
            "partition": usage["partition"],
            "qos": "normal",
            "account": usage["account"],
            "user": usage["user"],
            "resource": usage["resource"],
            "quantity": usage["seconds"] * (1000 if usage["resource"].startswith("card:") else 1),
            "jobs": 1,
        }
        for usage in truth["usage"]
    ]
    return pl.DataFrame(rows, schema=ROLLUP_SCHEMA)


def planted_rows() -> list[dict[str, str]]:
    with (OPERATOR / "planted-differences.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def results() -> dict[str, MatchResult]:
    usage = metered()
    found = {}
    for supplier in SUPPLIERS:
        payload = (OPERATOR / "bills" / f"{supplier}-{MONTH}.csv").read_bytes()
        lines, rejected = read_bill(payload, supplier=supplier, month=MONTH)
        assert rejected == ()
        terms = [contract for contract in contracts() if contract.supplier == supplier]
        found[supplier] = match(usage, terms, lines, clusters(), month=MONTH, currency="CNY")
    return found


def test_the_suppliers_and_their_contracts_fit_together() -> None:
    suppliers = [Supplier.model_validate(row) for row in facts("suppliers.toml")["suppliers"]]

    assert check(suppliers, contracts(), set(clusters())) == ()


def test_the_planted_differences_are_found_and_no_others(results: dict[str, MatchResult]) -> None:
    found = {
        (supplier, str(d.kind), str(d.key)): (" ".join(d.line_ids), d.amount_minor)
        for supplier, result in results.items()
        for d in result.discrepancies
    }
    planted = {
        (row["supplier"], row["kind"], "/".join(row[name] for name in ("cluster", "queue", "login", "item"))): (
            row["line_id"],
            parse_amount(row["over_billed_amount"], "CNY"),
        )
        for row in planted_rows()
    }

    assert set(found) == set(planted)
    for place, (line_ids, effect) in planted.items():
        assert found[place][0] == line_ids, place
        # The supplier rounds hours to two decimals and each line to the cent.
        assert abs(found[place][1] - effect) <= 1, place


def test_every_cent_of_the_sample_bills_is_explained(results: dict[str, MatchResult]) -> None:
    for result in results.values():
        totals = result.totals
        assert totals.billed_minor == totals.contract_minor + sum(totals.named_minor.values()) + totals.rest_minor
        assert abs(totals.rest_minor) <= len(result.rows)
        assert result.unpriced == ()


def test_the_rent_of_the_co_built_cluster_agrees(results: dict[str, MatchResult]) -> None:
    assert results["yuanhe-idc"].agrees
    assert results["yuanhe-idc"].totals.billed_minor == 1_200_000
