"""Packs: prepaid quantities that usage draws before anything is priced.

What a draw is worth follows from all that was drawn so far: price × drawn ÷ size, rounded, less what earlier draws
released. So the last unit takes the last cent, and a pack never releases more than was paid for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

from base.money import round_half_away
from pricing.catalog import Catalog
from pricing.charges import ChargeLine
from pricing.fields import decimal_text
from pricing.models import Pack

PACK_PREFIX = "pack:"
_SHOWN_DECIMALS = Decimal("1e-10")


@dataclass(frozen=True)
class PackState:
    """A pack, and what months before the rated one took from it."""

    pack: Pack
    drawn_before: int = 0  # parts of the SKU's unit
    released_before: int = 0  # minor units

    @property
    def sku_price_id(self) -> str:
        """What its lines name as their price."""
        return f"{PACK_PREFIX}{self.pack.id}"


def untouched_packs(catalog: Catalog) -> dict[str, PackState]:
    """Return every pack as it was bought."""
    return {key: PackState(pack) for key, pack in catalog.packs.items()}


def packs_after(packs: Mapping[str, PackState], lines: Iterable[ChargeLine]) -> dict[str, PackState]:
    """Return the packs as a month's lines leave them, for the next month."""
    after = dict(packs)
    for line in lines:
        if line.key.sku_price_id.startswith(PACK_PREFIX):
            state = after[line.key.sku_price_id.removeprefix(PACK_PREFIX)]
            after[state.pack.id] = replace(
                state,
                drawn_before=state.drawn_before + line.quantity,
                released_before=state.released_before + line.amount_minor,
            )
    return after


def shown_unit_price(pack: Pack) -> Decimal:
    """Return price ÷ quantity as far as ten decimals show it; no amount is computed from it."""
    return Decimal(decimal_text((pack.price / pack.quantity).quantize(_SHOWN_DECIMALS, rounding=ROUND_HALF_UP)))


class PackPot:
    """A pack while one month is rated: what is left in it, and what it has released."""

    def __init__(self, state: PackState, *, scale: int, price_minor: int) -> None:
        self.state = state
        self._size = state.pack.quantity * scale
        self._price_minor = price_minor
        self._drawn = state.drawn_before
        self._released = state.released_before
        if not 0 <= state.drawn_before <= self._size:
            raise ValueError(f"pack {state.pack.id}: {state.drawn_before} of {self._size} parts cannot have been drawn")

    def draw(self, wanted: int, day: date) -> tuple[int, int]:
        """Take up to the wanted quantity on a usage day; return how much, and the minor units that it releases."""
        if not self.state.pack.in_force(day):
            return 0, 0
        taken = min(wanted, self._size - self._drawn)
        self._drawn += taken
        released = round_half_away(Fraction(self._price_minor * self._drawn, self._size))
        amount, self._released = released - self._released, released
        return taken, amount


def pots_in_order(states: Iterable[PackState], catalog: Catalog) -> list[PackPot]:
    """Open packs in the order in which usage draws them: earliest last day, then oldest, then id."""
    ordered = sorted(states, key=lambda s: (s.pack.last_day, s.pack.bought_on, s.pack.id))
    return [
        PackPot(state, scale=catalog.scale(state.pack.sku), price_minor=catalog.minor(state.pack.price))
        for state in ordered
    ]


def draw_from(pots: Iterable[PackPot], quantity: int, day: date) -> Iterator[tuple[PackState, int, int]]:
    """Draw a quantity from the pots in turn; yield pack, quantity and released minor units for each that gave."""
    for pot in pots:
        if not quantity:
            return
        taken, amount = pot.draw(quantity, day)
        if taken:
            quantity -= taken
            yield pot.state, taken, amount
