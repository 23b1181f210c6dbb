"""The page that `make demo` leaves: what happened, in figures and charts, with a link to every file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from base.money import format_grouped
from hourbook.billing_run import MonthRun
from hourbook.database import read_session
from hourbook.sealing import BatchAccount, total_account
from hourbook.settings import Home
from hourbook.usage_report import UsageQuery, usage_report
from invoices.document import DocumentContent
from reconciliation.report import discrepancy_table, margin_table

CHART_HEIGHT = 120


@dataclass(frozen=True)
class Bar:
    """One bar: its height in pixels, and what it says when pointed at."""

    label: str
    height: int
    title: str


@dataclass(frozen=True)
class Chart:
    """Bars with a title and the largest value."""

    title: str
    unit: str
    top: str
    bars: tuple[Bar, ...]


def write_page(home: Home, run: MonthRun, accounts: Sequence[BatchAccount], out: Path) -> Path:
    """Write index.html into the demo's folder."""
    environment = Environment(
        loader=PackageLoader("hourbook", "web/templates"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("demo.html").render(
        month=run.closed.month,
        accounts=accounts,
        total=total_account(accounts),
        charts=[*_usage_charts(home, run.closed.month), _charge_chart(run.closed.documents)],
        documents=[_document(content) for content in run.closed.documents],
        suppliers=[
            {
                "id": check.supplier.id,
                "name": check.supplier.name,
                "name_en": check.supplier.name_en,
                "differences": _rows(discrepancy_table(check.result)),
            }
            for check in run.reconciled.suppliers
        ],
        margin=_rows(margin_table(run.reconciled.margin, month=run.closed.month)),
    )
    path = out / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _rows(table: Any) -> dict[str, Any]:  # noqa: ANN401 - a table of the reconciliation
    return {
        "columns": [(column.zh, column.en, column.form != "text") for column in table.columns],
        "rows": table.text_rows(),
    }


def _document(content: DocumentContent) -> dict[str, str]:
    folder = "invoices" if content.kind == "invoice" else "statements"
    wallet = content.wallet
    return {
        "file": f"{folder}/{content.number}.pdf",
        "number": content.number,
        "kind": content.kind,
        "customer": content.customer.name,
        "customer_en": content.customer.name_en,
        "total": format_grouped(content.total_minor, content.currency),
        "tax": format_grouped(content.tax_minor, content.currency),
        "closing": format_grouped(wallet.closing_minor, content.currency) if wallet else "",
        "arrears": format_grouped(wallet.arrears_closing_minor, content.currency)
        if wallet and wallet.arrears_closing_minor
        else "",
    }


def _usage_charts(home: Home, month: str) -> Iterable[Chart]:
    first = date.fromisoformat(f"{month}-01")
    last = first.replace(day=30)
    with read_session(home.engine) as session:
        rows = usage_report(home, session, UsageQuery(first, last, ("day", "cluster"))).to_dicts()
    for field, unit in (("core_hours", "core-hours"), ("card_hours", "card-hours")):
        for cluster in sorted({row["cluster"] for row in rows}):
            days = {row["day"]: Decimal(row[field]) for row in rows if row["cluster"] == cluster}
            # A cluster whose usage is tiny keeps its chart: its days are real.
            if sum(days.values()) >= 1:
                yield _chart(f"{cluster} {unit} by day", unit, days)


def _charge_chart(documents: Sequence[DocumentContent]) -> Chart:
    charged: dict[str, Decimal] = defaultdict(Decimal)
    for content in documents:
        for line in content.lines:
            charged[line.product] += Decimal(line.amount_minor) / 100
    return _chart("Charges by product", "CNY", dict(sorted(charged.items())))


def _chart(title: str, unit: str, values: Mapping[str, Decimal]) -> Chart:
    top = max(values.values(), default=Decimal(0)) or Decimal(1)
    bars = tuple(
        Bar(label, int(CHART_HEIGHT * value / top), f"{label}: {value:,.2f} {unit}") for label, value in values.items()
    )
    return Chart(title, unit, f"{top:,.0f}", bars)
