"""The ledger's tables: accounts, their counters, the journal with its chain, and funding sources."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Table,
    Text,
    UniqueConstraint,
)
from sqlmodel import SQLModel

from base.columns import BigInt, Day, Flag, Instant
from base.money import MAX_MINOR

ACCOUNT = Table(
    "ledger_account",
    SQLModel.metadata,
    Column("id", BigInt, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("customer", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("normal_side", Text, CheckConstraint("normal_side IN ('debit', 'credit')"), nullable=False),
    Column("has_floor", Flag, CheckConstraint("has_floor IN (0, 1)"), nullable=False),
    UniqueConstraint("owner", "code", "customer", "asset", "detail"),
    UniqueConstraint("owner", "id"),
)

# A cache of the postings, rebuilt by nobody but checked by the auditor: counters only grow, each below 2^62.
BALANCE = Table(
    "account_balance",
    SQLModel.metadata,
    Column("account_id", BigInt, ForeignKey("ledger_account.id"), primary_key=True),
    *(
        Column(name, BigInt, CheckConstraint(f"{name} >= 0 AND {name} < {MAX_MINOR}"), nullable=False)
        for name in ("debit_posted", "credit_posted", "debit_pending", "credit_pending")
    ),
    Column("version", BigInt, nullable=False),
)

TRANSACTION = Table(
    "ledger_transaction",
    SQLModel.metadata,
    Column("sequence", BigInt, primary_key=True, autoincrement=False),
    Column("owner", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("business_key", Text, nullable=False, unique=True),
    Column("idempotency_key", Text, nullable=False),
    Column("request_hash", Text, nullable=False),
    Column("effective_on", Day, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("customer", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("narration", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("reverses", BigInt, ForeignKey("ledger_transaction.sequence"), unique=True),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    UniqueConstraint("owner", "sequence"),
    Index("ledger_transaction_by_kind", "kind", "period", "customer"),
    Index("ledger_transaction_by_customer", "customer", "period"),
)

# One row per version of an account: a lost update has no row to be stored in.
POSTING = Table(
    "posting",
    SQLModel.metadata,
    Column("sequence", BigInt, primary_key=True, autoincrement=False),
    Column("line", BigInt, primary_key=True, autoincrement=False),
    Column("owner", Text, nullable=False),
    Column("account_id", BigInt, nullable=False),
    Column("side", Text, CheckConstraint("side IN ('debit', 'credit')"), nullable=False),
    Column("amount_minor", BigInt, CheckConstraint(f"amount_minor > 0 AND amount_minor < {MAX_MINOR}"), nullable=False),
    Column("balance_after", BigInt, nullable=False),
    Column("account_version", BigInt, CheckConstraint("account_version > 0"), nullable=False),
    UniqueConstraint("account_id", "account_version"),
    # Of one owner, with its transaction and with its account: books of two legal entities cannot mix.
    ForeignKeyConstraint(["owner", "sequence"], ["ledger_transaction.owner", "ledger_transaction.sequence"]),
    ForeignKeyConstraint(["owner", "account_id"], ["ledger_account.owner", "ledger_account.id"]),
)

HEAD = Table(
    "ledger_head",
    SQLModel.metadata,
    Column("owner", Text, primary_key=True),
    Column("sequence", BigInt, nullable=False),
    Column("hash", Text, nullable=False),
)

FUNDING = Table(
    "funding_source",
    SQLModel.metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, CheckConstraint("kind IN ('lot', 'pack', 'grant')"), nullable=False),
    Column("customer", Text, nullable=False),
    Column("contract", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("received_on", Day, nullable=False),
    Column("last_day", Day),
    Column("project", Text, nullable=False),
    Column("sku", Text, nullable=False),
    Column("gross_minor", BigInt, CheckConstraint("gross_minor >= 0"), nullable=False),
    Column("currency", Text, nullable=False),
    Column("tax_rate", Text, nullable=False),
    Column("quantity", BigInt, CheckConstraint("quantity >= 0"), nullable=False),
    Column("note", Text, nullable=False),
    Column("sequence", BigInt, ForeignKey("ledger_transaction.sequence"), nullable=False),
    UniqueConstraint("customer", "kind", "reference"),
)
