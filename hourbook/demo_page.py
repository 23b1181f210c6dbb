"""The page that `make demo` leaves: what happened, in figures and charts, with a link to every file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from base.money import format_grouped, parse_decimal
from base.period import each_day, month_days
from hourbook.demo_summary import DemoFigures, product_totals
from hourbook.reconciliation_run import SupplierCheck
from hourbook.web.charts import Chart, bar_chart, share
from invoices.document import DocumentContent
from reconciliation.margin import TOTAL, MarginRow
from reconciliation.report import cell_text
from reconciliation.wording import KINDS_EN, KINDS_ZH

PRODUCTS = {
    "general-hpc": ("General HPC", "通用超算"),
    "industry-cloud": ("Industry cloud", "行业云"),
    "ai-cloud": ("AI cloud", "智算云"),
    "conference": ("Conference", "会议"),
    "software": ("Software", "软件"),
    "service": ("Services", "服务"),
}
# What becomes of a row, in the order of the bar, with what a reader should know of it.
FATES = (
    ("kept", "kept", "counted"),
    ("duplicate", "duplicate", "the same row in an overlapping pull"),
    ("superseded", "superseded", "an earlier state of the same job"),
    ("conflicting_final", "conflicting", "other facts at the same revision; a rule decides which counts"),
)
LABELLED_DAYS = (1, 8, 15, 22)
NO_CLUSTER = "-"  # revenue that no cluster earned


@dataclass(frozen=True)
class DayChart:
    """Hours of a cluster by day."""

    cluster: str
    unit: str
    total: str
    chart: Chart
    top: str
    half: str
    labels: tuple[tuple[str, str], ...]  # where (percent), what


def write_page(figures: DemoFigures, out: Path) -> Path:
    """Write index.html into the demo's folder."""
    environment = Environment(
        loader=PackageLoader("hourbook", "web/templates"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["grouped"] = "{:,}".format
    page = environment.get_template("demo.html").render(
        month=figures.month,
        month_name=f"{month_days(figures.month)[0]:%B %Y}",
        headline=_headline(figures),
        total=figures.total,
        fates=_fates(figures),
        refused=sorted(figures.total.quarantined.items()),
        open_entries=figures.open_entries,
        charts=list(_day_charts(figures)),
        products=_products(figures),
        documents=[_document(content) for content in figures.documents()],
        sums=figures.document_sums(),
        suppliers=[_supplier(check, figures.month) for check in figures.run.reconciled.suppliers],
        margins=_margins(figures.run.reconciled.margin),
        accounts=figures.accounts,
        commands=figures.commands,
    )
    path = out / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _headline(figures: DemoFigures) -> list[tuple[str, str, str]]:
    """Return the few figures that most readers come for: value, unit, what it is."""
    margin = next(row for row in figures.run.reconciled.margin if row.cluster == TOTAL)
    charged = sum(product_totals(figures.run).values())
    differences = [found for check in figures.run.reconciled.suppliers for found in check.result.discrepancies]
    hours = {name: sum(parse_decimal(row[name]) for row in figures.hours) for name in ("core_hours", "card_hours")}
    return [
        (_whole(charged, "CNY"), "CNY", "charged to customers, tax included"),
        (f"{hours['core_hours']:,.0f}", "core-hours", f"metered on {len(figures.hours)} clusters"),
        (f"{hours['card_hours']:,.0f}", "card-hours", "metered, each model at its own price"),
        (str(len(figures.run.closed.documents)), "documents", "invoices and statements, each a PDF"),
        (str(len(differences)), "differences", f"found in {len(figures.run.reconciled.suppliers)} suppliers' bills"),
        (_whole(margin.margin_minor, "CNY"), "CNY", "margin, net of tax"),
    ]


def _whole(minor: int, currency: str) -> str:
    return format_grouped(minor, currency).partition(".")[0]


def _fates(figures: DemoFigures) -> list[dict[str, str]]:
    total = figures.total
    parts = [(status, label, total.statuses.get(status, 0), note) for status, label, note in FATES]
    parts.append(("none", "no usage", sum(total.no_usage.values()), _listed(total.no_usage.items())))
    parts.append(("bad", "quarantined", sum(total.quarantined.values()), _listed(total.quarantined.items())))
    return [
        {"kind": kind, "label": label, "rows": f"{rows:,}", "share": share(rows, total.rows), "note": note}
        for kind, label, rows, note in parts
        if rows
    ]


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(counts))


def _day_charts(figures: DemoFigures) -> Iterable[DayChart]:
    days = list(each_day(*month_days(figures.month)))
    for field, unit in (("core_hours", "core-hours"), ("card_hours", "card-hours")):
        for cluster in sorted({str(row["cluster"]) for row in figures.by_day}):
            used = {row["day"]: Fraction(row[field]) for row in figures.by_day if row["cluster"] == cluster}
            # A cluster whose usage is tiny keeps its chart: its day is real.
            if any(used.values()):
                yield _day_chart(cluster, unit, [(day, used.get(day.isoformat(), Fraction(0))) for day in days])


def _day_chart(cluster: str, unit: str, values: Sequence[tuple[date, Fraction]]) -> DayChart:
    chart = bar_chart([value for _, value in values], [f"{day}: {float(value):,.2f} {unit}" for day, value in values])
    places = [(n, day) for n, (day, _) in enumerate(values) if day.day in LABELLED_DAYS or n == len(values) - 1]
    return DayChart(
        cluster=cluster,
        unit=unit,
        total=_short(sum((value for _, value in values), Fraction(0))),
        chart=chart,
        top=_short(chart.top),
        half=_short(chart.top / 2),
        labels=tuple((share(2 * n + 1, 2 * len(values)), f"{day.month}-{day.day:02d}") for n, day in places),
    )


def _short(value: Fraction) -> str:
    """Write a figure beside a chart: whole where it is large, else with what makes it legible."""
    return f"{float(value):,.0f}" if value >= 100 else f"{float(value):,.3g}"  # noqa: PLR2004 - three digits


def _products(figures: DemoFigures) -> list[dict[str, str]]:
    totals = product_totals(figures.run)
    largest = max(totals.values(), default=0)
    return [
        {
            "name": PRODUCTS.get(product, (product, ""))[0],
            "name_zh": PRODUCTS.get(product, ("", product))[1],
            "amount": format_grouped(minor, "CNY"),
            "share": share(minor, largest),
        }
        for product, minor in sorted(totals.items(), key=lambda item: -item[1])
    ]


def _document(content: DocumentContent) -> dict[str, str]:
    folder = "invoices" if content.kind == "invoice" else "statements"
    wallet, money = content.wallet, content.currency
    arrears = wallet.arrears_closing_minor if wallet else 0
    return {
        "file": f"{folder}/{content.number}.pdf",
        "number": content.number,
        "kind": content.kind,
        "customer": content.customer.name,
        "customer_en": content.customer.name_en,
        "total": format_grouped(content.total_minor, money),
        "tax": format_grouped(content.tax_minor, money),
        "due": content.due_on.isoformat() if content.due_on else "",
        "closing": format_grouped(wallet.closing_minor, money) if wallet else "",
        "arrears": format_grouped(arrears, money) if arrears else "",
    }


def _supplier(check: SupplierCheck, month: str) -> dict[str, Any]:
    totals, stem = check.result.totals, f"suppliers/{check.supplier.id}-{month}"
    money = check.result.currency
    return {
        "id": check.supplier.id,
        "name": check.supplier.name,
        "name_en": check.supplier.name_en,
        "bill": f"bill version {check.bill.version}" if check.bill else "no bill yet",
        "contract": format_grouped(totals.contract_minor, money),
        "billed": format_grouped(totals.billed_minor, money),
        "difference": format_grouped(totals.billed_minor - totals.contract_minor, money),
        "files": [
            (f"{stem}.pdf", "reconciliation, PDF"),
            (f"{stem}.csv", "every line, CSV"),
            (f"{stem}-differences.csv", "differences, CSV"),
        ],
        "differences": [
            {
                "kind": KINDS_EN[found.kind],
                "kind_zh": KINDS_ZH[found.kind],
                "metered": _hours(found.metered),
                "billed": _hours(found.billed),
                "effect": format_grouped(found.amount_minor, money),
                "over": found.amount_minor > 0,
                "message": found.message_en,
                "message_zh": found.message_zh,
            }
            for found in check.result.discrepancies
        ],
    }


def _margins(rows: Sequence[MarginRow]) -> list[dict[str, Any]]:
    largest = max((max(row.revenue_minor, row.cost_minor) for row in rows if row.cluster != TOTAL), default=0)
    names = {TOTAL: ("All", "合计"), NO_CLUSTER: ("none: tickets", "会议等")}
    shown = []
    for row in rows:
        name, name_zh = names.get(row.cluster, (row.cluster, ""))
        money = row.currency
        shown.append(
            {
                "name": name,
                "name_zh": name_zh,
                "total": row.cluster == TOTAL,
                "revenue": format_grouped(row.revenue_minor, money),
                "cost": format_grouped(row.cost_minor, money),
                "margin": format_grouped(row.margin_minor, money),
                "loss": row.margin_minor < 0,
                "rate": _rate(row),
                "revenue_share": share(row.revenue_minor, largest),
                "cost_share": share(row.cost_minor, largest),
                "core": _hours(row.cost_per_core_hour),
                "card": _hours(row.cost_per_card_hour),
            }
        )
    return shown


def _hours(value: Fraction | None) -> str:
    return _separated(cell_text(value, "quantity", ""))


def _separated(figure: str) -> str:
    return f"{parse_decimal(figure):,}" if figure else ""


def _rate(row: MarginRow) -> str:
    rate = _separated(cell_text(row.margin_rate, "percent", row.currency))
    return f"{rate} %" if rate else ""
