"""What supplier cost posts to the ledger: accrued at month end, reversed in full, booked with the bill, paid.

Movements are minor units by account, debit positive; they add up to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from base.money import included_tax
from ledger.accounts import AccountKey
from reconciliation.match import ContractCost

COST = "expenses:cost"  # detail: the cluster
INPUT_VAT = "assets:input_vat"
ACCRUAL = "liabilities:supplier_accrual"  # detail: the supplier contract
PAYABLE = "liabilities:supplier_payable"  # likewise
BANK = "assets:bank"

Movements = dict[AccountKey, int]


def accrual_key(month: str, contract: str) -> str:
    """Name the business fact that a contract's cost of a month is accrued, so that it is posted once."""
    return f"supplier-accrual:{month}:{contract}"


def accrue(cost: ContractCost, currency: str) -> Movements:
    """Return a month's cost without a bill yet: net of VAT, as input VAT is due only with the fapiao."""
    return _movements(
        {
            AccountKey(COST, asset=currency, detail=cost.cluster): cost.net_minor,
            AccountKey(ACCRUAL, asset=currency, detail=cost.contract): -cost.net_minor,
        }
    )


def reverse(movements: Mapping[AccountKey, int]) -> Movements:
    """Return the opposite: an accrual is taken back in full before the bill is booked."""
    return {account: -minor for account, minor in movements.items()}


def book_bill(cost: ContractCost, billed_minor: int, *, special_fapiao: bool, currency: str) -> Movements:
    """Return a confirmed bill: only a special fapiao lets its input VAT be deducted, else all of it is cost."""
    tax = included_tax(billed_minor, cost.tax_rate) if special_fapiao else 0
    return _movements(
        {
            AccountKey(COST, asset=currency, detail=cost.cluster): billed_minor - tax,
            AccountKey(INPUT_VAT, asset=currency, detail=cost.contract): tax,
            AccountKey(PAYABLE, asset=currency, detail=cost.contract): -billed_minor,
        }
    )


def pay(contract: str, amount_minor: int, *, currency: str) -> Movements:
    """Return a supplier's bill being paid from the bank."""
    return _movements(
        {
            AccountKey(PAYABLE, asset=currency, detail=contract): amount_minor,
            AccountKey(BANK, asset=currency): -amount_minor,
        }
    )


def _movements(amounts: Mapping[AccountKey, int]) -> Movements:
    """Leave out what does not move, and refuse what would not balance."""
    if sum(amounts.values()):
        raise ArithmeticError(f"movements are off by {sum(amounts.values())} minor units; nothing was posted")
    return {account: minor for account, minor in amounts.items() if minor}
