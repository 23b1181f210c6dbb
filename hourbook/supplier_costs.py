"""What capacity cost in a month, accrued in the books: net of VAT, by the difference to what was accrued before."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlmodel import Session

from base.period import month_days
from hourbook.reading import Reading
from hourbook.reconciliation_run import reconcile_month
from ledger import store as ledger
from ledger.accounts import AccountKey
from ledger.journal import transaction_from_movements
from ledger.store.tables import TRANSACTION
from reconciliation.match import ContractCost
from reconciliation.postings import accrual_key, accrue

KIND = "supplier_accrual"


def accrue_supplier_costs(reading: Reading, month: str) -> int:
    """Post every supplier contract's cost of a month, less what was posted for it; return how many changed."""
    reconciled = reconcile_month(reading, month)
    costs = [cost for check in reconciled.suppliers for cost in check.result.costs]
    return sum(_post(reading, month, cost, reconciled.currency) for cost in _by_contract(costs))


def _by_contract(costs: Sequence[ContractCost]) -> list[ContractCost]:
    return sorted(costs, key=lambda cost: cost.contract)


def _post(reading: Reading, month: str, cost: ContractCost, currency: str) -> bool:
    session = reading.session
    key = accrual_key(month, cost.contract)
    difference = dict(accrue(cost, currency))
    for account, amount in _posted(session, month, cost).items():
        difference[account] = difference.get(account, 0) - amount
    if not any(difference.values()):
        return False
    number = _count(session, key) + 1
    transaction = transaction_from_movements(
        KIND,
        f"{key}:{number}",
        difference,
        effective_on=month_days(month)[1],
        narration=f"Cost of {cost.cluster} in {month} under {cost.contract}",
        metadata={"period": month, "contract": cost.contract},
    )
    ledger.post(session, transaction, reading.home.now())
    return True


def _posted(session: Session, month: str, cost: ContractCost) -> dict[AccountKey, int]:
    moved: dict[AccountKey, int] = {}
    for recorded in ledger.transactions(session, kinds=(KIND,), periods=(month,)):
        if recorded.transaction.metadata.get("contract") == cost.contract:
            for account, amount in recorded.transaction.movements().items():
                moved[account] = moved.get(account, 0) + amount
    return moved


def _count(session: Session, key: str) -> int:
    query = select(func.count()).where(TRANSACTION.c.business_key.startswith(f"{key}:", autoescape=True))
    return int(session.connection().execute(query).scalar_one())
