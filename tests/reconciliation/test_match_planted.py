"""Differences planted at random into a bill that agrees: the match finds exactly those, and explains every cent."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any

import pytest

from base.money import to_minor
from reconciliation.discrepancy import KINDS
from reconciliation.match import MatchResult
from reconciliation.supplier_bill import SupplierCharge

from .samples import CORE_HOUR, billed, compare, contract, frame, used

PRICES = {"cpu": "0.05", "fat": "0.075", "amd": "0.0425"}
TERMS = contract(*(CORE_HOUR | {"partition": queue, "unit_price": price} for queue, price in PRICES.items()))
Found = tuple[str, str, str, int]  # kind, queue, login, effect


def agreeing_month(random: Random) -> tuple[list[dict[str, Any]], list[SupplierCharge]]:
    """Meter some logins on some queues, and bill each in one to three lines, rounded to four decimals."""
    rows: list[dict[str, Any]] = []
    lines: list[SupplierCharge] = []
    for number in range(random.randint(8, 30)):
        queue, login = random.choice(list(PRICES)), f"grp_{number}"
        seconds = random.randint(200 * 3600, 90_000 * 3600)
        rows.append(used(Fraction(seconds, 3600), login, queue))
        shares = [random.randint(1, 10**6) for _ in range(random.randint(1, 3))]
        for share in shares:
            units = Fraction(round(Fraction(seconds * share, 3600 * sum(shares)) * 10_000), 10_000)
            lines.append(billed(units, login, queue, price=PRICES[queue], line_id=f"L{len(lines)}"))
    return rows, lines


def worth(lines: list[SupplierCharge]) -> int:
    return sum(line.amount_minor for line in lines)


def priced(line: SupplierCharge, *, units: Fraction | None = None, price: Decimal | None = None) -> SupplierCharge:
    quantity, unit_price = units or line.quantity, price or line.unit_price
    amount = to_minor(quantity * Fraction(unit_price), "CNY")
    return replace(line, quantity=quantity, unit_price=unit_price, amount_minor=amount)


def plant(kind: str, lines: list[SupplierCharge], random: Random, number: int) -> tuple[list[SupplierCharge], int]:
    """Change the lines of one key so that they hold a difference of a kind; return them and what it is worth."""
    if kind == "unbilled_usage":
        return [], -worth(lines)
    first = lines[0]
    if kind == "duplicate":
        again = replace(first, line_id=f"D{number}", line_number=10_000 + number)
        return [*lines, again], first.amount_minor
    if kind == "price":
        factor = random.choice([Decimal("1.2"), Decimal("0.9"), Decimal("1.01")])
        changed = [priced(line, price=line.unit_price * factor) for line in lines]
    else:
        off = random.choice([-1, 1]) * Fraction(random.randint(1_500, 50_000), 10_000) * 10
        largest = max(lines, key=lambda line: line.quantity)
        changed = [priced(line, units=line.quantity + off) if line is largest else line for line in lines]
    return changed, worth(changed) - worth(lines)


def planted_month(seed: int) -> tuple[MatchResult, set[Found], list[SupplierCharge]]:
    random = Random(seed)  # noqa: S311 - sample data is no secret
    rows, lines = agreeing_month(random)
    keys = sorted({(line.queue, line.login) for line in lines})
    expected: set[Found] = set()
    for number, (queue, login) in enumerate(random.sample(keys, random.randint(0, 6))):
        kind = random.choice([kind for kind in KINDS if kind != "unknown_charge"])
        own = [line for line in lines if line.login == login]
        changed, effect = plant(kind, own, random, number)
        lines = [line for line in lines if line.login != login] + changed
        expected.add((kind, queue, login, effect))
    for number in range(random.randint(0, 2)):
        line = billed(random.randint(1, 5000), f"stranger_{number}", "cpu", line_id=f"U{number}")
        lines.append(line)
        expected.add(("unknown_charge", "cpu", line.login, line.amount_minor))
    random.shuffle(lines)
    random.shuffle(rows)
    return compare(frame(*rows), *lines, contracts=(TERMS,)), expected, lines


@pytest.mark.parametrize("seed", range(120))
def test_planted_differences_are_found_and_no_others(seed: int) -> None:
    result, expected, lines = planted_month(seed)
    found = {(d.kind, d.key.queue, d.key.login, d.amount_minor) for d in result.discrepancies}

    assert {place[:3] for place in found} == {place[:3] for place in expected}
    # Rounding of quantities to four decimals may put a few cents on either side.
    worth_of = {place[:3]: place[3] for place in expected}
    assert all(abs(effect - worth_of[kind, queue, login]) <= 4 for kind, queue, login, effect in found)
    assert len(result.discrepancies) == len(found)
    explained_to_the_cent(result, lines)


def explained_to_the_cent(result: MatchResult, lines: list[SupplierCharge]) -> None:
    named = sum(found.amount_minor for found in result.discrepancies)
    assert worth(lines) == result.totals.contract_minor + named + result.totals.rest_minor
    for row in result.rows:
        own = [found for found in result.discrepancies if found.key == row.key and found.unit == row.unit]
        assert row.billed_minor == row.contract_minor + sum(found.amount_minor for found in own) + row.rest_minor
        assert abs(row.rest_minor) <= 2 * 100
    assert sum(row.billed_minor for row in result.rows) == worth(lines)


def test_every_kind_is_planted_somewhere() -> None:
    planted = {kind for seed in range(120) for kind, *_ in planted_month(seed)[1]}

    assert planted == set(KINDS)


@pytest.mark.parametrize("seed", range(150))
def test_whatever_a_bill_says_every_cent_of_it_is_explained(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - sample data is no secret
    half = CORE_HOUR | {"effective_from": "2026-11-10", "unit_price": "0.045"}
    terms = contract(
        CORE_HOUR, half, tolerance_quantity=random.choice([0, 1, 20]), tolerance_amount=random.choice([0, 5])
    )
    logins = ["grp_a", "grp_b", "grp_c"]
    rows = [used(random.randint(1, 900), random.choice(logins)) for _ in range(random.randint(0, 6))]
    rows += [
        row | {"span_start": row["span_start"].replace(day=20), "span_end": row["span_end"].replace(day=21)}
        for row in rows
    ]
    lines = [
        billed(
            Fraction(random.randint(0, 40_000), 100),
            random.choice([*logins, "stranger"]),
            price=random.choice(["0.05", "0.045", "0.06", "0"]),
            line_id=f"L{number}",
            amount_minor=random.randint(0, 5_000),
        )
        for number in range(random.randint(0, 9))
    ]
    lines += [replace(line, line_id=f"D{line.line_id}") for line in lines if random.random() < 0.2]
    result = compare(frame(*rows), *lines, contracts=(terms,))

    named = sum(found.amount_minor for found in result.discrepancies)
    assert worth(lines) == result.totals.contract_minor + named + result.totals.rest_minor
    assert sum(result.totals.named_minor.values()) == named
