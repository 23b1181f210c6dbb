"""The table of charges: what was used or bought, at which price, and what of it stands on this document."""

from __future__ import annotations

from base.money import format_grouped
from invoices.blocks import Block, Column, Heading, Paragraph, Row, Table
from invoices.document import DocumentContent, DocumentLine
from invoices.figures import grouped, percent, quantity, unit_price
from invoices.labels import Words

_SOURCES = ("pack", "grant", "lot", "credit", "arrears")


def line_blocks(content: DocumentContent, words: Words) -> tuple[Block, ...]:
    """Return the table of charges under its heading, or say that there are none."""
    heading = Heading(words.main("lines"), words.sub("lines"))
    if not content.lines:
        return (heading, Paragraph(words.both("no_lines"), "muted"))
    split = any(line.amount_minor != line.line_amount_minor for line in content.lines)
    taxed = any(line.tax_minor for line in content.lines)
    rows = tuple(_row(line, content.currency, words, (split, taxed)) for line in content.lines)
    return (heading, Table(_columns(words, split=split, taxed=taxed), rows))


def _columns(words: Words, *, split: bool, taxed: bool) -> tuple[Column, ...]:
    def column(key: str) -> Column:
        return Column(words.main(key), words.sub(key), "right")

    return (
        Column(words.main("n"), words.sub("n")),
        Column(words.main("item"), words.sub("item"), flex=1),
        column("quantity"),
        column("unit_price"),
        *((column("line_amount"),) if split else ()),
        column("amount"),
        *((column("tax_of"),) if taxed else ()),
    )


def _row(line: DocumentLine, currency: str, words: Words, shown: tuple[bool, bool]) -> Row:
    """Set one line; notes under its cells say price source, unit, list price and tax rate."""
    split, taxed = shown
    amount = format_grouped(line.amount_minor, currency)
    whole = format_grouped(line.line_amount_minor, currency)
    tax = format_grouped(line.tax_minor, currency)
    cells = (
        str(line.n),
        words.pick(line.sku_name, line.sku_name_en) or line.sku,
        quantity(line.quantity, line.unit),
        unit_price(line.unit_price),
        *((whole,) if split else ()),
        amount,
        *((tax,) if taxed else ()),
    )
    notes = (
        "",
        _note(line, currency, words),
        words.unit(line.unit),
        _list_price(line, words),
        *(("",) if split else ()),
        "",
        *((percent(line.tax_rate),) if taxed else ()),
    )
    return Row(cells, notes)


def _note(line: DocumentLine, currency: str, words: Words) -> str:
    """Say in small type where the price comes from and what covered the line."""
    english = line.sku_name_en if words.language == "zh" and line.sku_name_en != line.sku_name else ""
    tier = words.main("tier").format(n=line.tier) if line.tier else ""
    adjusted = words.main("adjustment").format(month=line.original_month) if line.category == "Adjustment" else ""
    return " · ".join(
        text for text in (english, adjusted, tier, line.price_source, _parts(line, currency, words)) if text
    )


def _parts(line: DocumentLine, currency: str, words: Words) -> str:
    """List what covered the line, unless it is one source alone."""
    if len(line.parts) < 2:  # noqa: PLR2004 (one source alone needs no list)
        return ""
    known = [kind for kind in _SOURCES if kind in line.parts]
    kinds = known + sorted(set(line.parts) - set(known))
    return " + ".join(
        f"{words.main(kind) if kind in _SOURCES else kind} {format_grouped(line.parts[kind], currency)}"
        for kind in kinds
    )


def _list_price(line: DocumentLine, words: Words) -> str:
    """Show the list price where the customer pays another."""
    if not line.list_unit_price or grouped(line.list_unit_price) == grouped(line.unit_price):
        return ""
    return f"{words.main('list_price')} {unit_price(line.list_unit_price)}"
