"""The ledger's SQL: `post()` is the one function that writes; everything else reads."""

from ledger.store.posting import (
    BusinessKeyConflictError,
    InsufficientFundsError,
    Posted,
    ReversalError,
    post,
    post_with_sources,
)
from ledger.store.reading import Recorded, balances, funding_sources, head, movements, transactions

__all__ = [
    "BusinessKeyConflictError",
    "InsufficientFundsError",
    "Posted",
    "Recorded",
    "ReversalError",
    "balances",
    "funding_sources",
    "head",
    "movements",
    "post",
    "post_with_sources",
    "transactions",
]
