"""A prepaid customer's money over a month: what there was, what came, what was drawn, what is left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

from base.money import decimal_text
from base.period import month_days
from invoices.document import LotRow, PackRow, Receipt, Wallet
from invoices.month import CustomerMonth, next_opening
from ledger.funding import FundingSource
from pricing.charges import UNIT_SCALE
from pricing.models import Sku


def wallet_of(
    month: CustomerMonth, sources: Sequence[FundingSource], known_before: frozenset[str], skus: Mapping[str, Sku]
) -> Wallet:
    """Return the wallet of a statement; what the previous statement showed opens it, the rest came in the month."""
    _, last = month_days(month.month)
    shown = [source for source in sources if source.received_on <= last]
    lots = _lots(month, [source for source in shown if source.kind == "lot"], known_before)
    settled = sum(settlement.amount_minor for settlement in month.drawdown.settlements)
    arrears_opening = sum(owed.amount_minor for owed in month.opening.means.arrears)
    arrears_new = sum(draw.amount_minor for draw in month.drawdown.draws if draw.kind == "arrears")
    return Wallet(
        opening_minor=sum(lot.opening_minor for lot in lots),
        receipts=tuple(
            Receipt(source.received_on, source.reference, source.gross_minor)
            for source in sorted(shown, key=lambda source: (source.received_on, source.id))
            if source.kind == "lot" and source.id not in known_before
        ),
        drawn_minor=sum(lot.drawn_minor for lot in lots) - settled,
        settled_arrears_minor=settled,
        closing_minor=sum(lot.closing_minor for lot in lots),
        lots=lots,
        packs=_packs(month, [source for source in shown if source.kind == "pack"], known_before, skus),
        grants=_grants(month, [source for source in shown if source.kind == "grant"], known_before),
        arrears_opening_minor=arrears_opening,
        arrears_new_minor=arrears_new,
        arrears_settled_minor=settled,
        arrears_closing_minor=arrears_opening + arrears_new - settled,
    )


def _lots(month: CustomerMonth, sources: Sequence[FundingSource], known: frozenset[str]) -> tuple[LotRow, ...]:
    opening = {lot.source_id: lot.rest_minor for lot in month.opening.means.lots}
    closing = {lot.source_id: lot.rest_minor for lot in month.drawdown.left.lots}
    return tuple(_row(source, opening[source.id], closing[source.id], known) for source in sources)


def _grants(month: CustomerMonth, sources: Sequence[FundingSource], known: frozenset[str]) -> tuple[LotRow, ...]:
    opening = {grant.source_id: grant.rest_minor for grant in month.opening.means.grants}
    closing = {grant.source_id: grant.rest_minor for grant in month.drawdown.left.grants}
    return tuple(_row(source, opening[source.id], closing[source.id], known) for source in sources)


def _row(source: FundingSource, opening: int, closing: int, known: frozenset[str]) -> LotRow:
    there = source.id in known
    return LotRow(
        id=source.reference if source.kind == "lot" else source.id,
        opening_minor=opening if there else 0,
        added_minor=0 if there else opening,
        drawn_minor=opening - closing,
        closing_minor=closing,
        last_day=source.last_day,
        project=source.project,
    )


def _packs(
    month: CustomerMonth, sources: Sequence[FundingSource], known: frozenset[str], skus: Mapping[str, Sku]
) -> tuple[PackRow, ...]:
    before: Mapping[str, int] = defaultdict(int, month.opening.pack_drawn)
    after: Mapping[str, int] = defaultdict(int, next_opening(month).pack_drawn)
    rows = []
    for source in sources:
        unit = skus[source.sku].unit
        rest, left = source.quantity - before[source.id], source.quantity - after[source.id]
        there = source.id in known
        rows.append(
            PackRow(
                id=source.id,
                sku=source.sku,
                unit=unit,
                opening=_quantity(rest if there else 0, unit),
                bought=_quantity(0 if there else rest, unit),
                drawn=_quantity(rest - left, unit),
                closing=_quantity(left, unit),
                last_day=source.last_day,
            )
        )
    return tuple(rows)


def _quantity(parts: int, unit: str) -> str:
    return decimal_text(Fraction(parts, UNIT_SCALE[unit]), 6)
