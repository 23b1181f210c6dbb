"""What Slurm allocated to a job: the AllocTRES text, read as CPUs, nodes, memory and cards.

`billing=37,cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=8000M,node=1` names the same two cards twice: the total counts, the
types only say which cards they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

from metering.clusters import CardGres, Cluster
from metering.events import CARD_DENOMINATOR

# Generic resources that measure what a card did; they allocate nothing.
USAGE_METRICS = frozenset({"gpumem", "gpuutil"})

_MEMORY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([KMGTPE]?)", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,3})?", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,12}", re.ASCII)
_MODEL = re.compile(r"[a-z0-9][a-z0-9._+@-]*", re.ASCII)
# Commas inside brackets list the sockets or indices of one entry: gpu:a100:2(IDX:0,3).
_ENTRY_BORDER = re.compile(r",(?![^(]*\))")
_DETAIL = re.compile(r"\([^)]*\)$")
_UNITS = {unit: 1024**power for power, unit in enumerate("KMGTPE", start=1)}


class TresError(ValueError):
    """An allocation that cannot be read, with the code under which its row is quarantined."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Allocation:
    """What one attempt held; None where the text does not say."""

    cpus: int | None = None
    nodes: int | None = None
    memory_bytes: int | None = None
    cards: str = ""  # "a100:2000;v100:1000", thousandths by model


@dataclass(frozen=True)
class GresRules:
    """Which generic resources are cards on a day, what their types are called and which are of no interest."""

    cards: Mapping[str, CardGres]
    models: Mapping[str, str]
    ignored: frozenset[str]


def gres_rules(cluster: Cluster, day: date) -> GresRules:
    """Return the cluster's card rules in force on a day."""
    in_force = sorted((c for c in cluster.cards if c.effective_from <= day), key=lambda card: card.effective_from)
    return GresRules(
        cards={card.gres: card for card in in_force},
        models={name.lower(): model for name, model in cluster.card_models.items()},
        ignored=frozenset(cluster.ignored_gres) | USAGE_METRICS,
    )


def read_alloc_tres(text: str, rules: GresRules) -> Allocation:
    """Read one AllocTRES text, or raise a `TresError` that says which entry stands in the way."""
    amounts: dict[str, str] = {}
    gres: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    for entry in _entries(text):
        key, value = _key_and_value(entry, rules)
        if key in seen:
            raise TresError("bad_tres", f"AllocTRES names {key} twice: {text}")
        seen.add(key)
        if key.startswith("gres/"):
            name, _, kind = key.removeprefix("gres/").partition(":")
            _add_gres(gres, name, kind.lower(), value, rules)
        else:
            amounts[key] = value
    return Allocation(
        cpus=_whole(amounts, "cpu"),
        nodes=_whole(amounts, "node"),
        memory_bytes=memory_bytes(amounts["mem"]) if "mem" in amounts else None,
        cards=_cards_text(gres, rules),
    )


def memory_bytes(text: str) -> int:
    """Read an amount of memory such as `8000M` or `62.50G` as bytes; a bare number is megabytes, as Slurm counts."""
    match = _MEMORY.fullmatch(text)
    if not match:
        raise TresError("bad_tres", f"mem={text} is not an amount of memory such as 8000M or 62.50G")
    return int(Fraction(Decimal(match[1])) * _UNITS[match[2] or "M"])


def _entries(text: str) -> Iterator[str]:
    return (entry for entry in _ENTRY_BORDER.split(text) if entry)


def _key_and_value(entry: str, rules: GresRules) -> tuple[str, str]:
    """Bring `gres/gpu:a100=2`, `dcu:4` and `dcu:K100-PCIE-64GB-LS:2` to one form: `gres/<name>[:<type>]`, a count."""
    key, equals, value = entry.partition("=")
    if equals:
        return (f"gres/{key}" if key.partition(":")[0] in rules.cards else key), value
    key, colon, value = _DETAIL.sub("", entry).rpartition(":")
    if not colon or not key:
        raise TresError("bad_tres", f"AllocTRES entry {entry!r} has no amount")
    return f"gres/{key.removeprefix('gres/').removeprefix('gres:')}", value


def _add_gres(gres: Counter[tuple[str, str]], name: str, kind: str, value: str, rules: GresRules) -> None:
    # The name must match exactly: gpumem and gpuutil begin with gpu and are no cards.
    if name in rules.ignored and name not in rules.cards:
        return
    if not _COUNT.fullmatch(value):
        raise TresError("bad_tres", f"gres/{name}={value} is not a number of units")
    count = Decimal(value)
    if count == 0:
        return  # a gres that is not consumed prints 0
    if name not in rules.cards:
        raise TresError(
            "unknown_gres",
            f"gres {name!r} is neither a card nor ignored on this cluster: add it to its cards or ignored_gres",
        )
    gres[name, kind] += _thousandths(count, rules.cards[name])


def _thousandths(count: Decimal, card: CardGres) -> int:
    thousandths = Fraction(count) * card.thousandths
    if thousandths.denominator != 1:
        raise TresError("bad_tres", f"{count} × gres {card.gres!r} is no whole number of 1/{CARD_DENOMINATOR} card")
    return int(thousandths)


def _cards_text(gres: Counter[tuple[str, str]], rules: GresRules) -> str:
    models: Counter[str] = Counter()
    for name in {name for name, _ in gres}:
        for model, thousandths in _models_of(name, gres, rules):
            models[model] += thousandths
    return ";".join(f"{model}:{thousandths}" for model, thousandths in sorted(models.items()))


def _models_of(name: str, gres: Counter[tuple[str, str]], rules: GresRules) -> Iterator[tuple[str, int]]:
    """Yield the cards of one gres by model; cards beyond the typed ones are the gres's own model."""
    typed = {kind: count for (gres_name, kind), count in gres.items() if gres_name == name and kind}
    total = gres[name, ""] or sum(typed.values())
    rest = total - sum(typed.values())
    if rest < 0:
        raise TresError("cards_contradict", f"AllocTRES types more {name} ({sum(typed.values())}) than its {total}")
    for kind, count in typed.items():
        model = rules.models.get(kind, kind)
        if not _MODEL.fullmatch(model):
            raise TresError("bad_tres", f"card type {kind!r} of gres {name!r} cannot be a model's name")
        yield model, count
    if rest:
        yield rules.cards[name].model, rest


def _whole(amounts: Mapping[str, str], key: str) -> int | None:
    if key not in amounts:
        return None
    if not _WHOLE.fullmatch(amounts[key]):
        raise TresError("bad_tres", f"{key}={amounts[key]} is not a whole number")
    return int(amounts[key])
