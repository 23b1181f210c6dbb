"""The auditor: checks the books from the tables alone, with its own arithmetic and none of the ledger's code.

Each check answers with what it found wrong, named with its facts; nothing found means that it holds. The numbers
I1 to I15 are those of docs/architecture.md. Checks of documents and accruals join the list through `verify`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from hourbook.database import damage, missing_guards
from hourbook.migrations.triggers import APPEND_ONLY
from hourbook.settings import Home

ANCHORS_FILE = "anchors.jsonl"
LARGEST = 2**62
ALARM = 2**61
CHAIN_VERSION = b"hourbook-ledger-1"
ZEROS = "0" * 64


@dataclass(frozen=True)
class Finding:
    """Something that does not hold: which check, what is wrong, and the facts to look it up by."""

    check: str
    message: str
    facts: Mapping[str, str | int]

    def __str__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return f"{self.check}: {self.message} ({facts})" if facts else f"{self.check}: {self.message}"


@dataclass(frozen=True)
class Anchor:
    """Where the chain ended at an instant, written where the database cannot reach it."""

    sequence: int
    hash: str


Check = Callable[[Connection], Iterable[Finding]]


def verify(engine: Engine, *, anchors: Sequence[Anchor] = (), further: Sequence[Check] = ()) -> list[Finding]:
    """Return everything that does not hold, the first failing check first; an empty list means that the books hold."""
    findings: list[Finding] = []
    with engine.connect() as connection:
        checks: list[Check] = [*CHECKS, *further, partial(check_anchors, anchors=anchors)]
        for check in checks:
            findings.extend(_run(check, connection))
    return findings


def _run(check: Check, connection: Connection) -> list[Finding]:
    found: list[Finding] = []
    # Tables that were tampered with may hold anything; a check that trips over it has found something too.
    try:
        with connection.begin_nested():  # one that failed would otherwise leave PostgreSQL refusing all that follow
            found.extend(check(connection))
    except (ArithmeticError, LookupError, TypeError, ValueError, SQLAlchemyError) as error:
        found.append(Finding("unreadable", f"a check could not read the books: {error}", {}))
    return found


def anchor(home: Home) -> Anchor:
    """Write down, beside the database, where the chain ends now; nothing is written if it has not moved."""
    with home.engine.connect() as connection:
        row = connection.execute(
            text("SELECT sequence, hash FROM ledger_transaction ORDER BY sequence DESC LIMIT 1")
        ).one_or_none()
    end = Anchor(row[0], row[1]) if row else Anchor(0, ZEROS)
    if end not in read_anchors(home.path)[-1:]:
        line = {"sequence": end.sequence, "hash": end.hash, "at": home.now().isoformat()}
        # A line of its own even after one that a crash tore.
        with (home.path / ANCHORS_FILE).open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(line)}\n")
            file.flush()
            os.fsync(file.fileno())
    return end


def read_anchors(path: Path) -> list[Anchor]:
    """Return the anchors of a home, oldest first."""
    file = path / ANCHORS_FILE
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    return [found for found in map(_read_anchor, lines) if found]


def _read_anchor(line: str) -> Anchor | None:
    # What a crash tore while it was written says nothing.
    try:
        entry = json.loads(line)
        return Anchor(int(entry["sequence"]), str(entry["hash"]))
    except (ValueError, KeyError, TypeError):
        return None


def check_storage(connection: Connection) -> Iterator[Finding]:
    """The database is whole: pages, indexes, constraints and references."""
    for message in damage(connection):
        yield Finding("storage", message, {})


def check_guards(connection: Connection) -> Iterator[Finding]:
    """I9: every append-only table still has the triggers that keep it so."""
    for name in missing_guards(connection, APPEND_ONLY):
        yield Finding("I9", "a trigger that protects an append-only table is gone", {"trigger": name})


def check_balanced(connection: Connection) -> Iterator[Finding]:
    """I1: in every transaction and asset, debits equal credits, and it has two postings at least."""
    query = """
        SELECT * FROM (
            SELECT p.sequence, a.asset,
                sum(CASE p.side WHEN 'debit' THEN p.amount_minor ELSE -p.amount_minor END) AS difference
            FROM posting p JOIN ledger_account a ON a.id = p.account_id GROUP BY p.sequence, a.asset
        ) AS d WHERE difference <> 0 ORDER BY sequence"""
    for sequence, asset, difference in connection.execute(text(query)):
        facts = {"transaction": sequence, "asset": asset, "difference": difference}
        yield Finding("I1", "debits and credits of a transaction differ", facts)
    query = """
        SELECT t.sequence, count(p.line) FROM ledger_transaction t LEFT JOIN posting p ON p.sequence = t.sequence
        GROUP BY t.sequence HAVING count(p.line) < 2 ORDER BY t.sequence"""
    for sequence, count in connection.execute(text(query)):
        yield Finding("I1", "a transaction has fewer than two postings", {"transaction": sequence, "postings": count})


def check_whole_ledger(connection: Connection) -> Iterator[Finding]:
    """I2: over the whole ledger and per asset, debits equal credits, posted and pending."""
    query = """
        SELECT a.asset, sum(b.debit_posted) - sum(b.credit_posted), sum(b.debit_pending) - sum(b.credit_pending)
        FROM account_balance b JOIN ledger_account a ON a.id = b.account_id GROUP BY a.asset"""
    for asset, posted, pending in connection.execute(text(query)):
        if posted or pending:
            facts = {"asset": asset, "posted": posted, "pending": pending}
            yield Finding("I2", "debits and credits of the whole ledger differ", facts)


def check_counters(connection: Connection) -> Iterator[Finding]:
    """I3, I15: every counter is the fold of the postings, and far from overflow."""
    query = """
        SELECT a.id, a.code, a.customer, a.detail, coalesce(p.debit, 0) AS debit, coalesce(p.credit, 0) AS credit,
            coalesce(p.versions, 0) AS versions, b.debit_posted, b.credit_posted, b.debit_pending, b.credit_pending,
            b.version
        FROM ledger_account a LEFT JOIN account_balance b ON b.account_id = a.id
        LEFT JOIN (
            SELECT account_id, sum(CASE side WHEN 'debit' THEN amount_minor ELSE 0 END) AS debit,
                sum(CASE side WHEN 'credit' THEN amount_minor ELSE 0 END) AS credit, count(*) AS versions
            FROM posting GROUP BY account_id
        ) p ON p.account_id = a.id ORDER BY a.id"""
    for row in connection.execute(text(query)):
        account = {"account": " ".join(filter(None, (row.code, row.customer, row.detail)))}
        stored = (row.debit_posted, row.credit_posted, row.version)
        if stored != (row.debit, row.credit, row.versions):
            facts = {**account, "stored": str(stored), "postings say": str((row.debit, row.credit, row.versions))}
            yield Finding("I3", "a balance is not what its postings add up to", facts)
        # There are no holds yet, so nothing may be pending.
        if row.debit_pending or row.credit_pending:
            yield Finding("I3", "an amount is pending without a hold", account)
        if max(row.debit, row.credit) >= ALARM:
            yield Finding("I15", "a counter comes close to overflow", {**account, "limit": LARGEST})


def check_versions(connection: Connection) -> Iterator[Finding]:
    """I4: of every account, versions are 1 to n without a gap, in order of transactions, each balance on the last."""
    query = """
        SELECT * FROM (
            SELECT account_id, account_version, sequence, balance_after,
                CASE side WHEN 'debit' THEN amount_minor ELSE -amount_minor END AS moved,
                row_number() OVER one AS expected_version, lag(balance_after, 1, 0) OVER one AS before,
                lag(sequence, 1, 0) OVER one AS earlier
            FROM posting WINDOW one AS (PARTITION BY account_id ORDER BY account_version)
        ) AS v
        WHERE account_version <> expected_version OR balance_after <> before + moved OR sequence <= earlier
        ORDER BY account_id, account_version"""
    for row in connection.execute(text(query)):
        facts = {"account_id": row.account_id, "version": row.account_version, "transaction": row.sequence}
        yield Finding("I4", "an account's versions or balances do not follow on each other", facts)


def check_floors(connection: Connection) -> Iterator[Finding]:
    """I5: no lot, pack or grant ever stood below 0, at any version."""
    query = """
        SELECT a.code, a.customer, a.detail, p.sequence, p.balance_after, a.has_floor, a.normal_side
        FROM ledger_account a JOIN posting p ON p.account_id = a.id
        WHERE a.code IN ('liabilities:contract', 'liabilities:pack', 'liabilities:grant')
            AND (p.balance_after > 0 OR a.has_floor <> 1 OR a.normal_side <> 'credit')
        ORDER BY p.sequence"""
    for row in connection.execute(text(query)):
        facts = {"account": f"{row.code} {row.customer} {row.detail}", "transaction": row.sequence}
        yield Finding("I5", "more was taken from a lot, pack or grant than it held", facts)


def check_business_facts(connection: Connection) -> Iterator[Finding]:
    """I7: one business fact is posted once, a transaction is reversed once, and by its exact opposite."""
    query = "SELECT business_key, count(*) FROM ledger_transaction GROUP BY business_key HAVING count(*) > 1"
    for key, count in connection.execute(text(query)):
        yield Finding("I7", "a business fact is posted more than once", {"business_key": key, "times": count})
    query = "SELECT reverses, count(*) FROM ledger_transaction GROUP BY reverses HAVING count(reverses) > 1"
    for original, count in connection.execute(text(query)):
        yield Finding("I7", "a transaction is reversed more than once", {"transaction": original, "times": count})
    query = """
        SELECT * FROM (
            SELECT r.sequence, r.reverses, p.account_id,
                sum(CASE p.side WHEN 'debit' THEN p.amount_minor ELSE -p.amount_minor END) AS difference
            FROM ledger_transaction r JOIN posting p ON p.sequence IN (r.sequence, r.reverses)
            WHERE r.reverses IS NOT NULL GROUP BY r.sequence, r.reverses, p.account_id
        ) AS d WHERE difference <> 0 ORDER BY sequence"""
    for sequence, original, account, difference in connection.execute(text(query)):
        facts = {"transaction": sequence, "reverses": original, "account_id": account, "difference": difference}
        yield Finding("I7", "a reversal is not the opposite of what it reverses", facts)


def check_owners(connection: Connection) -> Iterator[Finding]:
    """I10: a transaction stays in the books of one legal entity, and touches lots of one customer only."""
    query = """
        SELECT t.sequence FROM ledger_transaction t JOIN posting p ON p.sequence = t.sequence
        JOIN ledger_account a ON a.id = p.account_id WHERE p.owner <> t.owner OR a.owner <> t.owner"""
    for (sequence,) in connection.execute(text(query)):
        yield Finding("I10", "a transaction mixes the books of two legal entities", {"transaction": sequence})
    query = """
        SELECT t.sequence FROM ledger_transaction t JOIN posting p ON p.sequence = t.sequence
        JOIN ledger_account a ON a.id = p.account_id WHERE a.has_floor = 1 AND t.kind <> 'transfer'
        GROUP BY t.sequence HAVING count(DISTINCT a.customer) > 1"""
    for (sequence,) in connection.execute(text(query)):
        yield Finding("I10", "a transaction touches money of two customers", {"transaction": sequence})


def check_chain(connection: Connection) -> Iterator[Finding]:
    """I9: sequences run 1 to n, and every link of the chain is what its transaction, postings and past make it."""
    expected, previous = 1, ZEROS
    for sequence, rows in groupby(connection.execute(text(_JOURNAL)).mappings(), key=lambda row: int(row["sequence"])):
        legs = list(rows)
        first = legs[0]
        if sequence != expected:
            yield Finding("I9", "transactions are missing from the journal", {"from": expected, "to": sequence - 1})
        if first["previous_hash"] != previous or first["hash"] != _link(sequence, first["previous_hash"], legs):
            yield Finding(
                "I9", "a transaction was altered", {"transaction": sequence, "business_key": first["business_key"]}
            )
        if [leg["line"] for leg in legs] != list(range(1, len(legs) + 1)):
            yield Finding("I9", "lines of a transaction are missing", {"transaction": sequence})
        expected, previous = sequence + 1, first["hash"]
    last = connection.execute(text("SELECT sequence, hash FROM ledger_head")).one_or_none() or (0, ZEROS)
    if tuple(last) != (expected - 1, previous):
        yield Finding("I9", "the journal does not end where it says", {"says": last[0], "ends": expected - 1})


def check_funding_sources(connection: Connection) -> Iterator[Finding]:
    """I9: lots, packs and grants are what the transactions that brought them say."""
    sealed: dict[int, str] = {}
    for sequence, metadata in connection.execute(text("SELECT sequence, metadata FROM ledger_transaction")):
        fingerprint = json.loads(metadata).get("sources_sha256")
        if fingerprint is not None:
            sealed[sequence] = fingerprint
    stored: dict[int, list[dict[str, Any]]] = {}
    for row in connection.execute(text("SELECT * FROM funding_source ORDER BY id")).mappings():
        body = {**row, "last_day": row["last_day"] or ""}
        stored.setdefault(body.pop("sequence"), []).append(body)
    for sequence in sorted(sealed.keys() | stored.keys()):
        found = hashlib.sha256(_canonical({"sources": stored.get(sequence, [])})).hexdigest()
        if sealed.get(sequence) != found:
            yield Finding("I9", "a lot, pack or grant was altered", {"transaction": sequence})


def check_anchors(connection: Connection, anchors: Sequence[Anchor]) -> Iterator[Finding]:
    """I9: the journal still holds every end that was written down outside the database."""
    for end in anchors:
        query = text("SELECT hash FROM ledger_transaction WHERE sequence = :sequence")
        found = connection.execute(query, {"sequence": end.sequence}).scalar()
        if end.sequence and found != end.hash:
            facts = {"transaction": end.sequence, "anchored": end.hash, "found": found or "nothing"}
            yield Finding("I9", "the journal is not the one that was anchored", facts)


CHECKS: tuple[Check, ...] = (
    check_storage,
    check_guards,
    check_balanced,
    check_whole_ledger,
    check_counters,
    check_versions,
    check_floors,
    check_business_facts,
    check_chain,
    check_funding_sources,
    check_owners,
)

_JOURNAL = """
    SELECT t.*, p.line, a.code, a.customer AS account_customer, a.asset, a.detail, p.side, p.amount_minor
    FROM ledger_transaction t LEFT JOIN posting p ON p.sequence = t.sequence
    LEFT JOIN ledger_account a ON a.id = p.account_id
    ORDER BY t.sequence, p.line"""
_SEALED_COLUMNS = (
    "owner",
    "kind",
    "business_key",
    "idempotency_key",
    "request_hash",
    "effective_on",
    "recorded_at",
    "customer",
    "period",
    "narration",
    "metadata",
    "reverses",
)
_LEG_COLUMNS = ("code", "account_customer", "asset", "detail", "side", "amount_minor")


def _link(sequence: int, previous: str, legs: Sequence[Mapping[Any, Any]]) -> str:
    """Compute a link of the chain anew, by the description in docs/architecture.md and not by the ledger's code."""
    body: dict[str, Any] = {column: legs[0][column] for column in _SEALED_COLUMNS}
    body["postings"] = [[leg[column] for column in _LEG_COLUMNS] for leg in legs]
    raw = _canonical(body)
    parts = (CHAIN_VERSION, sequence.to_bytes(8, "big"), _bytes(previous), len(raw).to_bytes(8, "big"), raw)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _bytes(text_of_hash: str) -> bytes:
    try:
        return bytes.fromhex(text_of_hash)
    except ValueError:
        return b"no hash"
