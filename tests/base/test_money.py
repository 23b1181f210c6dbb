"""Money is exact: what is written is what is read, and every split adds up."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.money import (
    MAX_MINOR,
    decimal_text,
    format_grouped,
    format_minor,
    guard_minor,
    included_tax,
    largest_remainder,
    minor_digits,
    parse_amount,
    parse_decimal,
    round_half_away,
    split_tax,
    to_minor,
)

MINORS = st.integers(-(10**15), 10**15)
WEIGHTS = st.one_of(st.integers(-(10**9), 10**9), st.fractions(-1000, 1000, max_denominator=1000))
RATES = st.sampled_from([Fraction(0), Fraction(1, 100), Fraction(6, 100), Fraction(13, 100)])


def split_in_fractions(total: int, weights: list[int | Fraction]) -> list[int]:
    """The split as the sentence in the docstring says it, in fractions and without any thrift."""
    whole = sum(weights, start=Fraction(0))
    if whole == 0:
        return [total, *([0] * (len(weights) - 1))]
    sign = -1 if total < 0 else 1
    shares = [abs(total) * Fraction(weight) / whole for weight in weights]
    parts = [share.numerator // share.denominator for share in shares]
    for i in sorted(range(len(parts)), key=lambda i: (parts[i] - shares[i], i))[: abs(total) - sum(parts)]:
        parts[i] += 1
    return [sign * part for part in parts]


@given(MINORS, st.lists(WEIGHTS, min_size=1, max_size=12))
def test_a_split_is_the_one_that_fractions_give_and_adds_up(total: int, weights: list[int | Fraction]) -> None:
    parts = largest_remainder(total, weights)
    assert sum(parts) == total
    assert parts == split_in_fractions(total, weights)


@given(MINORS, st.lists(st.integers(0, 10**9), min_size=1, max_size=12))
def test_no_part_is_a_whole_unit_from_its_share(total: int, weights: list[int]) -> None:
    parts = largest_remainder(total, weights)
    if sum(weights):
        assert all(abs(part * sum(weights) - total * w) < sum(weights) for part, w in zip(parts, weights, strict=True))


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (100, [1, 1, 1], [34, 33, 33]),
        (-100, [1, 1, 1], [-34, -33, -33]),
        (5, [Fraction(1, 3), Fraction(2, 3)], [2, 3]),
        (7, [0, 0], [7, 0]),
        (7, [5, -5], [7, 0]),
        (0, [], []),
        (10, [-1, 3], [-5, 15]),
        (10, [-1, -3], [3, 7]),
    ],
)
def test_splits_by_hand(total: int, weights: list[int], parts: list[int]) -> None:
    assert largest_remainder(total, weights) == parts


def test_money_cannot_be_split_over_nobody() -> None:
    with pytest.raises(ValueError, match="nothing to split 5 over"):
        largest_remainder(5, [])


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=12), RATES)
def test_tax_of_amounts_lies_beside_each_amounts_own(amounts: list[int], rate: Fraction) -> None:
    tax = included_tax(sum(amounts), rate)
    parts = split_tax(tax, amounts, rate)
    assert sum(parts) == tax
    for part, amount in zip(parts, amounts, strict=True):
        assert abs(part - amount * rate / (1 + rate)) < 1


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=12), RATES, st.integers(-40, 40))
def test_a_tax_that_is_some_cents_off_is_split_without_losing_any(
    amounts: list[int], rate: Fraction, cents: int
) -> None:
    tax = included_tax(sum(amounts), rate) + cents
    assert sum(split_tax(tax, amounts, rate)) == tax


def test_corrections_that_nearly_cancel_have_no_absurd_tax() -> None:
    assert split_tax(1, [100_000, -99_991], Fraction(6, 100)) == [5661, -5660]
    assert largest_remainder(1, [100_000, -99_991]) == [11_111, -11_110]  # what a plain proportion would give


@given(st.fractions(-(10**12), 10**12, max_denominator=10**6))
def test_halves_round_away_from_zero(value: Fraction) -> None:
    rounded = round_half_away(value)
    assert abs(rounded - value) <= Fraction(1, 2)
    assert round_half_away(-value) == -rounded
    if abs(rounded - value) == Fraction(1, 2):
        assert abs(rounded) > abs(value)


@given(MINORS, st.sampled_from(["CNY", "JPY"]))
def test_what_is_written_is_what_is_read(minor: int, currency: str) -> None:
    assert parse_amount(format_minor(minor, currency), currency) == minor
    assert format_grouped(minor, currency).replace(",", "") == format_minor(minor, currency)


@given(st.fractions(-(10**9), 10**9, max_denominator=10**6), st.integers(0, 6))
def test_a_number_shown_with_some_decimals_is_at_most_half_a_digit_off(value: Fraction, digits: int) -> None:
    text = decimal_text(value, digits)
    assert abs(Fraction(text) - value) <= Fraction(1, 2 * 10**digits)
    assert "." not in text or not text.endswith(("0", "."))


@pytest.mark.parametrize("text", ["", "1e3", "NaN", "+1", "1.", ".5", "1,000", "١", "0x1", " 1", "1_0", "-", "1.2.3"])
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="plain decimal"):
        parse_decimal(text)


def test_more_decimals_than_the_currency_has_are_refused_not_rounded() -> None:
    with pytest.raises(ValueError, match=r"more decimals than CNY has \(2\)"):
        parse_amount("1.005", "CNY")
    with pytest.raises(ValueError, match=r"more decimals than JPY has \(0\)"):
        parse_amount("1.5", "JPY")
    assert parse_amount("1.500", "CNY") == 150


def test_an_unknown_currency_is_refused_rather_than_guessed() -> None:
    with pytest.raises(ValueError, match="currency 'XYZ' is unknown; known are CNY"):
        minor_digits("XYZ")


def test_amounts_beyond_the_ledger_are_refused() -> None:
    assert guard_minor(MAX_MINOR - 1) == MAX_MINOR - 1
    for minor in (MAX_MINOR, -MAX_MINOR):
        with pytest.raises(OverflowError, match="beyond what the ledger can hold"):
            guard_minor(minor)
    with pytest.raises(OverflowError, match="ledger"):
        to_minor(Fraction(MAX_MINOR), "CNY")


@pytest.mark.parametrize(
    ("gross", "rate", "tax"),
    [(10600, Fraction(6, 100), 600), (500, Fraction(6, 100), 28), (-500, Fraction(6, 100), -28), (9, Fraction(0), 0)],
)
def test_tax_lies_inside_the_gross_amount(gross: int, rate: Fraction, tax: int) -> None:
    assert included_tax(gross, rate) == tax
