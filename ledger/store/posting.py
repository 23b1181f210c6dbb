"""`post()`: the only writer of money. One transaction, one conditional update per account, one link of the chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, insert, or_, select, update
from sqlalchemy.orm import Session

from base.columns import EPOCH, BigInt
from ledger.accounts import AccountKey, normal_balance
from ledger.funding import FundingSource, sources_hash
from ledger.journal import GENESIS, OWNER, Posting, Transaction, canonical_json, chain_hash
from ledger.store.reading import transaction_by_key
from ledger.store.tables import ACCOUNT, BALANCE, FUNDING, HEAD, POSTING, TRANSACTION

# Accounts looked up at once: SQLite takes no condition that is nested deeper than 1,000.
LOOKUP_SIZE = 100


class BusinessKeyConflictError(ValueError):
    """A business fact is already posted with other content."""

    def __init__(self, business_key: str, sequence: int) -> None:
        super().__init__(
            f"{business_key!r} is already posted (transaction {sequence}) with other content; "
            "reverse that transaction first, or use the key of another fact"
        )
        self.business_key = business_key
        self.sequence = sequence


class ReversalError(ValueError):
    """A transaction that does not undo what it says it undoes, or undoes it a second time."""


class InsufficientFundsError(ValueError):
    """A lot, pack or grant has less left than a charge wants to take from it."""

    def __init__(self, account: AccountKey, wanted: int, available: int) -> None:
        super().__init__(f"{account} has {available} left in its smallest unit; {wanted} cannot be taken from it")
        self.account = account
        self.wanted = wanted
        self.available = available


@dataclass(frozen=True)
class Posted:
    """Where a transaction stands in the journal; `repeated` if it stood there before."""

    sequence: int
    hash: str
    repeated: bool


@dataclass(frozen=True)
class _Account:
    id: int
    version: int  # before the transaction moves it; nobody else can, as the chain's end is ours


_HEAD = select(HEAD.c.sequence, HEAD.c.hash).where(HEAD.c.owner == OWNER).with_for_update()
_MOVE_HEAD = (
    update(HEAD).where(HEAD.c.owner == OWNER).values(sequence=bindparam("new_sequence"), hash=bindparam("new_hash"))
)
_FIND = select(TRANSACTION.c.sequence, TRANSACTION.c.hash, TRANSACTION.c.request_hash).where(
    TRANSACTION.c.business_key == bindparam("key")
)
_KEY = (ACCOUNT.c.code, ACCOUNT.c.customer, ACCOUNT.c.asset, ACCOUNT.c.detail)
_MOVED = select(BALANCE.c.account_id, BALANCE.c.version, BALANCE.c.debit_posted - BALANCE.c.credit_posted).where(
    BALANCE.c.account_id.in_(bindparam("accounts", expanding=True))
)
_DEBIT, _CREDIT = bindparam("debit", type_=BigInt), bindparam("credit", type_=BigInt)
_GUARD = bindparam("guard", type_=BigInt)
# The condition travels with the write, so two charges can never both take a lot's last cent. `guard` is 0 where
# the balance may go anywhere, 1 or -1 (debit or credit side) where it may not fall below 0.
_MOVE_ACCOUNT = (
    update(BALANCE)
    .where(BALANCE.c.account_id == bindparam("account"))
    .where((BALANCE.c.debit_posted + _DEBIT - BALANCE.c.credit_posted - _CREDIT) * _GUARD >= 0)
    .values(
        debit_posted=BALANCE.c.debit_posted + _DEBIT,
        credit_posted=BALANCE.c.credit_posted + _CREDIT,
        version=BALANCE.c.version + 1,
    )
)


def post(session: Session, transaction: Transaction, now: datetime) -> Posted:
    """Post a transaction once, inside the caller's database transaction: it counts when the caller commits.

    The same business fact posted again gives the first result; with other content it is refused. A charge that would
    take a lot, pack or grant below 0 is refused. Whatever is refused leaves nothing behind.
    """
    connection = session.connection()
    sequence, previous = _lock_head(connection)
    first = connection.execute(_FIND, {"key": transaction.business_key}).one_or_none()
    if first is not None:
        if first.request_hash != transaction.request_hash():
            raise BusinessKeyConflictError(transaction.business_key, first.sequence)
        return Posted(first.sequence, first.hash, repeated=True)
    with connection.begin_nested():
        row = _sealed_row(connection, transaction, sequence + 1, previous, now)
        connection.execute(insert(TRANSACTION), row)
        _move(connection, transaction, sequence + 1)
        connection.execute(_MOVE_HEAD, {"new_sequence": sequence + 1, "new_hash": row["hash"]})
    return Posted(sequence + 1, row["hash"], repeated=False)


def post_with_sources(
    session: Session, transaction: Transaction, sources: Sequence[FundingSource], now: datetime
) -> Posted:
    """Post a receipt, pack or grant together with the funding sources that it makes, once."""
    # The fingerprint in the metadata puts the sources under the protection of the chain.
    sealed = replace(transaction, metadata={**transaction.metadata, "sources_sha256": sources_hash(sources)})
    posted = post(session, sealed, now)
    if sources and not posted.repeated:
        rows = [
            {**source.__dict__, "tax_rate": str(source.tax_rate), "sequence": posted.sequence} for source in sources
        ]
        session.connection().execute(insert(FUNDING), rows)
    return posted


def _lock_head(connection: Connection) -> tuple[int, str]:
    # The chain has one end, so writers queue here: by a row lock where the whole database is not locked anyway.
    row = connection.execute(_HEAD).one_or_none()
    if row is None:
        connection.execute(insert(HEAD), {"owner": OWNER, "sequence": 0, "hash": GENESIS})
        return 0, GENESIS
    return row.sequence, row.hash


def _sealed_row(
    connection: Connection, transaction: Transaction, sequence: int, previous: str, now: datetime
) -> dict[str, Any]:
    """Return the transaction's row with its link of the chain, which covers every column and every posting."""
    row: dict[str, Any] = {
        "owner": OWNER,
        "kind": transaction.kind,
        "business_key": transaction.business_key,
        "idempotency_key": transaction.idempotency_key,
        "request_hash": transaction.request_hash(),
        "effective_on": transaction.effective_on,
        "recorded_at": now,
        "customer": transaction.customer,
        "period": transaction.period,
        "narration": transaction.narration,
        "metadata": canonical_json(transaction.metadata).decode(),
        "reverses": _reversed_sequence(connection, transaction),
    }
    legs = [[*_fields(leg.account), leg.side, leg.amount_minor] for leg in sorted(transaction.postings)]
    as_stored = {
        "effective_on": transaction.effective_on.isoformat(),
        "recorded_at": (now - EPOCH) // timedelta(microseconds=1),
    }
    sealed = chain_hash(sequence, previous, canonical_json({**row, **as_stored, "postings": legs}))
    return {**row, "sequence": sequence, "previous_hash": previous, "hash": sealed}


def _reversed_sequence(connection: Connection, transaction: Transaction) -> int | None:
    key = transaction.reverses
    if not key:
        return None
    original = transaction_by_key(connection, key)
    if original is None:
        raise ReversalError(f"{key!r} was never posted, so nothing can be reversed")
    undone = select(TRANSACTION.c.business_key).where(TRANSACTION.c.reverses == original.sequence)
    if (other := connection.execute(undone).scalar()) is not None:
        raise ReversalError(f"{key!r} is already reversed, by {other!r}")
    if transaction.movements() != {account: -moved for account, moved in original.transaction.movements().items()}:
        raise ReversalError(f"{transaction.business_key!r} is not the exact opposite of {key!r}")
    return original.sequence


def _move(connection: Connection, transaction: Transaction, sequence: int) -> None:
    """Move every account once, in order of account, and write its posting with the version that the move made."""
    legs = sorted(transaction.postings, key=lambda leg: leg.account)
    accounts = _accounts(connection, [leg.account for leg in legs])
    connection.execute(_MOVE_ACCOUNT, [_move_of(leg, accounts[leg.account].id) for leg in legs])
    moved = connection.execute(_MOVED, {"accounts": [account.id for account in accounts.values()]})
    after = {number: (version, balance) for number, version, balance in moved}
    rows = []
    for line, leg in enumerate(legs, start=1):
        account = accounts[leg.account]
        version, balance = after[account.id]
        if version != account.version + 1:
            raise InsufficientFundsError(leg.account, leg.amount_minor, normal_balance(leg.account, balance))
        rows.append(
            {
                "sequence": sequence,
                "line": line,
                "owner": OWNER,
                "account_id": account.id,
                "side": leg.side,
                "amount_minor": leg.amount_minor,
                "balance_after": balance,
                "account_version": version,
            }
        )
    connection.execute(insert(POSTING), rows)


def _move_of(leg: Posting, account_id: int) -> dict[str, int]:
    kind = leg.account.kind
    guarded = kind.has_floor and leg.side != kind.normal_side
    return {
        "account": account_id,
        "debit": leg.amount_minor if leg.side == "debit" else 0,
        "credit": leg.amount_minor if leg.side == "credit" else 0,
        "guard": normal_balance(leg.account, 1) if guarded else 0,
    }


def _accounts(connection: Connection, keys: Sequence[AccountKey]) -> dict[AccountKey, _Account]:
    accounts: dict[AccountKey, _Account] = {}
    for start in range(0, len(keys), LOOKUP_SIZE):
        some = keys[start : start + LOOKUP_SIZE]
        named = {
            f"{column.name}_{number}": part
            for number, key in enumerate(some)
            for column, part in zip(_KEY, _fields(key), strict=True)
        }
        for number, version, *fields in connection.execute(_find_accounts(len(some)), named):
            accounts[AccountKey(*fields)] = _Account(number, version)
    for key in keys:
        if key not in accounts:
            accounts[key] = _Account(_open_account(connection, key), 0)
    return accounts


@lru_cache(maxsize=256)
def _find_accounts(count: int) -> Select[Any]:
    # One condition per account, each answered by the index: SQLite would scan all accounts for a list of tuples.
    conditions = [
        and_(ACCOUNT.c.owner == OWNER, *(column == bindparam(f"{column.name}_{number}") for column in _KEY))
        for number in range(count)
    ]
    return select(ACCOUNT.c.id, BALANCE.c.version, *_KEY).join_from(ACCOUNT, BALANCE).where(or_(*conditions))


def _open_account(connection: Connection, account: AccountKey) -> int:
    row = {
        "owner": OWNER,
        "code": account.code,
        "customer": account.customer,
        "asset": account.asset,
        "detail": account.detail,
        "normal_side": account.kind.normal_side,
        "has_floor": account.kind.has_floor,
    }
    number: int = connection.execute(insert(ACCOUNT).returning(ACCOUNT.c.id), row).scalar_one()
    counters = dict.fromkeys(("debit_posted", "credit_posted", "debit_pending", "credit_pending", "version"), 0)
    connection.execute(insert(BALANCE), {"account_id": number, **counters})
    return number


def _fields(account: AccountKey) -> tuple[str, str, str, str]:
    return account.code, account.customer, account.asset, account.detail
