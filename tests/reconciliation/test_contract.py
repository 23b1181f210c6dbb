"""Supplier contracts as written in TOML: what is accepted, what is refused and why."""

from __future__ import annotations

import tomllib
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pricing.toml_files import body_of, read_tables
from reconciliation.contract import KINDS, Supplier, SupplierContract, check

from .samples import A800, CORE_HOUR, contract, fixed_contract

DOCUMENTED = """
[[suppliers]]
id = "gz-centre"
name = "广州超算中心"
name_en = "Guangzhou Supercomputing Centre"

[[supplier_contracts]]
number = "CG-2026-01"
supplier = "gz-centre"
cluster = "cpu2"
billing = "by_use"
timezone = "Asia/Shanghai"
valid_from = 2026-01-01
last_day = 2026-12-31
tax_rate = 0.06
tolerance_quantity = 1
tolerance_amount = "1.00"
[[supplier_contracts.items]]
item = "core-hour"
partition = "*"
resource = "cpu"
unit = "core-hour"
unit_price = 0.035
effective_from = 2026-01-01
"""
CENTRE = Supplier(id="centre", name="中心")


def test_the_documented_contract_is_read_exactly() -> None:
    read = tomllib.loads(DOCUMENTED, parse_float=Decimal)
    terms = SupplierContract.model_validate(read["supplier_contracts"][0])

    assert terms.items[0].unit_price == Decimal("0.035")
    assert terms.fact_key == "CG-2026-01"
    assert Supplier.model_validate(read["suppliers"][0]).fact_key == "gz-centre"


def test_a_recorded_contract_reads_back_the_same() -> None:
    for terms in (contract(), fixed_contract()):
        assert SupplierContract.model_validate(body_of(terms)) == terms


def test_both_tables_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "suppliers.toml"
    file.write_text(DOCUMENTED, encoding="utf-8")
    entries, problems = read_tables([file], KINDS)

    assert problems == []
    assert [(entry.kind, entry.key) for entry in entries] == [
        ("supplier", "gz-centre"),
        ("supplier_contract", "CG-2026-01"),
    ]


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ({"monthly_amount": "1.00"}, "by_use has no monthly_amount"),
        ({"billing": "fixed"}, "fixed needs a monthly_amount"),
        ({"last_day": "2025-12-31"}, "lies before its first"),
        ({"timezone": "Asia/Nowhere"}, "IANA time zone"),
        ({"tax_rate": "6"}, "less than 1"),
        ({"tolerance_amount": "-1"}, "cannot be negative"),
        ({"tolerance_amount": 0.1}, "decimal is needed"),
        ({"items": ()}, "at least one item"),
        ({"discount": "0.9"}, "Extra inputs"),
        ({"items": (CORE_HOUR, CORE_HOUR | {"item": "core"})}, "two prices of cpu"),
        ({"items": (CORE_HOUR, A800 | {"item": "core-hour"})}, "name them apart"),
        ({"items": (CORE_HOUR | {"unit": "card-hour"},)}, "counted in core-hour"),
        ({"items": (CORE_HOUR | {"resource": "gpu"},)}, "should match pattern"),
    ],
)
def test_a_contract_that_cannot_be_meant_is_refused(terms: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        contract(**terms)


def test_contracts_name_suppliers_and_clusters_that_exist() -> None:
    problems = check([], [contract()], {"hpc1"})

    assert [(problem.entry, problem.key) for problem in problems] == [("CG-1", "supplier"), ("CG-1", "cluster")]
    assert "there is no cluster 'cpu2'; known are hpc1" in str(problems[1])
    assert check([CENTRE], [contract(), fixed_contract()], {"hpc1", "cpu2"}) == ()


def test_two_contracts_may_follow_each_other_but_not_deliver_the_same_day() -> None:
    first = contract(number="A", last_day="2026-06-30")
    second = contract(number="B", valid_from="2026-07-01")
    overlapping = contract(number="C", valid_from="2026-06-30")

    assert check([CENTRE], [second, first], {"cpu2"}) == ()
    (problem,) = check([CENTRE], [first, overlapping], {"cpu2"})
    assert "covers cluster 'cpu2' on 2026-06-30, as A does: its usage would be paid twice" in str(problem)


def test_a_rent_may_stand_beside_payment_by_use_but_not_twice() -> None:
    rent = fixed_contract(cluster="cpu2")

    assert check([CENTRE], [contract(), rent], {"cpu2"}) == ()
    assert len(check([CENTRE], [rent, fixed_contract(number="CG-4", cluster="cpu2")], {"cpu2"})) == 1


def test_the_same_number_twice_is_a_problem() -> None:
    problems = check([CENTRE, CENTRE], [fixed_contract(), fixed_contract(cluster="cpu2")], {"hpc1", "cpu2"})

    assert [problem.table for problem in problems] == ["suppliers", "supplier_contracts"]


def test_the_latest_price_in_force_counts() -> None:
    terms = contract(
        CORE_HOUR,
        CORE_HOUR | {"effective_from": "2026-06-01", "unit_price": "0.04"},
        CORE_HOUR | {"partition": "fat", "effective_from": "2026-03-01", "unit_price": "0.07"},
    )

    def price(partition: str, day: date) -> str | None:
        entry = terms.entry_for(partition, "cpu", day)
        return None if entry is None else str(entry.unit_price)

    assert price("cpu", date(2026, 5, 31)) == "0.05"
    assert price("cpu", date(2026, 6, 1)) == "0.04"
    assert price("fat", date(2026, 2, 28)) == "0.05"
    assert price("fat", date(2026, 7, 1)) == "0.07"
    assert price("cpu", date(2025, 12, 31)) is None
