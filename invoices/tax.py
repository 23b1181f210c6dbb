"""The tax inside gross amounts: one rounding per rate group, split to the lines so that totals add up to the cent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from base.money import included_tax, split_tax

_RATE_DECIMALS = 6


@dataclass(frozen=True)
class RateGroup:
    """All lines of one tax rate: gross, the tax inside, and what remains."""

    rate: Fraction
    gross_minor: int
    tax_minor: int

    @property
    def net_minor(self) -> int:
        """Gross less tax."""
        return self.gross_minor - self.tax_minor


@dataclass(frozen=True)
class TaxSplit:
    """The tax of a document: by rate, and by line in the lines' own order."""

    groups: tuple[RateGroup, ...]  # in order of rate
    line_tax_minor: tuple[int, ...]

    @property
    def tax_minor(self) -> int:
        """All tax of the document."""
        return sum(group.tax_minor for group in self.groups)


def tax_groups(lines: Sequence[tuple[int, Fraction]]) -> TaxSplit:
    """Return the tax of lines given as (gross amount, rate): rounded once per rate, split by largest remainder."""
    line_tax = [0] * len(lines)
    groups = []
    for rate in sorted({rate for _, rate in lines}):
        members = [i for i, (_, line_rate) in enumerate(lines) if line_rate == rate]
        amounts = [lines[i][0] for i in members]
        gross = sum(amounts)
        tax = included_tax(gross, rate)
        for i, part in zip(members, split_tax(tax, amounts, rate), strict=True):
            line_tax[i] = part
        groups.append(RateGroup(rate, gross, tax))
    return TaxSplit(tuple(groups), tuple(line_tax))


def rate_text(rate: Fraction) -> str:
    """Write a tax rate as decimal text: a fraction of 6/100 is `0.06`."""
    scaled = rate * 10**_RATE_DECIMALS
    if scaled.denominator != 1 or rate < 0:
        raise ValueError(f"a tax rate of {rate} is not a decimal of at most {_RATE_DECIMALS} places")
    whole, part = divmod(int(scaled), 10**_RATE_DECIMALS)
    return f"{whole}.{part:0{_RATE_DECIMALS}d}".rstrip("0").rstrip(".")
