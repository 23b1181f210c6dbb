"""What a document looks like: its content as a sequence of neutral blocks, in its customer's language."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Literal

from base.money import format_grouped
from base.period import each_day
from invoices.amount_words import chinese_capitals
from invoices.blocks import (
    BarChart,
    BarCharts,
    Block,
    Column,
    Figure,
    Heading,
    KeyValueGroup,
    KeyValues,
    Masthead,
    PageSetup,
    Panel,
    Paragraph,
    Row,
    Spacer,
    Table,
    TotalRow,
    Totals,
)
from invoices.document import DocumentContent, Party, ShareRow
from invoices.figures import decimals, grouped, money, percent, quantity, total_text
from invoices.labels import Words
from invoices.layout_lines import line_blocks
from invoices.layout_wallet import wallet_blocks

_UNIT_ORDER = ("core-hour", "card-hour", "node-hour", "wall-hour", "piece", "card-month", "node-month")


def layout(content: DocumentContent) -> tuple[Block, ...]:
    """Return the blocks of a document, from the masthead to the small print."""
    words = Words(content.language)
    return (
        _masthead(content, words),
        _parties(content, words),
        _panel(content, words),
        *_usage(content, words),
        *line_blocks(content, words),
        *_totals(content, words),
        *wallet_blocks(content, words),
        *_shares(content, words),
        *_payment(content, words),
        *_small_print(content, words),
    )


def page_setup(content: DocumentContent) -> PageSetup:
    """Return what stands on every page of a document."""
    words = Words(content.language)
    issuer = words.pick(content.issuer.name, content.issuer.name_en)
    number = content.number or words.main("draft")
    sequence, head = content.ledger_head
    return PageSetup(
        title=f"{words.title(content.kind)} {number}",
        author=issuer,
        footer_left=f"{issuer} · {words.title(content.kind)} {number}",
        footer_middle=f"{words.main('ledger')} #{sequence} {head[:12]}" if head else "",
        language="zh-CN" if content.language == "zh" else "en",
        missing_note=words.main("missing"),
    )


def _masthead(content: DocumentContent, words: Words) -> Masthead:
    issuer = content.issuer
    lines = [
        issuer.name_en if words.language == "zh" else "",
        words.pick(issuer.address, issuer.address_en),
        _joined((words.main("tax_id"), issuer.tax_id), (words.main("phone"), issuer.phone), ("", issuer.email)),
    ]
    return Masthead(
        issuer=words.pick(issuer.name, issuer.name_en),
        issuer_lines=tuple(line for line in lines if line),
        title=words.title(content.kind),
        subtitle=f"{words.sub(content.kind)} · {content.month}".removeprefix(" · "),
        number=content.number or words.main("draft"),
    )


def _joined(*pairs: tuple[str, str]) -> str:
    return " · ".join(f"{label} {value}".strip() for label, value in pairs if value)


def _parties(content: DocumentContent, words: Words) -> KeyValues:
    """Set the customer beside the facts of the document."""
    customer = [
        (words.both("name"), words.pick(content.customer.name, content.customer.name_en)),
        (words.both("customer_id"), content.customer.id),
        (words.both("address"), _address(content.customer, words)),
        (words.both("tax_id"), content.customer.tax_id),
        (words.both("email"), content.customer.email),
    ]
    document = [
        (words.both("period"), f"{content.first_day} – {content.last_day}"),
        (words.both("zone"), content.timezone),
        (words.both("issued_on"), content.issued_on.isoformat()),
        (words.both("due_on"), content.due_on.isoformat() if content.due_on else ""),
        (
            words.both("contracts"),
            "、".join(content.contracts) if words.language == "zh" else ", ".join(content.contracts),
        ),
        (words.both("currency"), content.currency),
    ]
    return KeyValues(
        (
            KeyValueGroup(words.both("to"), tuple((label, value) for label, value in customer if value)),
            KeyValueGroup(words.both("document"), tuple((label, value) for label, value in document if value)),
        )
    )


def _address(party: Party, words: Words) -> str:
    return words.pick(party.address, party.address_en)


def _panel(content: DocumentContent, words: Words) -> Panel:
    """Choose the figures that this document's reader came for."""
    figure = _figures(content.currency, words)
    wallet = content.wallet
    if wallet is not None:
        figures = [
            figure("opening", wallet.opening_minor),
            figure("receipts", sum(receipt.amount_minor for receipt in wallet.receipts)),
            figure("drawn", wallet.drawn_minor),
            figure("closing", wallet.closing_minor, strong=True),
        ]
        if wallet.arrears_closing_minor:
            figures.append(figure("arrears", wallet.arrears_closing_minor, strong=True))
        return Panel(tuple(figures))
    main = "credited" if content.kind == "credit_note" else "amount_due"
    due = content.due_on.isoformat() if content.due_on else ""
    return Panel(
        (
            figure(main, content.total_minor, strong=True),
            *((Figure(words.both("due_on"), due),) if due else ()),
            figure("net", content.net_minor),
            figure("tax_of", content.tax_minor),
        )
    )


def _figures(currency: str, words: Words) -> Callable[..., Figure]:
    def figure(key: str, minor: int, *, strong: bool = False) -> Figure:
        return Figure(words.both(key), money(minor, currency), strong=strong)

    return figure


def _usage(content: DocumentContent, words: Words) -> tuple[Block, ...]:
    """Chart the usage of each day, core-hours and card-hours on scales of their own."""
    days = tuple(each_day(content.first_day, content.last_day))
    core = {row.day: row.core_hours for row in content.usage_by_day}
    card = {row.day: row.card_hours for row in content.usage_by_day}
    used = [
        (key, hours) for key, hours in (("core_hours", core), ("card_hours", card)) if any(decimals(hours.values()))
    ]
    if not used:
        return (Paragraph(words.both("no_usage"), "muted"),)
    colours: tuple[Literal["accent", "second"], ...] = ("accent", "second")
    charts = (_chart(key, hours, days, colour, words) for (key, hours), colour in zip(used, colours, strict=False))
    return (BarCharts(tuple(charts)),)


def _chart(
    key: str, hours: dict[date, str], days: tuple[date, ...], colour: Literal["accent", "second"], words: Words
) -> BarChart:
    """Chart every day of the period, also those without usage."""
    total = f"{words.both('sum')} {grouped(total_text(hours.values()), 2)}"
    values = decimals(hours.get(day, "0") for day in days)
    return BarChart(words.both(f"{key}_by_day"), total, tuple(str(day.day) for day in days), values, colour)


def _totals(content: DocumentContent, words: Words) -> tuple[Block, ...]:
    """Total the document: net and tax by rate, gross in figures and, in Chinese, in capital numerals."""
    currency = content.currency
    rows = [TotalRow(words.both("net"), money(content.net_minor, currency))]
    rows += [
        TotalRow(f"{words.both('tax')} {percent(group.rate)}", money(group.tax_minor, currency))
        for group in content.tax
    ] or [TotalRow(words.both("tax"), money(content.tax_minor, currency))]
    rows.append(TotalRow(words.both("total"), money(content.total_minor, currency), strong=True))
    capitals = chinese_capitals(content.total_minor, currency) if words.language == "zh" else ""
    return (Spacer(8), Totals(tuple(rows), words.both("capitals") if capitals else "", capitals))


def _shares(content: DocumentContent, words: Words) -> tuple[Block, ...]:
    """Split the charges by project and by user."""
    tables = (
        ("by_project", "project", "unassigned", content.by_project),
        ("by_user", "user", "no_user", content.by_user),
    )
    blocks: list[Block] = []
    for heading, label, nobody, rows in tables:
        if rows:
            blocks += [Heading(words.main(heading), words.sub(heading))]
            blocks += [_share_table(rows, (label, nobody), content.currency, words)]
    return tuple(blocks)


def _share_table(rows: tuple[ShareRow, ...], keys: tuple[str, str], currency: str, words: Words) -> Table:
    label, nobody = keys
    present = {unit for row in rows for unit in row.quantities}
    units = [unit for unit in _UNIT_ORDER if unit in present] + sorted(present - set(_UNIT_ORDER))
    columns = [Column(words.main(label), words.sub(label), flex=1)]
    columns += [Column(words.unit(unit), words.unit_sub(unit), "right") for unit in units]
    columns.append(Column(words.main("amount"), words.sub("amount"), "right"))
    body = [_share_row(row, units, nobody, currency, words) for row in rows]
    sums = [quantity(total_text([row.quantities.get(unit, "0") for row in rows]), unit) for unit in units]
    total = format_grouped(sum(row.amount_minor for row in rows), currency)
    return Table(tuple(columns), (*body, Row((words.both("sum"), *sums, total), style="total")))


def _share_row(row: ShareRow, units: list[str], nobody: str, currency: str, words: Words) -> Row:
    name = row.name or row.id or words.both(nobody)
    cells = [quantity(row.quantities[unit], unit) if unit in row.quantities else "" for unit in units]
    notes = (row.id if row.name and row.name != row.id else "", *([""] * (len(units) + 1)))
    return Row((name, *cells, format_grouped(row.amount_minor, currency)), notes if notes[0] else ())


def _payment(content: DocumentContent, words: Words) -> tuple[Block, ...]:
    """Say where an invoice is paid."""
    issuer = content.issuer
    if content.kind != "invoice" or not issuer.bank_account:
        return ()
    pairs = (
        (words.both("name"), words.pick(issuer.name, issuer.name_en)),
        (words.both("bank"), issuer.bank),
        (words.both("bank_account"), issuer.bank_account),
        (words.both("reference"), content.number),
    )
    return (
        Spacer(14),
        KeyValues((KeyValueGroup(words.both("payment"), tuple((k, v) for k, v in pairs if v)),)),
    )


def _small_print(content: DocumentContent, words: Words) -> tuple[Block, ...]:
    """End with what the document is not, and what it was computed from."""
    blocks: list[Block] = [Spacer(10), Paragraph(f"{words.main('prices_gross')} {words.main('not_fapiao')}", "muted")]
    if words.language == "zh":
        blocks.append(Paragraph(f"{words.sub('prices_gross')} {words.sub('not_fapiao')}", "muted"))
    if content.pins:
        pins = " · ".join(f"{key} {value}" for key, value in sorted(content.pins.items()))
        blocks.append(Paragraph(f"{words.both('basis')}: {pins}", "muted"))
    return tuple(blocks)
