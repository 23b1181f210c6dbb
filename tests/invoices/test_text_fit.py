"""Names of any length stand on the page in full."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from invoices.text_fit import GETA, Style, plain_text, wrap


def width(text: str, style: Style) -> float:
    """Chinese characters twice as wide as Latin ones."""
    return style.size * sum(1 if ord(char) < 0x2E80 else 2 for char in text)


UNIT = Style(1)


def test_chinese_breaks_between_characters_and_latin_between_words() -> None:
    assert wrap("北方大学物理学院", 8, UNIT, width) == ["北方大学", "物理学院"]
    assert wrap("School of Physics", 10, UNIT, width) == ["School of", "Physics"]


def test_no_line_begins_with_a_closing_mark_or_ends_with_an_opening_one() -> None:
    assert wrap("凝聚态理论，量子多体", 10, UNIT, width) == ["凝聚态理", "论，量子多", "体"]
    assert wrap("研究中心（北京）", 10, UNIT, width) == ["研究中心", "（北京）"]


def test_a_word_wider_than_the_line_is_broken_inside() -> None:
    assert wrap("slurm_account_of_group", 10, UNIT, width) == ["slurm_acco", "unt_of_gro", "up"]


@given(st.text("ab 中文，（）.-0é😀", max_size=60), st.integers(2, 30))
def test_wrapping_loses_nothing_and_never_runs_over(text: str, room: int) -> None:
    tidy = " ".join(text.split())
    lines = wrap(tidy, room, UNIT, width)
    assert "".join(lines).replace(" ", "") == tidy.replace(" ", "")
    assert all(width(line, UNIT) <= room or len(line) == 1 for line in lines)


def test_what_has_no_glyph_becomes_a_visible_mark_and_is_named() -> None:
    text, missing = plain_text("王\U00020bb7\n\u202eabc", lambda char: char in "王 abc")
    assert text == f"王{GETA} {GETA}abc"
    assert missing == {"\U00020bb7", "\u202e"}


def test_a_letter_and_its_accent_become_one_letter() -> None:
    assert plain_text("Rene\u0301", lambda char: char in "René") == ("René", frozenset())
