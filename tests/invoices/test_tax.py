"""Tax is rounded once per rate and split so that every cent of it stands on a line."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoices.tax import rate_text, tax_groups

SIX = Fraction(6, 100)
THIRTEEN = Fraction(13, 100)

lines = st.lists(
    st.tuples(st.integers(-(10**12), 10**12), st.sampled_from([Fraction(0), Fraction(3, 100), SIX, THIRTEEN]))
)


def test_a_bill_of_106_holds_6_of_tax() -> None:
    split = tax_groups([(10600, SIX)])
    assert [(g.gross_minor, g.tax_minor, g.net_minor) for g in split.groups] == [(10600, 600, 10000)]
    assert split.line_tax_minor == (600,)


def test_tax_is_rounded_on_the_group_not_on_each_line() -> None:
    # Each line alone holds 0.45 cents of tax, which rounds to nothing; the three together hold 1.36.
    assert tax_groups([(8, SIX)]).tax_minor == 0
    assert tax_groups([(8, SIX)] * 3).line_tax_minor == (1, 0, 0)


def test_each_rate_is_a_group_of_its_own() -> None:
    split = tax_groups([(11300, THIRTEEN), (10600, SIX), (22600, THIRTEEN)])
    assert [(g.rate, g.gross_minor, g.tax_minor) for g in split.groups] == [(SIX, 10600, 600), (THIRTEEN, 33900, 3900)]
    assert split.line_tax_minor == (1300, 600, 2600)


def test_a_document_without_lines_has_no_tax() -> None:
    assert tax_groups([]).groups == ()
    assert tax_groups([]).tax_minor == 0


@given(lines)
def test_lines_and_groups_add_up_to_the_same_tax(given_lines: list[tuple[int, Fraction]]) -> None:
    split = tax_groups(given_lines)
    assert sum(split.line_tax_minor) == split.tax_minor
    assert sum(group.gross_minor for group in split.groups) == sum(amount for amount, _ in given_lines)
    for group in split.groups:
        exact = group.gross_minor * group.rate / (1 + group.rate)
        assert abs(group.tax_minor - exact) <= Fraction(1, 2)
        of_group = [tax for tax, (_, rate) in zip(split.line_tax_minor, given_lines, strict=True) if rate == group.rate]
        assert sum(of_group) == group.tax_minor


@given(lines)
def test_no_line_is_off_its_own_exact_tax_by_a_whole_cent_or_has_the_wrong_sign(
    given_lines: list[tuple[int, Fraction]],
) -> None:
    split = tax_groups(given_lines)
    for tax, (amount, rate) in zip(split.line_tax_minor, given_lines, strict=True):
        assert abs(tax - amount * rate / (1 + rate)) < Fraction(3, 2)
        assert tax * amount >= 0


@pytest.mark.parametrize(("rate", "text"), [(SIX, "0.06"), (Fraction(0), "0"), (THIRTEEN, "0.13"), (Fraction(1), "1")])
def test_a_rate_is_written_as_a_decimal(rate: Fraction, text: str) -> None:
    assert rate_text(rate) == text


def test_a_rate_that_is_no_short_decimal_is_refused() -> None:
    with pytest.raises(ValueError, match="1/3"):
        rate_text(Fraction(1, 3))
