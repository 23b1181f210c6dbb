"""Amounts in Chinese capital numerals (大写金额), which cannot be altered by a stroke."""

from __future__ import annotations

import cn2an

from base.money import format_minor

_LARGEST = 10**16  # yuan; the numerals end at 仟万亿


def chinese_capitals(minor: int, currency: str) -> str:
    """Write an amount of yuan in capital numerals: 1234.50 is 壹仟贰佰叁拾肆元伍角; of other currencies nothing."""
    if currency != "CNY" or abs(minor) >= _LARGEST * 100:
        return ""
    text = str(cn2an.an2cn(format_minor(abs(minor), currency), "rmb"))
    return f"负{text}" if minor < 0 else text
