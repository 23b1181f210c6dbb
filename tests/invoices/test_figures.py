"""Figures on documents say exactly what is stored, in the form that a reader expects."""

from __future__ import annotations

from decimal import Decimal

import pytest

from invoices.amount_words import chinese_capitals
from invoices.figures import grouped, money, percent, quantity, total_text, unit_price
from invoices.typeset_chart import axis_ticks


@pytest.mark.parametrize(
    ("minor", "words"),
    [
        (0, "零元整"),
        (1, "壹分"),
        (105, "壹元零伍分"),
        (123450, "壹仟贰佰叁拾肆元伍角"),
        (101005, "壹仟零壹拾元零伍分"),
        (100010001, "壹佰万零壹佰元零壹分"),
        (1000000000, "壹仟万元整"),
        (-12345, "负壹佰贰拾叁元肆角伍分"),
    ],
)
def test_an_amount_in_capital_numerals(minor: int, words: str) -> None:
    assert chinese_capitals(minor, "CNY") == words


def test_other_currencies_have_no_capital_numerals() -> None:
    assert chinese_capitals(100, "USD") == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [("1234567.5", "1,234,567.50"), ("0.000123", "0.000123"), ("-0.5", "-0.50"), ("12.3400", "12.34"), ("0", "0.00")],
)
def test_hours_keep_every_decimal_that_counts(text: str, shown: str) -> None:
    assert quantity(text, "core-hour") == shown


def test_pieces_have_no_decimals_they_do_not_need() -> None:
    assert quantity("3", "piece") == "3"
    assert quantity("2.5", "card-month") == "2.5"


def test_a_pack_price_without_end_is_cut_and_says_so() -> None:
    assert unit_price("0.08") == "0.08"
    assert unit_price("0.0251231231231231231231231231") == "≈0.0251231231"


def test_amounts_carry_sign_and_currency() -> None:
    assert money(-120450, "CNY") == "-¥1,204.50"
    assert money(5, "HKD") == "HKD 0.05"


def test_rates_are_shown_as_percentages() -> None:
    assert [percent("0.06"), percent("0.13"), percent("0.0325"), percent("0")] == ["6%", "13%", "3.25%", "0%"]


def test_sums_of_quantities_lose_no_digit() -> None:
    assert total_text(["99999999999999999.999999", "0.000001", "-0.5"]) == "99999999999999999.5"
    assert total_text([]) == "0"


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        grouped("NaN")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        ("0", "12999", ["0", "5000", "10000", "15000"]),
        ("0", "0", ["0", "1"]),
        ("0", "0.03", ["0", "0.01", "0.02", "0.03"]),
        ("-30", "100", ["-50", "0", "50", "100"]),
        ("-7", "-2", ["-8", "-6", "-4", "-2", "0"]),
    ],
)
def test_an_axis_has_round_steps_and_zero(low: str, high: str, ticks: list[str]) -> None:
    assert axis_ticks(Decimal(low), Decimal(high)) == [Decimal(tick) for tick in ticks]
