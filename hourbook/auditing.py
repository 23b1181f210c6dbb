"""`verify`: the ledger's own checks, and those that tie documents, charges and usage to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, text

from hourbook.audit import CHECKS, Check, Finding, anchor, check_anchors, read_anchors, verify
from hourbook.settings import Home
from hourbook.usage_audit import check_usage


@dataclass(frozen=True)
class Audit:
    """What an audit found, or what it found to hold."""

    findings: tuple[Finding, ...]
    checks: tuple[str, ...]  # in words
    sequence: int
    hash: str


def audit(home: Home) -> Audit:
    """Run every check; where all hold, write down the end of the chain beside the database."""
    findings = verify(home.engine, anchors=read_anchors(home.path), further=DOCUMENT_CHECKS)
    findings.extend(check_usage(home) if not findings else ())
    checks = (*CHECKS, check_anchors, *DOCUMENT_CHECKS, check_usage)
    named = tuple((check.__doc__ or "").strip().splitlines()[0] for check in checks)
    if findings:
        return Audit(tuple(findings), named, 0, "")
    end = anchor(home)
    return Audit((), named, end.sequence, end.hash)


def _documents(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, content in connection.execute(text("SELECT number, content FROM document ORDER BY number")):
        yield number, orjson.loads(content)


def check_document_sums(connection: Connection) -> Iterable[Finding]:
    """I13: a document's lines add up to its total, its tax groups to its tax, and net is total less tax."""
    for number, content in _documents(connection):
        total, tax, net = (int(content[name]) for name in ("total_minor", "tax_minor", "net_minor"))
        lines = sum(int(line["amount_minor"]) for line in content["lines"])
        groups = sum(int(group["tax_minor"]) for group in content["tax"])
        if not (lines == total and groups == tax and net == total - tax):
            yield Finding("I13", "a document does not add up", {"document": number, "lines": lines, "total": total})


def check_lines_in_full(connection: Connection) -> Iterable[Finding]:
    """I13: what covered a line adds up to the line, and each document shows its own part of it."""
    for number, content in _documents(connection):
        for line in content["lines"]:
            parts = {kind: int(minor) for kind, minor in line["parts"].items()}
            shown = (
                parts.get("credit", 0) if content["kind"] == "invoice" else sum(parts.values()) - parts.get("credit", 0)
            )
            if sum(parts.values()) != int(line["line_amount_minor"]) or shown != int(line["amount_minor"]):
                yield Finding("I13", "a line is not covered in full", {"document": number, "line": line["n"]})


def check_invoices_are_bills(connection: Connection) -> Iterable[Finding]:
    """I13: every invoice moved its total from unbilled to billed, and nothing else did."""
    query = """
        SELECT t.metadata, sum(CASE p.side WHEN 'debit' THEN p.amount_minor ELSE -p.amount_minor END)
        FROM ledger_transaction t JOIN posting p ON p.sequence = t.sequence
        JOIN ledger_account a ON a.id = p.account_id
        WHERE t.kind = 'bill' AND a.code = 'assets:receivable:billed' GROUP BY t.sequence, t.metadata"""
    billed = {orjson.loads(metadata)["number"]: amount for metadata, amount in connection.execute(text(query))}
    wanted = {
        number: int(content["total_minor"])
        for number, content in _documents(connection)
        if content["kind"] == "invoice" and int(content["total_minor"])
    }
    for number in sorted({*billed, *wanted}):
        if billed.get(number) != wanted.get(number):
            facts = {"document": number, "total": wanted.get(number, 0), "posted": billed.get(number, 0)}
            yield Finding("I13", "an invoice and its posting differ", facts)


def check_closed_months_are_billed(connection: Connection) -> Iterable[Finding]:
    """I12: what accrual charged for a closed month is what its documents show, customer by customer."""
    query = """
        SELECT t.customer, t.period, sum(CASE p.side WHEN 'credit' THEN p.amount_minor ELSE -p.amount_minor END)
        FROM ledger_transaction t JOIN posting p ON p.sequence = t.sequence
        JOIN ledger_account a ON a.id = p.account_id
        WHERE t.kind = 'accrual' AND a.code = 'income:usage'
          AND t.period IN (SELECT month FROM period_close WHERE status = 'closed')
        GROUP BY t.customer, t.period"""
    earned = {(customer, month): amount for customer, month, amount in connection.execute(text(query))}
    shown: dict[tuple[str, str], int] = {}
    for _, content in _documents(connection):
        key = content["customer"]["id"], content["month"]
        # What a grant covers is on the document and earns nothing; its rate group is 0.
        net = sum(int(group["net_minor"]) for group in content["tax"] if group["rate"] != "0")
        shown[key] = shown.get(key, 0) + net
    for customer, month in sorted({*earned, *shown}):
        posted, printed = earned.get((customer, month), 0), shown.get((customer, month), 0)
        if posted != printed:
            facts = {"customer": customer, "month": month, "revenue": posted, "documents": printed}
            yield Finding("I12", "revenue of a closed month is not what its documents show", facts)


def check_numbers(connection: Connection) -> Iterable[Finding]:
    """Document numbers of each series run from 1 without a gap."""
    series: dict[str, list[int]] = {}
    for (number,) in connection.execute(text("SELECT number FROM document")):
        name, _, counted = number.rpartition("-")
        series.setdefault(name, []).append(int(counted))
    for name, numbers in sorted(series.items()):
        if sorted(numbers) != list(range(1, len(numbers) + 1)):
            yield Finding("numbers", "a series of document numbers has a gap", {"series": name, "last": max(numbers)})


DOCUMENT_CHECKS: tuple[Check, ...] = (
    check_document_sums,
    check_lines_in_full,
    check_invoices_are_bills,
    check_closed_months_are_billed,
    check_numbers,
)
