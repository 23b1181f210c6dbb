"""What the ledger answers: balances, movements, transactions and funding sources, now or as of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

import orjson
from sqlalchemy import Connection, RowMapping, Select, case, func, select
from sqlalchemy.orm import Session

from ledger.accounts import AccountKey, Side
from ledger.funding import FundingSource
from ledger.journal import GENESIS, Posting, Transaction
from ledger.store.tables import ACCOUNT, BALANCE, FUNDING, POSTING, TRANSACTION

_KEY = (ACCOUNT.c.code, ACCOUNT.c.customer, ACCOUNT.c.asset, ACCOUNT.c.detail)
_SIGNED = case((POSTING.c.side == "debit", POSTING.c.amount_minor), else_=-POSTING.c.amount_minor)
_JOURNAL = POSTING.join(TRANSACTION, POSTING.c.sequence == TRANSACTION.c.sequence).join(
    ACCOUNT, ACCOUNT.c.id == POSTING.c.account_id
)
_COUNTERS: Select[Any] = select(*_KEY, BALANCE.c.debit_posted - BALANCE.c.credit_posted).join_from(ACCOUNT, BALANCE)
_MOVED: Select[Any] = select(*_KEY, func.sum(_SIGNED)).select_from(_JOURNAL).group_by(*_KEY)
_REVERSED = TRANSACTION.alias("reversed")
# Transactions leg by leg, in order.
_LEGS = (
    select(
        TRANSACTION,
        ACCOUNT.c.code,
        ACCOUNT.c.customer.label("account_customer"),
        ACCOUNT.c.asset,
        ACCOUNT.c.detail,
        POSTING.c.side,
        POSTING.c.amount_minor,
        _REVERSED.c.business_key.label("reversed_key"),
    )
    .select_from(_JOURNAL.outerjoin(_REVERSED, _REVERSED.c.sequence == TRANSACTION.c.reverses))
    .order_by(POSTING.c.sequence, POSTING.c.line)
)


@dataclass(frozen=True)
class Recorded:
    """A transaction as it stands in the journal."""

    sequence: int
    recorded_at: datetime
    hash: str
    transaction: Transaction


def head(session: Session, up_to_seq: int | None = None) -> tuple[int, str]:
    """Return sequence and hash of the last transaction; (0, zeros) of an empty journal."""
    query = select(TRANSACTION.c.sequence, TRANSACTION.c.hash).order_by(TRANSACTION.c.sequence.desc()).limit(1)
    if up_to_seq is not None:
        query = query.where(TRANSACTION.c.sequence <= up_to_seq)
    row = session.connection().execute(query).one_or_none()
    return (row.sequence, row.hash) if row else (0, GENESIS)


def balances(
    session: Session,
    *,
    customer: str | None = None,
    code: str | None = None,
    up_to_seq: int | None = None,
    exclude_kinds: Sequence[str] = (),
) -> dict[AccountKey, int]:
    """Return balances by account, debit positive, accounts at 0 included; as of a sequence where one is given."""
    query = _COUNTERS
    if up_to_seq is not None or exclude_kinds:
        query = _restricted(_MOVED, up_to_seq=up_to_seq).where(TRANSACTION.c.kind.not_in(exclude_kinds))
    if customer is not None:
        query = query.where(ACCOUNT.c.customer == customer)
    if code is not None:
        query = query.where(ACCOUNT.c.code == code)
    return _sums(session, query)


def movements(
    session: Session,
    *,
    customer: str | None = None,
    kinds: Sequence[str] = (),
    periods: Sequence[str] = (),
    up_to_seq: int | None = None,
) -> dict[AccountKey, int]:
    """Return what transactions of a customer, of these kinds and billing months, moved by account, debit positive.

    Every leg of them is in it, on the operator's own accounts too. What is not given does not restrict.
    """
    return _sums(session, _restricted(_MOVED, customer=customer, kinds=kinds, periods=periods, up_to_seq=up_to_seq))


def transactions(
    session: Session,
    *,
    customer: str | None = None,
    kinds: Sequence[str] = (),
    periods: Sequence[str] = (),
    up_to_seq: int | None = None,
    business_key: str | None = None,
) -> list[Recorded]:
    """Return transactions with their postings, oldest first."""
    query = _restricted(_LEGS, customer=customer, kinds=kinds, periods=periods, up_to_seq=up_to_seq)
    if business_key is not None:
        query = query.where(TRANSACTION.c.business_key == business_key)
    return _recorded(session.connection(), query)


def transaction_by_key(connection: Connection, business_key: str) -> Recorded | None:
    """Return the transaction of a business fact, if it was posted."""
    found = _recorded(connection, _LEGS.where(TRANSACTION.c.business_key == business_key))
    return found[0] if found else None


def funding_sources(
    session: Session, *, customer: str | None = None, up_to_seq: int | None = None
) -> list[FundingSource]:
    """Return the lots, packs and grants recorded so far, oldest first."""
    query = select(FUNDING).order_by(FUNDING.c.sequence, FUNDING.c.id)
    if customer is not None:
        query = query.where(FUNDING.c.customer == customer)
    if up_to_seq is not None:
        query = query.where(FUNDING.c.sequence <= up_to_seq)
    return [_source(dict(row)) for row in session.connection().execute(query).mappings()]


def _restricted(
    query: Select[Any],
    *,
    customer: str | None = None,
    kinds: Sequence[str] = (),
    periods: Sequence[str] = (),
    up_to_seq: int | None = None,
) -> Select[Any]:
    if customer is not None:
        query = query.where(TRANSACTION.c.customer == customer)
    if kinds:
        query = query.where(TRANSACTION.c.kind.in_(kinds))
    if periods:
        query = query.where(TRANSACTION.c.period.in_(periods))
    if up_to_seq is not None:
        query = query.where(TRANSACTION.c.sequence <= up_to_seq)
    return query


def _sums(session: Session, query: Select[Any]) -> dict[AccountKey, int]:
    rows = session.connection().execute(query)
    return {AccountKey(code, customer, asset, detail): int(total) for code, customer, asset, detail, total in rows}


def _recorded(connection: Connection, query: Select[Any]) -> list[Recorded]:
    legs: dict[int, list[RowMapping]] = {}
    for row in connection.execute(query).mappings():
        legs.setdefault(row["sequence"], []).append(row)
    return [_one_recorded(rows) for rows in legs.values()]


def _one_recorded(legs: list[RowMapping]) -> Recorded:
    first = legs[0]
    transaction = Transaction(
        kind=first["kind"],
        business_key=first["business_key"],
        effective_on=first["effective_on"],
        narration=first["narration"],
        postings=tuple(_posting(leg) for leg in legs),
        metadata=orjson.loads(first["metadata"]),
        idempotency_key=first["idempotency_key"],
        reverses=first["reversed_key"] or "",
    )
    return Recorded(first["sequence"], first["recorded_at"], first["hash"], transaction)


def _posting(leg: RowMapping) -> Posting:
    account = AccountKey(leg["code"], leg["account_customer"], leg["asset"], leg["detail"])
    return Posting(account, cast("Side", leg["side"]), leg["amount_minor"])


def _source(row: dict[str, Any]) -> FundingSource:
    row.pop("sequence")
    return FundingSource(**{**row, "tax_rate": Decimal(row["tax_rate"])})
