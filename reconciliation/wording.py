"""How a difference reads, in Chinese and English: figures as procurement and the supplier would write them."""

from __future__ import annotations

from fractions import Fraction

from base.money import round_half_away

_UNITS_ZH = {
    "core-hour": "核时",
    "card-hour": "卡时",
    "node-hour": "节点时",
    "wall-hour": "机时",
    "month": "个月",
    "piece": "件",
    "card-month": "卡月",
    "node-month": "节点月",
}
KINDS_ZH = {
    "unbilled_usage": "已计量未开账",
    "unknown_charge": "不明收费",
    "quantity": "数量不符",
    "price": "单价不符",
    "duplicate": "重复收费",
}
KINDS_EN = {
    "unbilled_usage": "usage not billed",
    "unknown_charge": "unknown charge",
    "quantity": "quantity differs",
    "price": "price differs",
    "duplicate": "billed twice",
}


def decimal_text(value: Fraction, places: int) -> str:
    """Write an exact number with so many decimals, rounded half away from zero."""
    scaled = round_half_away(value * 10**places)
    whole, part = divmod(abs(scaled), 10**places)
    sign = "-" if scaled < 0 else ""
    return f"{sign}{whole}.{part:0{places}d}" if places else f"{sign}{whole}"


def short_text(value: Fraction, places: int = 6) -> str:
    """Write an exact number with as many decimals as it needs, up to a limit: 0.035, 1200."""
    text = decimal_text(value, places)
    return text.rstrip("0").rstrip(".") if "." in text else text


def unit_zh(unit: str) -> str:
    """Return the unit in Chinese."""
    return _UNITS_ZH.get(unit, unit)


def quantity_zh(quantity: Fraction, unit: str) -> str:
    """Write a quantity with its unit in Chinese."""
    return f"{short_text(quantity, 4)} {unit_zh(unit)}"


def quantity_en(quantity: Fraction, unit: str) -> str:
    """Write a quantity with its unit in English."""
    text = short_text(quantity, 4)
    return f"{text} {unit}" if text == "1" else f"{text} {unit}s"
