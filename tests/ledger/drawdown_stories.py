"""Words for the stories of drawdown and accrual: charges, means, and random ones of both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction

from hypothesis import strategies as st

from ledger.drawdown import CreditLine, DayCharge, Draw, Drawdown, Grant, Lot, Means, SourceKind

SIX_PERCENT = Fraction(6, 100)
FIRST = date(2026, 11, 1)
LAST = date(2026, 11, 30)
CONTRACT = "HT-1"

Given = dict[str, list[tuple[SourceKind, str, int]]]


def november(day: int) -> date:
    """Name a day of the month that the stories play in."""
    return date(2026, 11, day)


def use(
    day: int, amount_minor: int, *, project: str = "condmat", contract: str = CONTRACT, **other: object
) -> DayCharge:
    """Say that a project's core-hours of one day cost so much."""
    plain = DayCharge(
        day=november(day),
        usage_day=november(day),
        sku="core-hour",
        project=project,
        user="alice",
        cluster="hpc1",
        line_id=f"u-north|{contract}|core-hour|book|0|2026-11",
        contract=contract,
        amount_minor=amount_minor,
        tax_rate=SIX_PERCENT,
    )
    return replace(plain, **other)  # type: ignore[arg-type]


def lot(name: str, rest_minor: int, *, received: int = 1, last: int | None = None, project: str = "") -> Lot:
    """Say that a receipt is there from a day of the month on."""
    return Lot(name, CONTRACT, project, november(received), november(last) if last else None, rest_minor)


def drawn(drawdown: Drawdown) -> dict[tuple[str, str], int]:
    """Add up what each source gave."""
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for draw in drawdown.draws:
        sums[draw.kind, draw.source_id] += draw.amount_minor
    return dict(sums)


def without_given_back(given: Mapping[str, Sequence[tuple[SourceKind, str, int]]], draws: Sequence[Draw]) -> Given:
    """Return what closed lines still hold, after a pass gave some of it back."""
    rest: Given = {line: list(parts) for line, parts in given.items()}
    for draw in draws:
        back = max(-draw.amount_minor, 0)
        parts = rest.get(draw.charge.line_id, [])
        for index in range(len(parts) - 1, -1, -1):
            kind, source_id, amount = parts[index]
            if (kind, source_id) == (draw.kind, draw.source_id):
                parts[index] = (kind, source_id, amount - min(back, amount))
                back -= min(back, amount)
        rest[draw.charge.line_id] = [part for part in parts if part[2]]
    return rest


amounts = st.integers(min_value=1, max_value=5_000)
days = st.integers(min_value=1, max_value=30)
projects = st.sampled_from(["condmat", "astro"])
contracts = st.sampled_from([CONTRACT, "HT-2"])


@st.composite
def charges(draw: st.DrawFn, *, corrections: bool = True) -> DayCharge:
    """Make a day's charge: mostly use of the day, sometimes late, sometimes a correction of a closed month."""
    day = draw(days)
    if corrections and draw(st.integers(0, 4)) == 0:
        return use(
            day,
            -draw(amounts),
            project=draw(projects),
            contract=(contract := draw(contracts)),
            usage_day=date(2026, 10, 20),
            line_id=f"u-north|{contract}|core-hour|book|0|2026-10",
        )
    return use(
        day,
        draw(amounts),
        project=draw(projects),
        contract=draw(contracts),
        usage_day=november(day) - timedelta(days=draw(st.integers(0, 8))),
        sku=draw(st.sampled_from(["core-hour", "card-hour"])),
        tax_rate=draw(st.sampled_from([SIX_PERCENT, Fraction(13, 100)])),
    )


@st.composite
def all_means(draw: st.DrawFn) -> Means:
    """Make a customer's means: up to four receipts, two grants, a credit line with payments."""
    lots = [
        Lot(
            f"lot-{index}",
            draw(st.sampled_from(["", CONTRACT, "HT-2"])),
            draw(st.sampled_from(["", "condmat", "astro"])),
            (received := FIRST + timedelta(days=draw(st.integers(-20, 29)))),
            draw(st.none() | st.integers(0, 40).map(lambda more, start=received: start + timedelta(days=more))),  # type: ignore[misc]
            draw(amounts),
        )
        for index in range(draw(st.integers(0, 4)))
    ]
    grants = [
        Grant(f"grant-{index}", draw(st.sampled_from(["", CONTRACT])), november(draw(days)), LAST, draw(amounts))
        for index in range(draw(st.integers(0, 2)))
    ]
    payments = tuple((november(draw(days)), draw(amounts)) for _ in range(draw(st.integers(0, 2))))
    lines = (CreditLine(CONTRACT, FIRST, LAST, draw(st.integers(0, 9_000)), payments),)
    return Means(tuple(lots), tuple(grants), lines if draw(st.booleans()) else ())
