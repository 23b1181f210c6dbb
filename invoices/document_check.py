"""Whether a document adds up: every total on it against what it is the total of."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

from invoices.document import DocumentContent, DocumentLine, Wallet


def discrepancies(content: DocumentContent) -> list[str]:
    """Return every sum on a document that does not come out, each in words; none for a sound document."""
    return [*_totals(content), *_lines(content), *_shares(content), *_wallet(content.wallet)]


def _totals(content: DocumentContent) -> Iterator[str]:
    sums = (
        ("total", content.total_minor, "lines", sum(line.amount_minor for line in content.lines)),
        ("total", content.total_minor, "tax groups", sum(group.gross_minor for group in content.tax)),
        ("tax", content.tax_minor, "lines", sum(line.tax_minor for line in content.lines)),
        ("tax", content.tax_minor, "tax groups", sum(group.tax_minor for group in content.tax)),
        ("net", content.net_minor, "tax groups", sum(group.net_minor for group in content.tax)),
        ("net", content.net_minor, "total less tax", content.total_minor - content.tax_minor),
    )
    for name, stated, source, found in sums:
        if stated != found:
            yield f"the {name} says {stated}, the {source} come to {found}"


def _lines(content: DocumentContent) -> Iterator[str]:
    for n, line in enumerate(content.lines, start=1):
        if line.n != n:
            yield f"line {line.n} stands in place {n}"
        if sum(line.parts.values()) != line.line_amount_minor:
            yield f"line {line.n} is {line.line_amount_minor}, its parts come to {sum(line.parts.values())}"
        if content.kind != "credit_note" and line.amount_minor != _part_on(content, line):
            yield f"line {line.n} stands here with {line.amount_minor}, drawn here is {_part_on(content, line)}"


def _part_on(content: DocumentContent, line: DocumentLine) -> int:
    """Return what of a line belongs on this kind of document: credit on invoices, all else on statements."""
    on_credit = line.parts.get("credit", 0)
    return on_credit if content.kind == "invoice" else sum(line.parts.values()) - on_credit


def _shares(content: DocumentContent) -> Iterator[str]:
    for name, rows in (("project", content.by_project), ("user", content.by_user)):
        found = sum(row.amount_minor for row in rows)
        if rows and found != content.total_minor:
            yield f"the shares by {name} come to {found}, the total says {content.total_minor}"


def _wallet(wallet: Wallet | None) -> Iterator[str]:
    """Check opening and what moved against closing, in the wallet, each lot, grant and pack, and arrears."""
    if wallet is None:
        return
    receipts = sum(receipt.amount_minor for receipt in wallet.receipts)
    out = wallet.drawn_minor + wallet.settled_arrears_minor
    arrears_in = wallet.arrears_opening_minor + wallet.arrears_new_minor
    balances: list[tuple[str, Fraction | int, Fraction | int]] = [
        ("the wallet", wallet.opening_minor + receipts - out, wallet.closing_minor),
        ("arrears", arrears_in - wallet.arrears_settled_minor, wallet.arrears_closing_minor),
    ]
    balances += [
        (row.id, row.opening_minor + row.added_minor - row.drawn_minor, row.closing_minor)
        for row in (*wallet.lots, *wallet.grants)
    ]
    for pack in wallet.packs:
        opening, bought, drawn, closing = (
            Fraction(Decimal(text)) for text in (pack.opening, pack.bought, pack.drawn, pack.closing)
        )
        balances.append((pack.id, opening + bought - drawn, closing))
    for name, found, stated in balances:
        if found != stated:
            yield f"{name} closes with {stated}, what moved comes to {found}"
    in_lots = sum(lot.closing_minor for lot in wallet.lots)
    if wallet.lots and in_lots != wallet.closing_minor:
        yield f"the lots close with {in_lots}, the wallet with {wallet.closing_minor}"
