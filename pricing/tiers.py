"""Prices by quantity.

Graduated: each part of a month's quantity has the unit price of the step that it falls into. By volume: all of it has
that of the step which the month's whole quantity reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from pricing.models import PriceChange


@dataclass(frozen=True)
class Step:
    """One step of a price, its upper bound in counted parts of the unit."""

    number: int  # from 1; 0 where the price has no tiers
    up_to: int | None  # parts in the month; None: open
    unit_price: Decimal


def steps_of(change: PriceChange, scale: int) -> tuple[Step, ...]:
    """Return a price's steps, counted in parts of which `scale` are one unit."""
    if change.unit_price is not None:
        return (Step(0, None, change.unit_price),)  # asked for once per customer, SKU and day
    numbered = enumerate(change.steps(), start=1 if change.tiers else 0)
    return tuple(
        Step(number, None if tier.up_to is None else tier.up_to * scale, tier.unit_price) for number, tier in numbered
    )


def cut_at_steps(steps: Sequence[Step], used_before: int, quantity: int) -> Iterator[tuple[Step, int]]:
    """Cut a quantity where the month's count passes a step's bound; yield each step with its part, none empty."""
    position, rest = used_before, quantity
    for step in steps:
        part = rest if step.up_to is None else min(rest, max(0, step.up_to - position))
        if part:
            yield step, part
            position, rest = position + part, rest - part
    if rest:
        raise ValueError(f"{rest} parts lie beyond the last step; the last tier of a price must be open")


def step_reached(steps: Sequence[Step], quantity: int) -> Step:
    """Return the step that a month's whole quantity reaches; a quantity at a step's bound is still within it."""
    for step in steps:
        if step.up_to is None or quantity <= step.up_to:
            return step
    raise ValueError(f"{quantity} parts lie beyond the last step; the last tier of a price must be open")
