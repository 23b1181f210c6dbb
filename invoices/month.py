"""A customer's month: what it is charged, how the charges fall on its means, and what that moves in the books.

Pure: the same usage, catalog and ledger standing give the same month. Accrual posts from it, documents show it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction

from base.money import decimal_text
from base.period import month_days
from ledger.accounts import AccountKey
from ledger.accrual import Accrual, ArrearsTax, FundedSource, Standing, accrue
from ledger.drawdown import (
    CreditLine,
    DayCharge,
    Drawdown,
    Grant,
    Lot,
    Means,
    OpenArrears,
    SourceKind,
    draw_down,
)
from ledger.funding import FundingSource
from pricing.charges import ChargeLine, LineKey, Split


@dataclass(frozen=True)
class CreditTerms:
    """A contract's credit line: the limit, and the payments of its bills."""

    contract: str
    valid_from: date
    last_day: date
    limit_minor: int
    payments: tuple[tuple[date, int], ...] = ()


@dataclass(frozen=True)
class Opening:
    """What a customer has, how its books stand, and how much of each pack is used, when a period opens."""

    means: Means
    standing: Standing
    pack_drawn: Mapping[str, int]  # by pack, in parts of the SKU's unit


@dataclass(frozen=True)
class CustomerMonth:
    """Everything a customer's documents and postings of a month are made from."""

    customer: str
    month: str
    lines: tuple[ChargeLine, ...]  # of the month itself
    adjustments: tuple[ChargeLine, ...]  # what later facts change in months closed before; amounts are differences
    opening: Opening
    drawdown: Drawdown
    accrual: Accrual


def opening_of(
    sources: Sequence[FundingSource],
    accrued: Mapping[AccountKey, int],
    credit: Sequence[CreditTerms],
    *,
    first: date,
) -> Opening:
    """Return what a customer has, and how its books stand, when a period opens.

    `accrued` is what accruals of all closed periods moved in the customer's accounts, debit positive.
    """
    by_place: dict[tuple[str, str], int] = defaultdict(int)
    for key, amount in accrued.items():
        by_place[key.code, key.detail] += amount
    funded = {
        source.id: FundedSource(
            source.id,
            source.gross_minor,
            Fraction(source.tax_rate),
            by_place["liabilities:contract", source.id] + by_place["liabilities:vat_pending", source.id],
        )
        for source in sources
        if source.kind != "grant"
    }
    arrears = tuple(
        _open_arrears(detail, amount)
        for (code, detail), amount in sorted(by_place.items(), key=lambda item: item[0][1].split("|")[::-1])
        if code == "assets:receivable:arrears" and amount
    )
    means = Means(
        lots=tuple(_lot(source, funded[source.id].drawn_before_minor) for source in sources if source.kind == "lot"),
        grants=tuple(
            _grant(source, by_place["liabilities:grant", source.id]) for source in sources if source.kind == "grant"
        ),
        credit_lines=tuple(
            _credit_line(terms, by_place["assets:receivable:unbilled", terms.contract], first) for terms in credit
        ),
        arrears=arrears,
    )
    pack_drawn = {source.id: by_place["liabilities:pack", source.id] for source in sources if source.kind == "pack"}
    return Opening(means, Standing(funded, _arrears_tax(arrears, by_place)), pack_drawn)


def _open_arrears(detail: str, amount_minor: int) -> OpenArrears:
    contract, project, month = detail.split("|")
    return OpenArrears(contract, project, month, amount_minor)


def _lot(source: FundingSource, drawn_minor: int) -> Lot:
    rest = source.gross_minor - drawn_minor
    return Lot(source.id, source.contract, source.project, source.received_on, source.last_day, rest)


def _grant(source: FundingSource, drawn_minor: int) -> Grant:
    rest = source.gross_minor - drawn_minor
    return Grant(source.id, source.contract, source.received_on, source.last_day, rest)


def _credit_line(terms: CreditTerms, used_minor: int, first: date) -> CreditLine:
    paid = sum(amount for day, amount in terms.payments if day < first)
    later = tuple((day, amount) for day, amount in terms.payments if day >= first)
    return CreditLine(terms.contract, terms.valid_from, terms.last_day, terms.limit_minor - used_minor + paid, later)


def _arrears_tax(arrears: Iterable[OpenArrears], by_place: Mapping[tuple[str, str], int]) -> dict[str, ArrearsTax]:
    gross: dict[str, int] = defaultdict(int)
    for owed in arrears:
        gross[owed.contract] += owed.amount_minor
    return {
        contract: ArrearsTax(amount, -by_place.get(("liabilities:vat_pending", f"arrears:{contract}"), 0))
        for contract, amount in gross.items()
    }


def derive_month(
    customer: str,
    month: str,
    lines: Sequence[ChargeLine],
    opening: Opening,
    *,
    adjustments: Sequence[ChargeLine] = (),
    drawn_before: Mapping[str, Sequence[tuple[SourceKind, str, int]]] | None = None,
) -> CustomerMonth:
    """Let a month's charges fall on what the customer has, and say what that moves in the books."""
    first, last = month_days(month)
    charges = [charge for line in lines for charge in _day_charges(line, day=None)]
    charges += [charge for line in adjustments for charge in _day_charges(line, day=first)]
    drawdown = draw_down(charges, opening.means, first=first, last=last, drawn_before=drawn_before)
    quantities = _pack_quantities([*lines, *adjustments])
    accrual = accrue(customer, drawdown, opening.standing, pack_quantities=quantities)
    return CustomerMonth(customer, month, tuple(lines), tuple(adjustments), opening, drawdown, accrual)


def next_opening(month: CustomerMonth) -> Opening:
    """Return what the month after this one opens with."""
    drawn = dict(month.opening.pack_drawn)
    for (pack, _), quantity in _pack_quantities([*month.lines, *month.adjustments]).items():
        drawn[pack] = drawn.get(pack, 0) + quantity
    return Opening(month.drawdown.left, month.accrual.standing, drawn)


def pack_of(line_or_key: LineKey) -> str:
    """Return the pack that covers a line; "" where it is charged at a price."""
    prefix, _, pack = line_or_key.sku_price_id.partition(":")
    return pack if prefix == "pack" else ""


def _day_charges(line: ChargeLine, *, day: date | None) -> Iterable[DayCharge]:
    for split in line.splits:
        if split.amount_minor:
            yield DayCharge(
                day=day or split.day,
                usage_day=split.day,
                sku=line.key.sku,
                project=split.project,
                user=split.user,
                cluster=split.cluster,
                line_id=line.key.line_id,
                contract=line.key.contract,
                amount_minor=split.amount_minor,
                tax_rate=line.tax_rate,
                pack=pack_of(line.key),
            )


def _pack_quantities(lines: Iterable[ChargeLine]) -> dict[tuple[str, str], int]:
    quantities: dict[tuple[str, str], int] = defaultdict(int)
    for line in lines:
        if pack := pack_of(line.key):
            quantities[pack, line.key.sku] += line.quantity
    return dict(quantities)


def differences(now: Sequence[ChargeLine], then: Sequence[ChargeLine]) -> tuple[ChargeLine, ...]:
    """Return, line by line and split by split, what charges are now less what they were when last charged."""
    before = {line.key: line for line in then}
    return sum_lines([*map(_taken_back, then), *(_with_old_price(line, before.get(line.key)) for line in now)])


def _with_old_price(line: ChargeLine, before: ChargeLine | None) -> ChargeLine:
    # Where a price was corrected, the quantity may not differ at all, and the line would not show why it is there.
    if before is None or before.unit_price == line.unit_price:
        return line
    then, now = (f"{decimal_text(one.exact_quantity, 6)} × {one.unit_price:f}" for one in (before, line))
    return replace(line, reference=" · ".join(filter(None, (f"{then} → {now}", line.reference))))


def sum_lines(lines: Iterable[ChargeLine]) -> tuple[ChargeLine, ...]:
    """Add up lines of one key, split by split, in order of keys; of each the last says price and names."""
    by_key: dict[LineKey, list[ChargeLine]] = defaultdict(list)
    for line in lines:
        by_key[line.key].append(line)
    summed = (_sum(by_key[key]) for key in sorted(by_key))
    return tuple(line for line in summed if line.splits)


def _taken_back(line: ChargeLine) -> ChargeLine:
    splits = tuple(s._replace(quantity=-s.quantity, amount_minor=-s.amount_minor) for s in line.splits)
    return replace(line, quantity=-line.quantity, amount_minor=-line.amount_minor, splits=splits)


def _sum(lines: Sequence[ChargeLine]) -> ChargeLine:
    sums: dict[tuple[date, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for split in (split for line in lines for split in line.splits):
        both = sums[split.day, split.project, split.user, split.cluster]
        both[0] += split.quantity
        both[1] += split.amount_minor
    splits = tuple(
        Split(*place, quantity, amount) for place, (quantity, amount) in sorted(sums.items()) if quantity or amount
    )
    quantity, amount = sum(line.quantity for line in lines), sum(line.amount_minor for line in lines)
    return replace(lines[-1], quantity=quantity, amount_minor=amount, splits=splits)


def draws_by_line(month: CustomerMonth) -> dict[str, list[tuple[SourceKind, str, int]]]:
    """Return what each line of a month was drawn from, in the order drawn."""
    drawn: dict[str, list[tuple[SourceKind, str, int]]] = defaultdict(list)
    for draw in month.drawdown.draws:
        drawn[draw.charge.line_id].append((draw.kind, draw.source_id, draw.amount_minor))
    return dict(drawn)
