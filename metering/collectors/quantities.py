"""Kubernetes quantities such as `500m` or `1Gi`, and what a pod's resources are in CPUs, memory and cards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from metering.clusters import UNKNOWN_MODEL
from metering.collectors.held import card_gres, model_of, thousandths
from metering.collectors.tres import Allocation, GresRules, TresError

SHARES = "shares"  # thousandths of cards in all, where a pod holds parts of them
_DIGITS = r"([0-9]{1,18}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})"
_QUANTITY = re.compile(_DIGITS + r"(?:[eE]([0-9]{1,2})|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII)
_THOUSANDS = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_BINARY = "KMGTPE"
_ORDINARY = frozenset({"cpu", "memory", "ephemeral-storage", "storage", "pods", SHARES})
_ORDINARY_PREFIXES = ("hugepages-", "attachable-volumes-", "requests.")


def quantity(text: str) -> Fraction:
    """Read a Kubernetes quantity exactly, or raise a `TresError`."""
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise TresError("bad_quantity", f"{text!r} is no Kubernetes quantity such as 500m or 1Gi")
    digits, exponent, suffix = match.groups()
    number = Fraction(Decimal(digits))
    if exponent:
        return number * Fraction(f"1e{exponent}")
    if suffix and suffix.endswith("i"):
        return number * (1 << (10 * (_BINARY.index(suffix[0]) + 1)))
    return number * Fraction(f"1e{3 * _THOUSANDS[suffix or '']}")


def pod_allocation(resources: Mapping[str, str], kind: str, rules: GresRules, *, whole_cards: bool) -> Allocation:
    """Return what a pod holds; its `cpus` are thousandths. A resource that is neither a card nor ignored is refused."""
    amounts = {name: quantity(str(text)) for name, text in resources.items()}
    cards: dict[str, int] = {}
    for name, amount in amounts.items():
        gres = card_gres(name, rules)
        if not gres:
            _check_known(name, rules)
        elif amount:
            model = model_of(kind, gres, rules) if rules.cards[gres].model == UNKNOWN_MODEL else rules.cards[gres].model
            cards[model] = cards.get(model, 0) + thousandths(_decimal(amount), gres, rules)
    if SHARES in amounts and cards and not whole_cards:
        cards = _shared(cards, amounts[SHARES])
    return Allocation(
        cpus=_rounded_up(amounts.get("cpu", Fraction(0)) * 1000),
        nodes=1,
        memory_bytes=_rounded_up(amounts.get("memory", Fraction(0))),
        cards=";".join(f"{model}:{count}" for model, count in sorted(cards.items())),
    )


def _shared(cards: dict[str, int], shares: Fraction) -> dict[str, int]:
    (model, whole), *others = cards.items()
    if others or shares.denominator != 1 or not 0 < shares <= whole:
        raise TresError("bad_cards", f"{shares} thousandths of {cards} cannot be a pod's part of its cards")
    return {model: int(shares)}


def _check_known(name: str, rules: GresRules) -> None:
    bare = name.rpartition("/")[2]
    if name in _ORDINARY or name.startswith(_ORDINARY_PREFIXES) or {name, bare} & rules.ignored:
        return
    raise TresError(
        "unknown_gres",
        f"resource {name!r} is neither a card nor ignored on this cluster: add it to its cards or ignored_gres",
    )


def _decimal(amount: Fraction) -> Decimal:
    if amount.denominator != 1:
        raise TresError("bad_quantity", f"{amount} is no whole number of cards")
    return Decimal(amount.numerator)


def _rounded_up(amount: Fraction) -> int:
    return -(-amount.numerator // amount.denominator)
