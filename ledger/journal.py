"""The journal: balanced transactions that are only ever added to, and the chain that shows if one was altered."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import orjson

from base.money import MAX_MINOR
from ledger.accounts import AccountKey, Side

MIN_POSTINGS = 2
# The only kind of transaction that may move money from one customer to another.
TRANSFER = "transfer"
CHAIN_VERSION = b"hourbook-ledger-1"
# The hash that stands before the first transaction.
GENESIS = "0" * 64
# A home keeps the books of one legal entity; its transactions never mix with another's.
OWNER = "operator"

MetadataValue = str | int


class UnbalancedError(ValueError):
    """Postings that are not a transaction: too few, not whole positive amounts, or debits and credits differ."""


class MixedCustomersError(ValueError):
    """A transaction that would spend one customer's money for another."""


@dataclass(frozen=True, order=True)
class Posting:
    """One leg of a transaction: a side of an account and a positive amount in the asset's smallest unit."""

    account: AccountKey
    side: Side
    amount_minor: int

    def __post_init__(self) -> None:
        if isinstance(self.amount_minor, bool) or not isinstance(self.amount_minor, int):
            raise UnbalancedError(f"{self.account}: {self.amount_minor!r} is not a whole number of the smallest unit")
        if not 0 < self.amount_minor < MAX_MINOR:
            raise UnbalancedError(f"{self.account}: a posting is more than 0 and below 2^62, not {self.amount_minor}")
        if self.side not in {"debit", "credit"}:
            raise UnbalancedError(f"{self.account}: side is debit or credit, not {self.side!r}")

    @property
    def signed_minor(self) -> int:
        """The amount, debit positive."""
        return self.amount_minor if self.side == "debit" else -self.amount_minor

    def opposite(self) -> Posting:
        """Return the leg that undoes this one."""
        return Posting(self.account, "credit" if self.side == "debit" else "debit", self.amount_minor)


@dataclass(frozen=True)
class Transaction:
    """Legs that balance in every asset, posted together or not at all, for one business fact."""

    kind: str  # "accrual", "receipt", "bill", …
    business_key: str  # names the fact; one fact is posted once
    effective_on: date
    narration: str
    postings: tuple[Posting, ...]
    # "period" names the billing month that the transaction belongs to, if any: movements are asked for by it.
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    idempotency_key: str = ""
    reverses: str = ""  # business key of the transaction that this one undoes

    def __post_init__(self) -> None:
        if not self.kind or not self.business_key:
            raise UnbalancedError("a transaction needs a kind and the key of its business fact")
        _check_metadata(self.business_key, self.metadata)
        _check_balanced(self.business_key, self.postings)
        _check_one_customer(self)

    @property
    def customer(self) -> str:
        """The one customer whose accounts it touches; "" where there is none or more than one."""
        customers = {posting.account.customer for posting in self.postings} - {""}
        return next(iter(customers)) if len(customers) == 1 else ""

    @property
    def period(self) -> str:
        """The billing month it belongs to; "" where there is none."""
        return str(self.metadata.get("period", ""))

    def movements(self) -> dict[AccountKey, int]:
        """Return what it moves on each account, debit positive."""
        return {posting.account: posting.signed_minor for posting in self.postings}

    def reversed(self, *, effective_on: date, narration: str, business_key: str = "") -> Transaction:
        """Return the opposite transaction, which undoes this one; a transaction can be undone once."""
        return Transaction(
            kind=self.kind,
            business_key=business_key or f"reversal:{self.business_key}",
            effective_on=effective_on,
            narration=narration,
            postings=tuple(posting.opposite() for posting in self.postings),
            metadata=self.metadata,
            reverses=self.business_key,
        )

    def content(self) -> dict[str, Any]:
        """Return what makes two requests for one business fact the same request."""
        return {
            "kind": self.kind,
            "business_key": self.business_key,
            "effective_on": self.effective_on.isoformat(),
            "narration": self.narration,
            "metadata": dict(self.metadata),
            "reverses": self.reverses,
            "postings": [
                [*_key_fields(posting.account), posting.side, posting.amount_minor] for posting in sorted(self.postings)
            ],
        }

    def request_hash(self) -> str:
        """Fingerprint the content: a repeat has the same, another content under the same key has not."""
        return hashlib.sha256(canonical_json(self.content())).hexdigest()


def transaction_from_movements(  # noqa: PLR0913 - the fields of a transaction, all but two by name
    kind: str,
    business_key: str,
    movements: Mapping[AccountKey, int],
    *,
    effective_on: date,
    narration: str,
    metadata: Mapping[str, MetadataValue] | None = None,
    idempotency_key: str = "",
) -> Transaction:
    """Make a transaction from movements by account, debit positive; accounts that do not move are left out."""
    return Transaction(
        kind=kind,
        business_key=business_key,
        effective_on=effective_on,
        narration=narration,
        postings=postings_of(movements),
        metadata=metadata or {},
        idempotency_key=idempotency_key,
    )


def postings_of(movements: Mapping[AccountKey, int]) -> tuple[Posting, ...]:
    """Turn movements by account, debit positive, into postings in order of account."""
    return tuple(
        Posting(account, "debit" if amount > 0 else "credit", abs(amount))
        for account, amount in sorted(movements.items())
        if amount
    )


def canonical_json(body: Mapping[str, Any]) -> bytes:
    """Write JSON in the one form that is hashed: UTF-8, keys sorted, no spaces."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def chain_hash(sequence: int, previous_hash: str, body: bytes) -> str:
    """Return a transaction's link of the chain: it changes if anything of it, or before it, is altered."""
    # Lengths stand before what they measure, so that no two different inputs are joined to the same bytes.
    digest = hashlib.sha256(CHAIN_VERSION)
    digest.update(sequence.to_bytes(8, "big"))
    digest.update(bytes.fromhex(previous_hash))
    digest.update(len(body).to_bytes(8, "big"))
    digest.update(body)
    return digest.hexdigest()


def _key_fields(account: AccountKey) -> list[str]:
    return [account.code, account.customer, account.asset, account.detail]


def _check_metadata(business_key: str, metadata: Mapping[str, MetadataValue]) -> None:
    for key, value in metadata.items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise UnbalancedError(
                f"{business_key}: metadata {key!r} is {value!r}; only text and whole numbers are kept"
            )


def _check_balanced(business_key: str, postings: tuple[Posting, ...]) -> None:
    if len(postings) < MIN_POSTINGS:
        raise UnbalancedError(f"{business_key}: a transaction has at least two postings, this one has {len(postings)}")
    if len({posting.account for posting in postings}) < len(postings):
        raise UnbalancedError(f"{business_key}: an account stands twice; add its movements up first")
    sums: dict[str, int] = defaultdict(int)
    for posting in postings:
        sums[posting.account.asset] += posting.signed_minor
    for asset, difference in sums.items():
        if difference:
            raise UnbalancedError(f"{business_key}: debits exceed credits by {difference} in {asset}")


def _check_one_customer(transaction: Transaction) -> None:
    owners = {leg.account.customer for leg in transaction.postings if leg.account.kind.has_floor}
    if len(owners) > 1 and transaction.kind != TRANSFER:
        raise MixedCustomersError(
            f"{transaction.business_key}: moves money of {' and '.join(sorted(owners))}; only a transfer may do that"
        )
