"""Lines that ask for the same hours twice: told apart from equal hours that were really used."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction

from reconciliation.supplier_bill import SupplierCharge

Repeat = tuple[SupplierCharge, SupplierCharge]  # (the line that came first, the line that repeats it)


def without_repeats(
    lines: Sequence[SupplierCharge], *, metered: Fraction, tolerance: Fraction
) -> tuple[list[SupplierCharge], list[Repeat]]:
    """Part repeats from the lines of one key: the same quantity again, under another line id.

    With the same amount it is a repeat, unless the usage needs the line (four equal weeks of a job that never
    stopped). With another amount it is one only if taking it out makes the quantities agree.
    """
    ordered = sorted(lines, key=lambda line: line.line_number)
    kept, exact = _parted(ordered, lambda line: (line.quantity, line.amount_minor))
    stay = _needed(kept, exact, metered, tolerance)
    kept, repeats = [*kept, *(line for _, line in exact[:stay])], exact[stay:]
    if abs(_units(kept) - metered) > tolerance:
        fewer, repriced = _parted(kept, lambda line: line.quantity)
        stay = _needed(fewer, repriced, metered, tolerance)
        remaining = [*fewer, *(line for _, line in repriced[:stay])]
        if abs(_units(remaining) - metered) <= tolerance:
            kept, repeats = remaining, [*repeats, *repriced[stay:]]
    return kept, repeats


def _parted(
    lines: Sequence[SupplierCharge], content: Callable[[SupplierCharge], Hashable]
) -> tuple[list[SupplierCharge], list[Repeat]]:
    """Part lines into the first of each content and those that come again."""
    first: dict[Hashable, SupplierCharge] = {}
    kept: list[SupplierCharge] = []
    repeats: list[Repeat] = []
    for line in lines:
        original = first.setdefault(content(line), line)
        if original is line:
            kept.append(line)
        else:
            repeats.append((original, line))
    return kept, repeats


def _needed(kept: Sequence[SupplierCharge], repeats: Sequence[Repeat], metered: Fraction, tolerance: Fraction) -> int:
    """Return how many repeats must stay for the billed sum to agree best with the metered one; 0 if none agrees."""
    off = _units(kept) - metered
    best, best_off = 0, abs(off)
    for count, (_, repeat) in enumerate(repeats, start=1):
        off += repeat.quantity
        if abs(off) < best_off and abs(off) <= tolerance:
            best, best_off = count, abs(off)
    return best


def _units(lines: Sequence[SupplierCharge]) -> Fraction:
    return sum((line.quantity for line in lines), start=Fraction(0))
