"""How charges fall on what a customer has: one pure pass by day over packs, grants, lots, credit line and arrears."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from typing import Literal

SourceKind = Literal["pack", "grant", "lot", "credit", "arrears"]


@dataclass(frozen=True, order=True)
class DayCharge:
    """What one line costs on one day for one project, user and cluster; gross, may be negative (a correction).

    Its fields stand in the order in which a day's charges are drawn.
    """

    day: date  # when it is charged
    sku: str
    project: str
    user: str
    cluster: str
    usage_day: date  # when it was used, which decides what was valid
    line_id: str
    contract: str
    amount_minor: int
    tax_rate: Fraction
    pack: str = ""  # the pack that covers it, where rating found one


@dataclass(frozen=True)
class Lot:
    """One receipt as a pot of its own; what was drawn in closed periods is no longer in it."""

    source_id: str
    contract: str  # "" for any
    project: str  # "" for any
    received_on: date
    last_day: date | None
    rest_minor: int


@dataclass(frozen=True)
class Grant:
    """Face value given, not paid for."""

    source_id: str
    contract: str
    granted_on: date
    last_day: date | None
    rest_minor: int


@dataclass(frozen=True)
class CreditLine:
    """How much a contract may use before paying."""

    contract: str
    valid_from: date
    last_day: date
    rest_minor: int  # limit less what is unbilled and open from closed periods
    payments: tuple[tuple[date, int], ...] = ()  # payments of bills in the pass free it again


@dataclass(frozen=True)
class OpenArrears:
    """Usage of closed periods that nothing has covered yet; below 0 a credit that a correction left."""

    contract: str
    project: str
    month: str
    amount_minor: int


@dataclass(frozen=True)
class Draw:
    """A part of a day's charge, and what it was drawn from."""

    charge: DayCharge
    kind: SourceKind
    source_id: str  # pack, grant or lot; the contract for credit line and arrears
    amount_minor: int


@dataclass(frozen=True)
class Settlement:
    """Arrears that a receipt settled."""

    day: date
    lot: str
    contract: str
    project: str
    month: str  # in which the arrears arose
    amount_minor: int


@dataclass(frozen=True)
class Means:
    """All that a customer's charges of a period can fall on, as it stood when the period opened."""

    lots: tuple[Lot, ...] = ()
    grants: tuple[Grant, ...] = ()
    credit_lines: tuple[CreditLine, ...] = ()
    arrears: tuple[OpenArrears, ...] = ()


@dataclass(frozen=True)
class Drawdown:
    """How a period's charges fell: every charge is drawn in full; `left` is what the next period opens with."""

    draws: tuple[Draw, ...]
    settlements: tuple[Settlement, ...]
    left: Means


def draw_down(
    charges: Sequence[DayCharge],
    means: Means,
    *,
    first: date,
    last: date,
    drawn_before: Mapping[str, Sequence[tuple[SourceKind, str, int]]] | None = None,
) -> Drawdown:
    """Draw a period's charges from what the customer has, in one pass by day from `first` to `last`.

    Each day, receipts first settle open arrears that they may be used for, oldest first; then the day's charges, in
    order (SKU, project, user), take packs, grants, lots (narrowest scope, earliest last day, oldest), the contract's
    credit line, and what is left stands as arrears. A negative charge corrects a line of a closed period and gives
    back what that line had taken, last taken first: `drawn_before` says, per line, what that was. Money that comes
    back settles arrears like a receipt, at the end of the day. Arrears of a contract are netted: what a correction
    takes off lowers what a receipt settles; below nothing it is a credit that the contract's next charges use first.

    A pass may be cut at any day: what is `left` opens the next, and both together draw what one pass would.
    """
    state = _Pass(means, drawn_before or {})
    ordered = sorted(charges)
    if ordered and not first <= ordered[0].day <= ordered[-1].day <= last:
        raise ValueError(f"charges from {ordered[0].day} to {ordered[-1].day} do not lie within {first} to {last}")
    by_day: dict[date, list[DayCharge]] = {}
    for charge in ordered:
        by_day.setdefault(charge.day, []).append(charge)
    arrivals = {max(lot.received_on, first) for lot in means.lots}
    payments = {max(day, first) for line in means.credit_lines for day, _ in line.payments}
    for day in sorted({*by_day, *(d for d in arrivals | payments if d <= last)}):
        state.open_day(day)
        for charge in by_day.get(day, ()):
            state.take(charge)
        state.settle(day)
    return state.result(last)


_ArrearsKey = tuple[str, str, str]  # month, contract, project: sorts oldest first


class _Pass:
    """What is left of each source while the pass goes on."""

    def __init__(self, means: Means, drawn_before: Mapping[str, Sequence[tuple[SourceKind, str, int]]]) -> None:
        self.means = means
        self.lots = sorted(means.lots, key=_lot_order)
        self.by_receipt = sorted(means.lots, key=lambda lot: (lot.received_on, _lot_order(lot)))
        self.grants = sorted(means.grants, key=lambda g: (g.last_day or date.max, g.granted_on, g.source_id))
        self.rest = {lot.source_id: lot.rest_minor for lot in means.lots}
        self.grant_rest = {grant.source_id: grant.rest_minor for grant in means.grants}
        self.credit = {line.contract: line.rest_minor for line in means.credit_lines}
        self.credit_lines = {line.contract: line for line in means.credit_lines}
        self.arrears: dict[_ArrearsKey, int] = defaultdict(int)  # as in the books: by month, contract and project
        self.owed: dict[str, int] = defaultdict(int)  # by contract, net; below 0 a credit
        for owed in means.arrears:
            self._add_arrears((owed.month, owed.contract, owed.project), owed.amount_minor)
        self.lot_by_id = {lot.source_id: lot for lot in means.lots}
        self.given = {line: _still_drawn(parts) for line, parts in drawn_before.items()}
        self.draws: list[Draw] = []
        self.settlements: list[Settlement] = []
        self.seen_day = date.min

    def open_day(self, day: date) -> None:
        """Let the day's payments free credit, and its receipts settle arrears."""
        for line in self.means.credit_lines:
            for paid_on, amount in line.payments:
                if self.seen_day < paid_on <= day:
                    self.credit[line.contract] += amount
        self.settle(day)
        self.seen_day = day

    def settle(self, day: date) -> None:
        """Let money that is there pay open arrears that it may be used for, the oldest first."""
        if not any(owed > 0 for owed in self.owed.values()):
            return
        for lot in self.by_receipt:
            if lot.received_on <= day and self.rest[lot.source_id] > 0:
                for key in sorted(self.arrears):
                    self._settle(lot, key, day)

    def _settle(self, lot: Lot, key: _ArrearsKey, day: date) -> None:
        month, contract, project = key
        amount = min(self.rest[lot.source_id], self.arrears[key], self.owed[contract])
        if amount > 0 and _covers(lot, contract, project) and _may_settle(lot, month, day):
            self.rest[lot.source_id] -= amount
            self._add_arrears(key, -amount)
            self.settlements.append(Settlement(day, lot.source_id, contract, project, month, amount))

    def take(self, charge: DayCharge) -> None:
        """Draw one charge in full."""
        if charge.pack:
            # A pack's money goes with its quantity, both ways: rating says what of it a correction gives back.
            self.draws.append(Draw(charge, "pack", charge.pack, charge.amount_minor))
            return
        if charge.amount_minor < 0:
            self._give_back(charge)
            return
        left = self._use_arrears_credit(charge, charge.amount_minor)
        for grant in self.grants:
            if grant.granted_on <= charge.usage_day and _usable(grant.contract, grant.last_day, charge):
                left = self._draw(charge, "grant", grant.source_id, left, self.grant_rest)
        for lot in self.lots:
            if lot.received_on <= charge.day and _covers(lot, charge.contract, charge.project) and _valid(lot, charge):
                left = self._draw(charge, "lot", lot.source_id, left, self.rest)
        line = self.credit_lines.get(charge.contract)
        if line and line.valid_from <= charge.usage_day <= line.last_day:
            left = self._draw(charge, "credit", charge.contract, left, self.credit)
        if left:
            self._draw_arrears(charge, left)

    def _draw(self, charge: DayCharge, kind: SourceKind, source_id: str, left: int, rest: dict[str, int]) -> int:
        amount = min(left, max(rest[source_id], 0))
        if amount:
            rest[source_id] -= amount
            self.draws.append(Draw(charge, kind, source_id, amount))
        return left - amount

    def _draw_arrears(self, charge: DayCharge, amount: int) -> None:
        self.draws.append(Draw(charge, "arrears", charge.contract, amount))
        self._add_arrears((f"{charge.day:%Y-%m}", charge.contract, charge.project), amount)

    def _add_arrears(self, key: _ArrearsKey, amount: int) -> None:
        self.arrears[key] += amount
        self.owed[key[1]] += amount

    def _use_arrears_credit(self, charge: DayCharge, left: int) -> int:
        # A correction of usage whose arrears were settled meanwhile leaves a credit: it is used before anything else.
        amount = min(left, max(-self.owed[charge.contract], 0))
        if amount:
            self._draw_arrears(charge, amount)
        return left - amount

    def _give_back(self, charge: DayCharge) -> None:
        left = -charge.amount_minor
        taken = self.given.get(charge.line_id, [])
        while left and taken:
            index = self._last_taken_for(charge, taken)
            kind, source_id, amount = taken.pop(index)
            part = min(left, amount)
            if part < amount:
                taken.insert(index, (kind, source_id, amount - part))
            self._return(charge, kind, source_id, part)
            left -= part
        if left:
            self._return(charge, "arrears", charge.contract, left)

    def _last_taken_for(self, charge: DayCharge, taken: Sequence[tuple[SourceKind, str, int]]) -> int:
        # A line spans projects: what one project's money paid must not come back for another's correction.
        for index in range(len(taken) - 1, -1, -1):
            lot = self.lot_by_id.get(taken[index][1]) if taken[index][0] == "lot" else None
            if lot is None or _covers(lot, charge.contract, charge.project):
                return index
        return len(taken) - 1

    def _return(self, charge: DayCharge, kind: SourceKind, source_id: str, amount: int) -> None:
        rest = {"lot": self.rest, "grant": self.grant_rest, "credit": self.credit}.get(kind)
        if rest is not None and source_id in rest:
            rest[source_id] += amount
            self.draws.append(Draw(charge, kind, source_id, -amount))
        elif kind == "pack":
            self.draws.append(Draw(charge, kind, source_id, -amount))
        else:
            self._draw_arrears(charge, -amount)

    def result(self, last: date) -> Drawdown:
        """Say how everything fell, and what the next period opens with."""
        left = Means(
            lots=tuple(replace(lot, rest_minor=self.rest[lot.source_id]) for lot in self.means.lots),
            grants=tuple(replace(grant, rest_minor=self.grant_rest[grant.source_id]) for grant in self.means.grants),
            credit_lines=tuple(
                replace(
                    line,
                    rest_minor=self.credit[line.contract],
                    payments=tuple((day, amount) for day, amount in line.payments if day > last),
                )
                for line in self.means.credit_lines
            ),
            arrears=tuple(
                OpenArrears(contract, project, month, amount)
                for (month, contract, project), amount in sorted(self.arrears.items())
                if amount
            ),
        )
        return Drawdown(tuple(self.draws), tuple(self.settlements), left)


def _still_drawn(parts: Sequence[tuple[SourceKind, str, int]]) -> list[tuple[SourceKind, str, int]]:
    """Return what a line still holds of each draw, where earlier corrections (below 0) gave some of it back."""
    held = [(kind, source_id, amount) for kind, source_id, amount in parts if amount > 0]
    for kind, source_id, given_back in ((k, s, -amount) for k, s, amount in parts if amount < 0):
        rest = given_back
        for index in range(len(held) - 1, -1, -1):
            if held[index][:2] == (kind, source_id):
                part = min(rest, held[index][2])
                held[index] = (kind, source_id, held[index][2] - part)
                rest -= part
    return [part for part in held if part[2]]


def _lot_order(lot: Lot) -> tuple[int, date, date, str]:
    narrowness = -(2 * bool(lot.project) + bool(lot.contract))
    return narrowness, lot.last_day or date.max, lot.received_on, lot.source_id


def _covers(lot: Lot, contract: str, project: str) -> bool:
    return lot.contract in ("", contract) and lot.project in ("", project)


def _usable(contract: str, last_day: date | None, charge: DayCharge) -> bool:
    return contract in ("", charge.contract) and (last_day is None or charge.usage_day <= last_day)


def _valid(lot: Lot, charge: DayCharge) -> bool:
    # By the day of use, not of the charge: usage from before the last day is covered also when it arrives late.
    return lot.last_day is None or charge.usage_day <= lot.last_day


def _may_settle(lot: Lot, month: str, day: date) -> bool:
    # An expired lot may not pay what was used after its last day; arrears from before its last month surely were not.
    return lot.last_day is None or day <= lot.last_day or month < f"{lot.last_day:%Y-%m}"
