"""What a period's drawdown means in the books: the balances it must have moved, as a pure function.

Hourbook posts the difference between these movements and what earlier accruals of the same period posted, so nothing
drifts however often it runs. Tax follows the source of the money: a lot releases its own VAT, cumulatively, so its
last cent closes it; credit line and arrears are taxed on their cumulative gross per (contract, period, rate).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from base.money import included_tax, largest_remainder, round_half_away, split_tax
from ledger.accounts import AccountKey, grant_asset, pack_asset
from ledger.drawdown import DayCharge, Draw, Drawdown, Settlement, SourceKind


@dataclass(frozen=True)
class FundedSource:
    """A lot or a pack as money: gross and VAT fixed at receipt, and how much was drawn before the period."""

    source_id: str
    gross_minor: int
    tax_rate: Fraction
    drawn_before_minor: int

    @property
    def tax_minor(self) -> int:
        """VAT inside the receipt."""
        return included_tax(self.gross_minor, self.tax_rate)

    def released_tax(self, drawn_minor: int) -> int:
        """VAT that is released once so much of it was drawn, cumulative: round(D × V / G)."""
        if self.gross_minor == 0:
            return 0
        return round_half_away(Fraction(drawn_minor * self.tax_minor, self.gross_minor))


@dataclass(frozen=True, order=True)
class TaxedPart:
    """Draws of one source at one rate, with the VAT that they carry. A statement shows it by line."""

    kind: SourceKind
    source_id: str
    tax_rate: Fraction
    gross_minor: int
    tax_minor: int
    draws: tuple[Draw, ...]


@dataclass(frozen=True)
class ArrearsTax:
    """Open arrears of a contract, gross, and the VAT pending on them."""

    gross_minor: int = 0
    tax_minor: int = 0


@dataclass(frozen=True)
class Standing:
    """What of earlier periods the books of a period build on."""

    funded: Mapping[str, FundedSource]  # lots and packs by id
    arrears: Mapping[str, ArrearsTax]  # by contract


@dataclass(frozen=True)
class Accrual:
    """What a period's draws move in the books, and the VAT part by part."""

    movements: Mapping[AccountKey, int]  # debit positive; adds up to zero per asset; no zero entries
    parts: tuple[TaxedPart, ...]
    standing: Standing  # what the next period builds on


def accrue(
    customer: str,
    drawdown: Drawdown,
    standing: Standing,
    *,
    pack_quantities: Mapping[tuple[str, str], int] | None = None,
    currency: str = "CNY",
) -> Accrual:
    """Return the movements of a period's drawdown in the customer's accounts.

    `pack_quantities` says how much of each (pack, SKU) was used, in parts of the SKU's unit.
    """
    books = _Books(customer, currency)
    funded = standing.funded
    for (pack, sku), quantity in (pack_quantities or {}).items():
        books.draw_quantity(pack, sku, quantity)
    grouped: dict[tuple[SourceKind, str], dict[Fraction, list[Draw]]] = defaultdict(lambda: defaultdict(list))
    for draw in drawdown.draws:
        grouped[draw.kind, draw.source_id][draw.charge.tax_rate].append(draw)
    drawn = {source_id: source.drawn_before_minor for source_id, source in funded.items()}
    parts: list[TaxedPart] = []
    for (kind, source_id), by_rate in sorted(grouped.items()):
        if kind in ("lot", "pack"):
            made = _funded_parts(kind, funded[source_id], by_rate, drawn)
            books.draw_funded(made)
        elif kind == "grant":
            made = [_part(kind, source_id, rate, draws, tax=0) for rate, draws in sorted(by_rate.items())]
            books.draw_grant(made)
        else:
            made = [_taxed_by_gross(kind, source_id, rate, draws) for rate, draws in sorted(by_rate.items())]
            books.draw_receivable(made)
        parts.extend(made)
    books.settle(drawdown, funded, drawn)
    arrears = books.release_arrears_tax(drawdown, standing.arrears, parts)
    after = Standing({k: replace(source, drawn_before_minor=drawn[k]) for k, source in funded.items()}, arrears)
    return Accrual(books.done(), tuple(parts), after)


def _with_new_arrears(before: Mapping[str, ArrearsTax], parts: Sequence[TaxedPart]) -> dict[str, ArrearsTax]:
    arrears = dict(before)
    for part in parts:
        if part.kind == "arrears":
            owed = arrears.get(part.source_id, ArrearsTax())
            arrears[part.source_id] = ArrearsTax(owed.gross_minor + part.gross_minor, owed.tax_minor + part.tax_minor)
    return arrears


def _ever_owed(before: ArrearsTax, parts: Sequence[TaxedPart]) -> ArrearsTax:
    """Return what a contract owed in all, before corrections of the period took some of it back."""
    gross, tax = (before.gross_minor, before.tax_minor) if before.gross_minor > 0 else (0, 0)
    for part in parts:
        used = sum(draw.amount_minor for draw in part.draws if draw.amount_minor > 0)
        gross += used
        tax += included_tax(used, part.tax_rate)
    return ArrearsTax(gross, tax)


def _part(kind: SourceKind, source_id: str, rate: Fraction, draws: Sequence[Draw], *, tax: int) -> TaxedPart:
    return TaxedPart(kind, source_id, rate, sum(draw.amount_minor for draw in draws), tax, tuple(draws))


def _taxed_by_gross(kind: SourceKind, source_id: str, rate: Fraction, draws: Sequence[Draw]) -> TaxedPart:
    gross = sum(draw.amount_minor for draw in draws)
    return _part(kind, source_id, rate, draws, tax=included_tax(gross, rate))


def _funded_parts(
    kind: SourceKind, source: FundedSource, by_rate: Mapping[Fraction, Sequence[Draw]], drawn: dict[str, int]
) -> list[TaxedPart]:
    """Tax draws of a lot: at the lot's own rate what the lot releases, at another rate the tax of that usage."""
    gross = sum(draw.amount_minor for draws in by_rate.values() for draw in draws)
    before = drawn[source.source_id]
    drawn[source.source_id] = before + gross
    released = source.released_tax(before + gross) - source.released_tax(before)
    others = [_taxed_by_gross(kind, source.source_id, r, d) for r, d in sorted(by_rate.items()) if r != source.tax_rate]
    own = by_rate.get(source.tax_rate, ())
    if not own:
        return others
    foreign = sum(part.gross_minor for part in others)
    # Of the VAT released, the own part is what is left when the other rates' draws took theirs in proportion.
    own_tax = largest_remainder(released, [gross - foreign, foreign])[0] if foreign else released
    return [_part(kind, source.source_id, source.tax_rate, own, tax=own_tax), *others]


def arrears_detail(of: DayCharge | Settlement) -> str:
    """Name the part of the arrears that a charge or settlement belongs to: contract, project, month it arose in."""
    month = of.month if isinstance(of, Settlement) else f"{of.day:%Y-%m}"
    return f"{of.contract}|{of.project}|{month}"


def pending_detail(kind: SourceKind, source_id: str) -> str:
    """Name the part of a customer's pending VAT that belongs to a source."""
    return f"arrears:{source_id}" if kind == "arrears" else source_id


class _Books:
    """Movements of one customer's accounts, debit positive."""

    def __init__(self, customer: str, currency: str) -> None:
        self.customer = customer
        self.currency = currency
        self.moved: dict[AccountKey, int] = defaultdict(int)

    def _move(self, code: str, amount: int, detail: str = "", asset: str = "") -> None:
        self.moved[AccountKey(code, customer=self.customer, asset=asset or self.currency, detail=detail)] += amount

    def _earn(self, part: TaxedPart) -> None:
        """Credit revenue net of tax, by what was sold and where it ran."""
        by_product: dict[str, int] = defaultdict(int)
        for draw in part.draws:
            by_product[f"{draw.charge.sku}|{draw.charge.cluster}"] += draw.amount_minor
        keys = sorted(by_product)
        taxes = split_tax(part.tax_minor, [by_product[key] for key in keys], part.tax_rate)
        for key, tax in zip(keys, taxes, strict=True):
            self._move("income:usage", -(by_product[key] - tax), key)

    def draw_funded(self, parts: Sequence[TaxedPart]) -> None:
        """Prepaid usage: the liability becomes revenue, and VAT that was pending becomes payable."""
        for part in parts:
            # At another rate than the lot's the difference is reclassified between liability and VAT in `settle`.
            self._move("liabilities:contract", part.gross_minor - part.tax_minor, part.source_id)
            self._move("liabilities:vat_pending", part.tax_minor, part.source_id)
            self._move("liabilities:vat_payable", -part.tax_minor)
            self._earn(part)

    def draw_grant(self, parts: Sequence[TaxedPart]) -> None:
        """Usage covered by a grant earns nothing; only the face value given is used up."""
        for part in parts:
            self._move("liabilities:grant", part.gross_minor, part.source_id, grant_asset(self.currency))
            self._move("equity:grant_used", -part.gross_minor, part.source_id, grant_asset(self.currency))

    def draw_receivable(self, parts: Sequence[TaxedPart]) -> None:
        """Usage on credit or in arrears: a receivable against revenue, VAT pending until the tax point."""
        for part in parts:
            if part.kind == "credit":
                self._move("assets:receivable:unbilled", part.gross_minor, part.source_id)
            else:
                for draw in part.draws:
                    self._move("assets:receivable:arrears", draw.amount_minor, arrears_detail(draw.charge))
            self._move("liabilities:vat_pending", -part.tax_minor, pending_detail(part.kind, part.source_id))
            self._earn(part)

    def draw_quantity(self, pack: str, sku: str, quantity: int) -> None:
        """Hours of a pack are used up, beside its money."""
        self._move("liabilities:pack", quantity, pack, pack_asset(sku))
        self._move("equity:pack_used", -quantity, pack, pack_asset(sku))

    def settle(self, drawdown: Drawdown, funded: Mapping[str, FundedSource], drawn: dict[str, int]) -> None:
        """Let receipts settle arrears, and close each lot's VAT on what left it in all."""
        for settled in drawdown.settlements:
            source, before = funded[settled.lot], drawn[settled.lot]
            drawn[settled.lot] = before + settled.amount_minor
            tax = source.released_tax(before + settled.amount_minor) - source.released_tax(before)
            self._move("liabilities:contract", settled.amount_minor - tax, settled.lot)
            self._move("liabilities:vat_pending", tax, settled.lot)
            self._move("assets:receivable:arrears", -settled.amount_minor, arrears_detail(settled))
        for lot, total in drawn.items():
            self._reclassify(funded[lot], total)

    def release_arrears_tax(
        self, drawdown: Drawdown, before: Mapping[str, ArrearsTax], parts: Sequence[TaxedPart]
    ) -> dict[str, ArrearsTax]:
        """Make VAT on settled arrears payable (tax point: cash); a contract that is square has none pending."""
        settled: dict[str, int] = defaultdict(int)
        for settlement in drawdown.settlements:
            settled[settlement.contract] += settlement.amount_minor
        arrears = _with_new_arrears(before, parts)
        for contract, owed in sorted(arrears.items()):
            amount = settled[contract]
            own = [part for part in parts if part.kind == "arrears" and part.source_id == contract]
            if owed.gross_minor == amount:
                tax = owed.tax_minor
            else:
                ever = _ever_owed(before.get(contract, ArrearsTax()), own)
                tax = round_half_away(Fraction(ever.tax_minor * amount, ever.gross_minor)) if ever.gross_minor else 0
            self._move("liabilities:vat_pending", tax, pending_detail("arrears", contract))
            self._move("liabilities:vat_payable", -tax)
            arrears[contract] = ArrearsTax(owed.gross_minor - amount, owed.tax_minor - tax)
        return arrears

    def _reclassify(self, source: FundedSource, total: int) -> None:
        """Move between a lot's liability and its VAT what usage at another rate took from one instead of the other."""
        should = source.released_tax(total) - source.released_tax(source.drawn_before_minor)
        key = AccountKey("liabilities:vat_pending", self.customer, self.currency, source.source_id)
        difference = should - self.moved.get(key, 0)
        if difference:
            self._move("liabilities:vat_pending", difference, source.source_id)
            self._move("liabilities:contract", -difference, source.source_id)

    def done(self) -> dict[AccountKey, int]:
        """Return what moved, without zeros; a sum other than zero is a broken promise."""
        sums: dict[str, int] = defaultdict(int)
        for key, amount in self.moved.items():
            sums[key.asset] += amount
        if any(sums.values()):
            raise ArithmeticError(f"an accrual of {self.customer} does not balance: {dict(sums)}")
        return {key: amount for key, amount in sorted(self.moved.items()) if amount}
