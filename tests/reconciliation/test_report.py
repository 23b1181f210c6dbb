"""The reconciliation as CSV: readable in both languages, exact, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
from fractions import Fraction

from reconciliation.margin import ClusterHours, margin_rows
from reconciliation.report import (
    Table,
    discrepancy_table,
    item_table,
    margin_table,
    match_table,
    rejected_table,
    to_csv,
    totals_table,
    unpriced_table,
)
from reconciliation.supplier_bill import RejectedBillLine

from .samples import CORE_HOUR, billed, compare, contract, frame, used


def read(table: Table) -> list[dict[str, str]]:
    payload = to_csv(table)
    assert payload.startswith(b"\xef\xbb\xbf"), "spreadsheets need the mark to show Chinese"
    return list(csv.DictReader(payload.decode("utf-8-sig").splitlines()))


RESULT = compare(
    frame(used(Fraction(3601, 3600)), used(1000, "grp_b")), billed(1), billed(900, "grp_b", price="0.06", line_id="L2")
)


def test_every_key_stands_on_a_row_with_names_in_both_languages() -> None:
    first, second = read(match_table(RESULT))

    assert first["集群 Cluster"] == "cpu2"
    assert first["计量数量 Metered"] == "1.0003"
    assert second["差额 Difference"] == "4.00"
    assert second["差异类型 Kinds"] == "quantity price"


def test_negative_numbers_stay_numbers() -> None:
    quantity, price = read(discrepancy_table(RESULT))

    assert quantity["影响金额 Effect on the bill"] == "-5.00"
    assert price["账单单价 Billed price"] == "0.06"
    assert price["差异类型 Kind"] == "price"
    assert quantity["说明 Explanation in Chinese"].startswith("cpu2/cpu/grp_b/core-hour：账单 900 核时，计量 1000 核时")


def test_a_login_cannot_smuggle_a_formula_into_the_sheet() -> None:
    for login in ("=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)", "＝1"):
        rows = read(match_table(compare(frame(), billed(100, login))))
        assert rows[0]["账号 Login"] == f"'{login}"


def test_the_bill_is_explained_step_by_step_to_its_sum() -> None:
    rows = totals_table(RESULT).rows
    amounts = [row[2] for row in rows]

    assert all(isinstance(amount, int) for amount in amounts)
    assert sum(amount for amount in amounts[:-1] if isinstance(amount, int)) == amounts[-1]
    assert read(totals_table(RESULT))[-1]["金额 Amount"] == "54.05"


def test_the_view_by_item_names_the_month() -> None:
    (row,) = read(item_table(RESULT))

    assert (row["月份 Month"], row["差异数 Differences found"], row["账单数量 Billed"]) == ("2026-11", "2", "901.0000")


def test_usage_without_a_price_and_refused_lines_have_their_tables() -> None:
    terms = contract(CORE_HOUR | {"partition": "cpu"})
    result = compare(frame(used(1, queue="new")), contracts=(terms,))
    (usage,) = read(unpriced_table(result))
    refused = RejectedBillLine("negative", "line 2: …", 2, "=1,-5")
    (line,) = read(rejected_table([refused], month="2026-11", currency="CNY"))

    assert (usage["队列 Queue"], usage["起始日 From"]) == ("new", "2026-11-01")
    assert (line["行号 Line"], line["原文 As it arrived"]) == ("2", "'=1,-5")


def test_margin_shows_rounded_figures_from_exact_ones() -> None:
    rows = margin_rows({"cpu2": 100_000}, {"cpu2": 66_667}, {"cpu2": ClusterHours(Fraction(30_000))}, currency="CNY")
    cluster, total = read(margin_table(rows, month="2026-11"))

    assert cluster["毛利率 % Margin %"] == "33.33"
    assert cluster["每核时收入 Revenue per core-hour"] == "0.0333"
    assert cluster["每卡时收入 Revenue per card-hour"] == ""
    assert total["集群 Cluster"] == "合计 Total"
