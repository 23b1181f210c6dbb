"""Explain a document: from a line to its price, its days, the rollup, the events and the rows they came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
from sqlmodel import Session

from base.money import decimal_text, format_minor
from base.period import month_period
from hourbook.closes import closes_by_month, pins_of
from hourbook.deriving import DerivedMonth, derive
from hourbook.reading import Reading
from hourbook.settings import Home
from invoices import store as invoices
from invoices.document import DocumentContent, DocumentLine
from invoices.month import CustomerMonth
from metering import store as metering
from metering.amendments import is_word
from metering.identity import winners
from metering.lake import EventLake
from pricing.assignment import label
from pricing.charges import UNIT_SCALE, ChargeLine

Section = tuple[str, Sequence[str], list[dict[str, Any]]]  # title, columns, rows
LINE_COLUMNS = (
    "n",
    "sku",
    "month",
    "price from",
    "tier",
    "quantity",
    "unit",
    "unit price",
    "line",
    "here",
    "covered by",
)


def explain_document(home: Home, session: Session, number: str, line: int | None) -> Iterator[Section]:
    """Yield the sections of an explanation; with a line, down to the source rows."""
    row = invoices.document(session, number)
    content = invoices.content_of(row)
    yield f"{number} of {content.customer.name}", LINE_COLUMNS, [_line(one, content) for one in content.lines]
    yield "as of", ("what", "number"), [{"what": name, "number": value} for name, value in content.pins.items()]
    if line is None:
        return
    wanted = next((one for one in content.lines if one.n == line), None)
    if wanted is None:
        raise LookupError(f"{number} has no line {line}; its lines are 1 to {len(content.lines)}")
    yield from _down(home, session, row, wanted, content)


def _line(line: DocumentLine, content: DocumentContent) -> dict[str, Any]:
    money = content.currency
    return {
        "n": line.n,
        "sku": line.sku,
        "month": line.original_month,
        "price from": line.price_source,
        "tier": line.tier or "",
        "quantity": line.quantity,
        "unit": line.unit,
        "unit price": line.unit_price,
        "line": format_minor(line.line_amount_minor, money),
        "here": format_minor(line.amount_minor, money),
        "covered by": ", ".join(f"{kind} {format_minor(minor, money)}" for kind, minor in line.parts.items()),
    }


def _down(
    home: Home, session: Session, row: invoices.DocumentRow, line: DocumentLine, content: DocumentContent
) -> Iterator[Section]:
    close = invoices.close_of(session, row.month)
    if close is None:
        raise LookupError(f"{row.month} has no close")
    pins = pins_of(close)
    earlier = {month: p for month, p in closes_by_month(session).items() if month < row.month}
    reading = Reading(home, session, pins, earlier)
    derived = derive(reading, [row.month])[row.month]
    month = derived.customers[row.customer]
    charge = next(one for one in (*month.lines, *month.adjustments) if one.key.line_id == line.line_id)
    yield _rounding(charge, content)
    yield _splits(charge, content)
    yield _draws(month, line, content)
    if charge.category == "Usage":
        yield from _sources(reading, derived, charge)


def _rounding(charge: ChargeLine, content: DocumentContent) -> Section:
    exact = charge.exact_quantity * Fraction(charge.unit_price)
    shown = {
        "exact quantity": str(charge.exact_quantity),
        "× unit price": f"{charge.unit_price:f}",
        "= exactly": decimal_text(exact, 10),
        "rounded once": format_minor(charge.amount_minor, content.currency),
    }
    return "price × quantity", tuple(shown), [shown]


def _splits(charge: ChargeLine, content: DocumentContent) -> Section:
    scale = UNIT_SCALE[charge.unit]
    rows = [
        {
            "day": split.day.isoformat(),
            "project": split.project,
            "user": split.user,
            "cluster": split.cluster,
            "quantity": decimal_text(Fraction(split.quantity, scale), 6),
            "amount": format_minor(split.amount_minor, content.currency),
        }
        for split in charge.splits
    ]
    return "by day, project, user, cluster", ("day", "project", "user", "cluster", "quantity", "amount"), rows


def _draws(month: CustomerMonth, line: DocumentLine, content: DocumentContent) -> Section:
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for draw in month.drawdown.draws:
        if draw.charge.line_id == line.line_id:
            sums[draw.kind, draw.source_id] += draw.amount_minor
    rows = [
        {"from": kind, "source": source, "amount": format_minor(minor, content.currency)}
        for (kind, source), minor in sorted(sums.items())
    ]
    return "drawn from", ("from", "source", "amount"), rows


def _sources(reading: Reading, derived: DerivedMonth, charge: ChargeLine) -> Iterator[Section]:
    key, catalog = charge.key, derived.catalog
    rollup = reading.usage(catalog, key.original_month, key.original_month)
    mine = _of_charge(label(rollup, catalog), charge)
    who = ("cluster", "partition", "qos", "account", "user", "resource")
    totals = mine.group_by(who).agg(pl.col("quantity").sum(), pl.len().alias("rollup rows")).sort(who)
    yield "rollup", (*who, "quantity", "rollup rows"), totals.to_dicts()
    places = mine.select(PLACE)
    if key.original_month in reading.closed:
        # What was taken off afterwards has left the rollup, and is what the adjustment is about.
        charged = reading.as_charged(max(reading.closed))
        before = label(charged.usage(catalog, key.original_month, key.original_month), charged.catalog())
        places = pl.concat([places, _of_charge(before, charge).select(PLACE)])
    yield "events", EVENT_COLUMNS, _events(reading, places, catalog.zone(key.customer).key, key.original_month)


PLACE = ("start_date", "cluster", "partition", "qos", "account", "user")


def _of_charge(labelled: pl.DataFrame, charge: ChargeLine) -> pl.DataFrame:
    return labelled.filter((pl.col("customer") == charge.key.customer) & (pl.col("sku") == charge.key.sku))


EVENT_COLUMNS = (
    "source",
    "id",
    "revision",
    "job",
    "state",
    "start",
    "end",
    "cpus",
    "nodes",
    "cards",
    "file",
    "recorded as",
    "word",
    "evidence",
)


def _events(reading: Reading, places: pl.DataFrame, zone: str, month: str) -> list[dict[str, Any]]:
    """Return the events of places, each with the file that it came in, the operator's word, and what else was said."""
    if places.is_empty():
        return []
    period = month_period(month, ZoneInfo(zone))
    dates = places["start_date"].unique().to_list()
    events = winners(EventLake(reading.home.lake).scan(dates, as_of=reading.pins.recorded_seq).collect())
    begin, end = int(period.start.timestamp()), int(period.end.timestamp())
    touched = events.filter((pl.col("start_second") < end) & (pl.col("end_second") > begin))
    shown = touched.join(places.unique(), on=PLACE, how="semi").sort("start_second", "id")
    files = {batch.batch_seq: batch.origin for batch in metering.inbox_batches(reading.session)}
    instant = [
        pl.from_epoch(name, time_unit="s")
        .dt.replace_time_zone("UTC")
        .dt.convert_time_zone(zone)
        .dt.strftime("%Y-%m-%dT%H:%M:%S%:z")
        .alias(alias)
        for name, alias in (("start_second", "start"), ("end_second", "end"))
    ]
    rows = shown.with_columns(
        *instant,
        pl.col("batch_seq").replace_strict(files, default="", return_dtype=pl.String).alias("file"),
        pl.col("recorded_seq").alias("recorded as"),
        word=_word(),
    )
    return rows.select(EVENT_COLUMNS).to_dicts()


def _word() -> pl.Expr:
    """Return what the operator said about an event: `amend by lin: ticket 88`; an empty text where nothing was."""
    said = [pl.col("evidence").str.json_path_match(f"$.{name}") for name in ("word", "by", "reason")]
    return pl.when(is_word()).then(pl.format("{} by {}: {}", *said)).otherwise(pl.lit("")).fill_null("")
