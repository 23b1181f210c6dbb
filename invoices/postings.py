"""What documents and payments post: a bill confirmed, a bill paid."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from fractions import Fraction

from base.money import round_half_away
from invoices.document import DocumentContent
from ledger.accounts import AccountKey
from ledger.journal import Transaction, transaction_from_movements


def bill_confirmed(invoice: DocumentContent) -> Transaction:
    """Turn what was used on credit into an open bill."""
    contract, customer = invoice.contracts[0], invoice.customer.id
    moved = {
        AccountKey("assets:receivable:billed", customer, invoice.currency, contract): invoice.total_minor,
        AccountKey("assets:receivable:unbilled", customer, invoice.currency, contract): -invoice.total_minor,
    }
    return transaction_from_movements(
        "bill",
        f"bill:{customer}:{invoice.month}:{contract}",
        moved,
        effective_on=invoice.last_day,
        narration=f"Invoice {invoice.number}",
        metadata={"period": invoice.month, "number": invoice.number},
    )


def bill_paid(  # the payment date is the tax point of what was not taxed before
    invoice: DocumentContent, amount_minor: int, *, paid_before_minor: int, reference: str, paid_on: date
) -> Transaction:
    """Settle a bill, in part or in full; VAT falls due in proportion, cumulatively, so the last cent closes it."""
    contract, customer, money = invoice.contracts[0], invoice.customer.id, invoice.currency
    due = _tax_due(invoice, paid_before_minor + amount_minor) - _tax_due(invoice, paid_before_minor)
    moved: Mapping[AccountKey, int] = {
        AccountKey("assets:bank", asset=money): amount_minor,
        AccountKey("assets:receivable:billed", customer, money, contract): -amount_minor,
        AccountKey("liabilities:vat_pending", customer, money, contract): due,
        AccountKey("liabilities:vat_payable", customer, money): -due,
    }
    return transaction_from_movements(
        "payment",
        f"payment:{customer}:{reference}",
        moved,
        effective_on=paid_on,
        narration=f"Payment of invoice {invoice.number}, {reference}",
        metadata={"number": invoice.number},
    )


def _tax_due(invoice: DocumentContent, paid_minor: int) -> int:
    return round_half_away(Fraction(invoice.tax_minor * paid_minor, invoice.total_minor))
