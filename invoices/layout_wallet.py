"""The wallet of a prepaid customer over the month: movements, funding lots, packs, grants, arrears."""

from __future__ import annotations

from collections.abc import Sequence

from base.money import format_grouped
from invoices.blocks import Block, Column, Heading, Row, Table
from invoices.document import DocumentContent, LotRow, PackRow, Wallet
from invoices.figures import quantity
from invoices.labels import Words


def wallet_blocks(content: DocumentContent, words: Words) -> tuple[Block, ...]:
    """Return the tables of the wallet; those that would be empty are left out."""
    wallet = content.wallet
    if wallet is None:
        return ()
    blocks = [*_titled("wallet", _movements(content, wallet, words), words)]
    if wallet.lots:
        blocks += _titled("lots", _lots(wallet.lots, "lot_id", content.currency, words), words)
    if wallet.packs:
        blocks += _titled("packs", _packs(wallet.packs, words), words)
    if wallet.grants:
        blocks += _titled("grants", _lots(wallet.grants, "grant_id", content.currency, words), words)
    if _has_arrears(wallet):
        blocks += _titled("arrears", _arrears(wallet, content.currency, words), words)
    return tuple(blocks)


def _titled(key: str, table: Table, words: Words) -> list[Block]:
    return [Heading(words.main(key), words.sub(key)), table]


def _column(words: Words, key: str) -> Column:
    return Column(words.main(key), words.sub(key), "right")


def _movements(content: DocumentContent, wallet: Wallet, words: Words) -> Table:
    """List what came in and went out, with the balance after each."""
    columns = (
        Column(words.main("date"), words.sub("date")),
        Column(words.main("narration"), words.sub("narration"), flex=1),
        _column(words, "money_in"),
        _column(words, "money_out"),
        _column(words, "balance"),
    )

    def amount(minor: int) -> str:
        return format_grouped(minor, content.currency)

    first, last = content.first_day.isoformat(), content.last_day.isoformat()
    balance = wallet.opening_minor
    rows = [Row((first, words.both("opening"), "", "", amount(balance)))]
    for receipt in wallet.receipts:
        balance += receipt.amount_minor
        text = f"{words.main('receipt')} {receipt.reference}"
        rows.append(Row((receipt.day.isoformat(), text, amount(receipt.amount_minor), "", amount(balance))))
    for key, minor in (("settled_arrears", wallet.settled_arrears_minor), ("drawn", wallet.drawn_minor)):
        balance -= minor
        if minor or key == "drawn":
            rows.append(Row(("", words.both(key), "", amount(minor), amount(balance))))
    rows.append(Row((last, words.both("closing"), "", "", amount(wallet.closing_minor)), style="total"))
    return Table(columns, tuple(rows))


def _lots(lots: Sequence[LotRow], label: str, currency: str, words: Words) -> Table:
    """List pots of money or face value, each with its own rest."""
    columns = (
        Column(words.main(label), words.sub(label), flex=2),
        Column(words.main("project"), words.sub("project"), flex=1),
        Column(words.main("last_day"), words.sub("last_day")),
        *(_column(words, key) for key in ("start_balance", "added", "used", "end_balance")),
    )
    rows = tuple(_lot(lot, currency, words) for lot in lots)
    return Table(columns, rows)


def _lot(lot: LotRow, currency: str, words: Words) -> Row:
    amounts = (lot.opening_minor, lot.added_minor, lot.drawn_minor, lot.closing_minor)
    return Row(
        (
            lot.id,
            lot.project or words.main("any_project"),
            lot.last_day.isoformat() if lot.last_day else "",
            *(format_grouped(minor, currency) for minor in amounts),
        )
    )


def _packs(packs: Sequence[PackRow], words: Words) -> Table:
    """List prepaid quantities in their own units."""
    columns = (
        Column(words.main("pack_id"), words.sub("pack_id"), flex=1),
        Column(words.main("last_day"), words.sub("last_day")),
        *(_column(words, key) for key in ("start_balance", "bought", "used", "end_balance")),
    )
    return Table(columns, tuple(_pack(pack, words) for pack in packs))


def _pack(pack: PackRow, words: Words) -> Row:
    texts = (pack.opening, pack.bought, pack.drawn, pack.closing)
    return Row(
        (pack.id, pack.last_day.isoformat() if pack.last_day else "", *(quantity(text, pack.unit) for text in texts)),
        (f"{pack.sku} · {words.unit(pack.unit)}", "", "", "", "", ""),
    )


def _has_arrears(wallet: Wallet) -> bool:
    return any(
        (
            wallet.arrears_opening_minor,
            wallet.arrears_new_minor,
            wallet.arrears_settled_minor,
            wallet.arrears_closing_minor,
        )
    )


def _arrears(wallet: Wallet, currency: str, words: Words) -> Table:
    """Show what nothing covered, and what later receipts settled."""
    columns = (
        Column(words.main("arrears"), words.sub("arrears"), flex=1),
        *(_column(words, key) for key in ("start_balance", "arrears_new", "arrears_settled", "end_balance")),
    )
    amounts = (
        wallet.arrears_opening_minor,
        wallet.arrears_new_minor,
        wallet.arrears_settled_minor,
        wallet.arrears_closing_minor,
    )
    cells = (words.both("arrears_owed"), *(format_grouped(minor, currency) for minor in amounts))
    return Table(columns, (Row(cells),))
