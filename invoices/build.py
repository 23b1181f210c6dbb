"""From a customer's month to its documents: invoices for what stands on credit, a statement for the rest.

A line that was drawn partly on credit and partly on prepaid money stands on both documents, each with its part in
cents. The sum of a document's lines is the sum of the draws it shows, which is what accrual posted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction

from base.money import decimal_text, split_tax
from base.period import month_days
from invoices.document import (
    DayUsage,
    DocumentContent,
    DocumentLine,
    Kind,
    Party,
    ShareRow,
    TaxGroup,
)
from invoices.labels import price_source
from invoices.month import CustomerMonth
from invoices.tax import rate_text
from invoices.wallet import wallet_of
from ledger.accrual import TaxedPart
from ledger.drawdown import Draw
from ledger.funding import FundingSource
from pricing.charges import UNIT_SCALE, ChargeLine
from pricing.models import Contract, Customer, Operator, Sku

QUANTITY_DIGITS = 6


@dataclass(frozen=True)
class Printed:
    """What documents say besides a month's charges."""

    operator: Operator
    customer: Customer
    contracts: Mapping[str, Contract]
    skus: Mapping[str, Sku]
    sources: Sequence[FundingSource]  # the customer's lots, packs and grants as of the close
    known_before: frozenset[str]  # sources that the previous statement showed
    issued_on: date
    pins: dict[str, int | str] = field(default_factory=dict)
    ledger_head: tuple[int, str] = (0, "")


def build_documents(month: CustomerMonth, printed: Printed) -> tuple[DocumentContent, ...]:
    """Return the customer's documents of a month, not numbered yet: an invoice per contract on credit, a statement."""
    on_credit = sorted({draw.source_id for draw in month.drawdown.draws if draw.kind == "credit"})
    documents = [_document(month, printed, "invoice", _on_invoice(number), (number,)) for number in on_credit]
    if _wants_statement(month, printed):
        contracts = tuple(sorted(_contracts_of_statement(month, printed)))
        documents.append(_document(month, printed, "statement", _on_statement, contracts))
    return tuple(documents)


def _on_invoice(contract: str) -> Callable[[TaxedPart], bool]:
    return lambda part: part.kind == "credit" and part.source_id == contract


def _on_statement(part: TaxedPart) -> bool:
    return part.kind != "credit"


def _contracts_of_statement(month: CustomerMonth, printed: Printed) -> set[str]:
    drawn = {draw.charge.contract for draw in month.drawdown.draws if draw.kind != "credit"}
    first, last = month_days(month.month)
    prepaid = {
        number
        for number, contract in printed.contracts.items()
        if contract.billing == "prepaid" and contract.valid_from <= last and contract.last_day >= first
    }
    return drawn | prepaid


def _wants_statement(month: CustomerMonth, printed: Printed) -> bool:
    """Everybody who used, has, had or owes prepaid money gets a statement."""
    _, last = month_days(month.month)
    return (
        any(draw.kind != "credit" for draw in month.drawdown.draws)
        or any(source.received_on <= last for source in printed.sources)
        or bool(month.opening.means.arrears)
    )


def _document(
    month: CustomerMonth,
    printed: Printed,
    kind: Kind,
    shows: Callable[[TaxedPart], bool],
    contracts: tuple[str, ...],
) -> DocumentContent:
    shown = [part for part in month.accrual.parts if shows(part)]
    draws = [draw for part in shown for draw in part.draws]
    lines = _lines(month, printed, shown)
    first, last = month_days(month.month)
    total, tax = sum(line.amount_minor for line in lines), sum(line.tax_minor for line in lines)
    customer, operator = printed.customer, printed.operator
    credit = printed.contracts[contracts[0]] if kind == "invoice" else None
    ids = {draw.charge.line_id for draw in draws}
    usage = [line for line in month.lines if line.category == "Usage" and line.key.line_id in ids]
    return DocumentContent(
        kind=kind,
        number="",
        series="",
        issuer=_issuer(operator),
        customer=_recipient(customer),
        contracts=contracts,
        language=customer.language,
        currency=operator.currency,
        month=month.month,
        timezone=_timezone(contracts, printed),
        first_day=first,
        last_day=last,
        issued_on=printed.issued_on,
        due_on=printed.issued_on + timedelta(days=credit.payment_days or 0) if credit else None,
        lines=lines,
        usage_by_day=_usage_by_day(usage, draws),
        by_project=_shares(month, draws, lambda project, _: project, _project_names(customer)),
        by_user=_shares(month, draws, lambda _, user: user, {}),
        tax=_tax_groups(shown),
        total_minor=total,
        tax_minor=tax,
        net_minor=total - tax,
        wallet=wallet_of(month, printed.sources, printed.known_before, printed.skus) if kind == "statement" else None,
        pins=printed.pins,
        ledger_head=printed.ledger_head,
    )


def _issuer(operator: Operator) -> Party:
    return Party(
        operator.id,
        operator.name,
        operator.name_en,
        operator.address,
        operator.address_en,
        operator.tax_id,
        operator.phone,
        operator.email,
        operator.bank,
        operator.bank_account,
    )


def _recipient(customer: Customer) -> Party:
    return Party(
        customer.id,
        customer.name,
        customer.name_en,
        customer.address,
        tax_id=customer.tax_id,
        email=customer.email,
    )


def _timezone(contracts: Sequence[str], printed: Printed) -> str:
    zones = [printed.contracts[number].timezone for number in contracts if number in printed.contracts]
    return next((zone for zone in zones if zone), printed.operator.billing_timezone)


def _project_names(customer: Customer) -> dict[str, str]:
    english = customer.language == "en"
    return {p.id: (p.name_en if english and p.name_en else p.name) for p in customer.projects}


def _lines(month: CustomerMonth, printed: Printed, shown: Sequence[TaxedPart]) -> tuple[DocumentLine, ...]:
    amounts: dict[str, int] = defaultdict(int)
    taxes: dict[str, int] = defaultdict(int)
    for part in shown:
        by_line: dict[str, int] = defaultdict(int)
        for draw in part.draws:
            by_line[draw.charge.line_id] += draw.amount_minor
        split = split_tax(part.tax_minor, list(by_line.values()), _rate_of(part))
        for (line_id, amount), tax in zip(by_line.items(), split, strict=True):
            amounts[line_id] += amount
            taxes[line_id] += tax
    parts = _parts_by_line(month.drawdown.draws)
    charged = [(line, line.category) for line in month.lines] + [(line, "Adjustment") for line in month.adjustments]
    ordered = sorted(
        ((line, category) for line, category in charged if line.key.line_id in amounts),
        key=lambda pair: (pair[0].key.original_month != month.month, pair[1] != "Usage", pair[0].key),
    )
    return tuple(
        _line(n, line, category, printed, parts[line.key.line_id], amounts[line.key.line_id], taxes[line.key.line_id])
        for n, (line, category) in enumerate(ordered, start=1)
    )


def _rate_of(part: TaxedPart) -> Fraction:
    # What a grant covers earns nothing, so no tax lies in it.
    return Fraction(0) if part.kind == "grant" else part.tax_rate


def _parts_by_line(draws: Iterable[Draw]) -> dict[str, dict[str, int]]:
    parts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for draw in draws:
        parts[draw.charge.line_id][draw.kind] += draw.amount_minor
    return {line_id: dict(sorted(kinds.items())) for line_id, kinds in parts.items()}


def _line(  # noqa: PLR0913, PLR0917 - the columns of a line
    n: int, line: ChargeLine, category: str, printed: Printed, parts: dict[str, int], amount_minor: int, tax_minor: int
) -> DocumentLine:
    sku = printed.skus[line.key.sku]
    return DocumentLine(
        n=n,
        line_id=line.key.line_id,
        sku=sku.id,
        sku_name=sku.name,
        sku_name_en=sku.name_en,
        product=line.product,
        category=category,  # type: ignore[arg-type]
        original_month=line.key.original_month,
        price_source=price_source(line.key.sku_price_id, line.reference, printed.customer.language),
        tier=line.key.tier,
        quantity=decimal_text(line.exact_quantity, QUANTITY_DIGITS),
        unit=line.unit,
        unit_price=f"{line.unit_price:f}",
        list_unit_price="" if line.list_unit_price is None else f"{line.list_unit_price:f}",
        line_amount_minor=line.amount_minor,
        parts=parts,
        amount_minor=amount_minor,
        tax_rate=rate_text(line.tax_rate),
        tax_minor=tax_minor,
    )


def _usage_by_day(usage: Sequence[ChargeLine], draws: Sequence[Draw]) -> tuple[DayUsage, ...]:
    hours: dict[tuple[date, str], int] = defaultdict(int)
    amounts: dict[date, int] = defaultdict(int)
    for line in usage:
        for split in line.splits:
            hours[split.day, line.unit] += split.quantity
    for draw in draws:
        amounts[draw.charge.usage_day] += draw.amount_minor
    days = sorted({day for day, _ in hours})
    return tuple(
        DayUsage(day, _hours(hours[day, "core-hour"]), _hours(hours[day, "card-hour"]), amounts[day]) for day in days
    )


def _hours(milliseconds: int) -> str:
    return decimal_text(Fraction(milliseconds, UNIT_SCALE["core-hour"]), QUANTITY_DIGITS)


def _shares(
    month: CustomerMonth, draws: Sequence[Draw], place: Callable[[str, str], str], names: Mapping[str, str]
) -> tuple[ShareRow, ...]:
    amounts: dict[str, int] = defaultdict(int)
    quantities: dict[str, dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    for draw in draws:
        amounts[place(draw.charge.project, draw.charge.user)] += draw.amount_minor
    ids = {draw.charge.line_id for draw in draws}
    for line in month.lines:
        if line.key.line_id in ids and line.category == "Usage":
            for split in line.splits:
                share = Fraction(split.quantity, UNIT_SCALE[line.unit])
                quantities[place(split.project, split.user)][line.unit] += share
    return tuple(
        ShareRow(
            name,
            names.get(name, name),
            {unit: decimal_text(share, QUANTITY_DIGITS) for unit, share in sorted(quantities[name].items())},
            amounts[name],
        )
        for name in sorted({*amounts, *quantities})
        if amounts[name] or quantities[name]
    )


def _tax_groups(shown: Sequence[TaxedPart]) -> tuple[TaxGroup, ...]:
    groups: dict[Fraction, list[int]] = defaultdict(lambda: [0, 0])
    for part in shown:
        group = groups[_rate_of(part)]
        group[0] += part.gross_minor
        group[1] += part.tax_minor
    return tuple(TaxGroup(rate_text(r), gross, tax, gross - tax) for r, (gross, tax) in sorted(groups.items()))
