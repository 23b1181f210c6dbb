"""The worked cases of tests/scenarios, one rule each, as finance can read and extend them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from base.money import format_minor
from pricing.catalog import Catalog
from pricing.charges import CUSTOMER_USAGE_SCHEMA, UNIT_SCALE, ChargeLine
from pricing.checks import check
from pricing.packs import untouched_packs
from pricing.rating import rate_all, rate_month

SCENARIOS = sorted((Path(__file__).parents[1] / "scenarios").glob("*.toml"))
OURS = ("scenario", "usage", "expected")


def usage_frame(rows: list[dict[str, Any]], catalog: Catalog) -> pl.DataFrame:
    def parts(row: Mapping[str, Any]) -> int:
        exact = Fraction(Decimal(row["quantity"])) * UNIT_SCALE[catalog.skus[row["sku"]].unit]
        assert exact.denominator == 1
        return int(exact)

    filled = [{"customer": "u-north", "contract": "HT-1", **row, "quantity": parts(row)} for row in rows]
    return pl.DataFrame(filled, schema=CUSTOMER_USAGE_SCHEMA)


def shown(line: ChargeLine, *, with_parts: bool) -> dict[str, object]:
    quantity = line.exact_quantity
    row: dict[str, object] = {
        "sku": line.key.sku,
        "price": line.key.sku_price_id,
        "tier": line.key.tier,
        "quantity": str(Decimal(quantity.numerator) / Decimal(quantity.denominator)),
        "amount": format_minor(line.amount_minor, "CNY"),
    }
    if with_parts:
        row["parts"] = [
            {
                "day": part.day,
                "project": part.project,
                "user": part.user,
                "cluster": part.cluster,
                "amount": format_minor(part.amount_minor, "CNY"),
            }
            for part in line.splits
        ]
    return row


def without_our_tables(text: str) -> str:
    """Leave out what is no configuration: everything before the operator and from the usage on."""
    rest = text[text.index("[operator]") :]
    ends = [rest.index(f"[[{table}]]") for table in OURS if f"[[{table}]]" in rest]
    return rest[: min(ends)]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_worked_case(path: Path, catalog_of: Callable[[str], Catalog]) -> None:
    text = path.read_text(encoding="utf-8")
    case = tomllib.loads(text, parse_float=Decimal)
    catalog = catalog_of(without_our_tables(text))
    assert check(catalog) == []
    month, through = case["scenario"]["month"], case["scenario"].get("through")
    usage, packs = usage_frame(case.get("usage", []), catalog), untouched_packs(catalog)
    lines = rate_month(usage, catalog, customer="u-north", month=month, packs=packs, through=through)
    expected = case["expected"]
    assert len(lines) == len(expected), [shown(line, with_parts=False) for line in lines]
    for line, wanted in zip(lines, expected, strict=True):
        assert shown(line, with_parts="parts" in wanted) == wanted
        assert sum(split.amount_minor for split in line.splits) == line.amount_minor
    assert rate_all(usage, catalog, month=month, packs=packs, through=through) == {"u-north": lines}


def test_there_are_worked_cases() -> None:
    assert len(SCENARIOS) >= 10
