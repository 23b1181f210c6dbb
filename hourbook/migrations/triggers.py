"""Triggers that keep append-only tables append-only, for SQLite and for PostgreSQL.

They refuse every UPDATE and DELETE without looking at values, so a NULL cannot slip past a comparison. In SQLite an
INSERT OR REPLACE deletes the old row without firing its DELETE trigger unless the connection asks for that, so a
row whose key is there already is refused before it is inserted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

# Table -> unique keys that no new row may share with an old one.
APPEND_ONLY: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "ledger_account": (("id",), ("owner", "code", "customer", "asset", "detail")),
    "ledger_transaction": (("sequence",), ("business_key",), ("reverses",)),
    "posting": (("sequence", "line"), ("account_id", "account_version")),
    "funding_source": (("id",), ("customer", "kind", "reference")),
    "home": (("id",),),
    "api_key": (("id",),),
    "api_key_revocation": (("id",),),
    "apply_run": (("apply_seq",),),
    "fact": (("seq",),),
    "document": (("number",), ("customer", "month", "kind", "contracts")),
    "document_rendering": (("number",),),
    "payment": (("reference",),),
    "rollup_plan": (("number",), ("digest",)),
    "hour_statement": (("number",),),
    "waiver": (("number",),),
    "supplier_bill": (("id",), ("supplier", "month", "version"), ("supplier", "month", "digest")),
    "supplier_bill_line": (("bill_id", "line_number"), ("bill_id", "line_id")),
    "supplier_bill_rejected": (("bill_id", "line_number"),),
}


def sqlite_triggers(table: str, keys: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    """Return the statements that make a table of SQLite append-only."""
    message = f"{table} is append-only: record a new fact or a reversal instead"
    for verb in ("UPDATE", "DELETE"):
        yield (
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )
    taken = " OR ".join(
        f"EXISTS (SELECT 1 FROM {table} WHERE {' AND '.join(f'{column} = NEW.{column}' for column in key)})"  # noqa: S608
        for key in keys
    )
    yield (
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {taken} "
        f"BEGIN SELECT RAISE(ABORT, '{table} has this row already and is append-only'); END"
    )


# What every guard of PostgreSQL does; the auditor compares it with what the database holds.
REFUSAL = (
    " BEGIN RAISE EXCEPTION '% is append-only: record a new fact or a reversal instead', TG_TABLE_NAME "
    "USING ERRCODE = 'integrity_constraint_violation'; END "
)


def postgresql_triggers(table: str) -> Iterator[str]:
    """Return the statements that make a table of PostgreSQL append-only, TRUNCATE included."""
    yield f"CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $${REFUSAL}$$"
    yield (
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
