"""What PBS gave to a job: hosts, CPUs, memory and cards from the fields of its accounting record.

`exec_vnode` and `exec_host` say what was allocated. Cards stand in up to seven places; what they say must agree.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction

from metering.collectors.held import agreed, card_gres, cards_text, model_of, thousandths
from metering.collectors.tres import Allocation, GresRules, TresError

# The texts that `read_held` takes, in this order.
TEXTS = ("exec_vnode", "exec_host", "exec_gpus", "nodes", "neednodes", "nodect", "select", "requested", "memory")
# How a chunk or a host of a request names the model of its cards.
_KINDS = frozenset({"gpu_type", "gpu_model", "gputype", "accelerator_model"})
_SLOTS = re.compile(r"(?:([0-9]{1,6})(?:-([0-9]{1,6}))?|[0-9]{1,6}\*([0-9]{1,6}))", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,18})([kmgtp]?)([bw]?)", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,3})?", re.ASCII)
_VNODE_NUMBER = re.compile(r"\[[0-9]+\]$")
_WORD_BYTES = 8

Chunk = tuple[str, dict[str, str]]


def read_held(texts: Sequence[str], rules: GresRules) -> Allocation:
    """Read what a record says that its job held, or raise a `TresError` that says what stands in the way."""
    said = dict(zip(TEXTS, texts, strict=True))
    vnodes = list(_chunks(said["exec_vnode"].replace("(", "").replace(")", "")))
    hosts = _hosts(said["exec_host"])
    given = sum(_whole(resources["ncpus"]) for _, resources in vnodes if "ncpus" in resources)
    memory = sum(size_bytes(resources["mem"]) for _, resources in vnodes if "mem" in resources)
    names = set(hosts) or {_VNODE_NUMBER.sub("", name) for name, _ in vnodes}
    requested = dict(entry.split("=", 1) for entry in said["requested"].split())
    return Allocation(
        cpus=given or sum(hosts.values()) or _requested_cpus(said, requested),
        nodes=len(names) or sum(_times(name) for name, _ in _chunks(said["nodes"])) or None,
        memory_bytes=memory or (size_bytes(said["memory"]) if said["memory"] else 0),
        cards=cards_text(_cards(said, vnodes, requested, rules)),
    )


def size_bytes(text: str) -> int:
    """Read an amount of memory such as `190000128kb` or `2gw` as bytes."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise TresError("bad_memory", f"{text!r} is no amount of memory such as 15240kb")
    power = " kmgtp".index((match[2] or " ").lower())
    return (int(match[1]) * (_WORD_BYTES if match[3].lower() == "w" else 1)) << (10 * power)


def _hosts(exec_host: str) -> Counter[str]:
    """Count the CPUs on each host: `n1/0+n1/1`, `n1/0-1,5,11` and `n1/0*8` are 2, 4 and 8 on n1."""
    cpus: Counter[str] = Counter()
    for part in filter(None, exec_host.split("+")):
        host, slash, slots = part.rpartition("/")
        if not slash or not host:
            raise TresError("bad_exec_host", f"exec_host entry {part!r} is not of the form host/slots")
        cpus[host] += sum(_slots(entry, part) for entry in slots.split(","))
    return cpus


def _slots(entry: str, part: str) -> int:
    match = _SLOTS.fullmatch(entry)
    if not match:
        raise TresError("bad_exec_host", f"exec_host entry {part!r} has slots that cannot be read")
    first, last, count = match.groups()
    if count is not None:
        return int(count)
    slots = int(last) - int(first) + 1 if last else 1
    if slots < 1:
        raise TresError("bad_exec_host", f"exec_host entry {part!r} counts backwards")
    return slots


def _requested_cpus(said: dict[str, str], requested: dict[str, str]) -> int | None:
    """Return the CPUs of a job whose record names no host: PBS gives what was asked for, or nothing."""
    chunks = list(_chunks(said["nodes"]))
    asked = sum(_times(name) * _whole(words.get("ppn", "1")) for name, words in chunks)
    if asked:
        return asked
    return _whole(requested["ncpus"]) if "ncpus" in requested else None


def _chunks(text: str) -> Iterator[Chunk]:
    """Take `2:ppn=8:gpus=1:k80+n7:ppn=4#excl` apart: what comes first in each part, and what it says."""
    for part in filter(None, text.partition("#")[0].split("+")):
        name, *words = part.split(":")
        said: dict[str, str] = {}
        for word in words:
            key, equals, value = word.partition("=")
            # `gpu=4:…:gpu` asks for four cards on a node with the property gpu.
            if equals or key not in said:
                said[key] = value
        yield name, said


def _times(name: str) -> int:
    """Return how many nodes or chunks a part of a request stands for: a number, or one by name."""
    return int(name) if name.isascii() and name.isdecimal() else 1


def _cards(said: dict[str, str], vnodes: list[Chunk], requested: dict[str, str], rules: GresRules) -> Counter[str]:
    statements = {
        "exec_vnode": _of_chunks([("1", resources) for _, resources in vnodes], rules),
        "exec_gpus": _of_devices(said["exec_gpus"], rules),
    }
    for name in ("nodes", "neednodes", "nodect", "select"):
        statements[f"Resource_List.{name}"] = _of_chunks(list(_chunks(said[name])), rules)
    for name, amount in requested.items():
        if gres := card_gres(name, rules):
            statements[f"Resource_List.{name}"] = Counter({model_of("", gres, rules): _amount(amount, gres, rules)})
    return agreed(statements)


def _of_chunks(chunks: list[Chunk], rules: GresRules) -> Counter[str]:
    models: Counter[str] = Counter()
    for name, words in chunks:
        kind = _kind(words, rules)
        for word, amount in words.items():
            gres = card_gres(word, rules)
            # A bare word such as `gpu` is a property that the node must have, not a card.
            if gres and amount:
                models[model_of(kind, gres, rules)] += _times(name) * _amount(amount, gres, rules)
    return models


def _kind(words: dict[str, str], rules: GresRules) -> str:
    stated = [words[key] for key in words if key.lower() in _KINDS and words[key]]
    properties = [key for key, value in words.items() if not value and key.lower() in rules.models]
    return next(iter([*stated, *properties]), "")


def _of_devices(exec_gpus: str, rules: GresRules) -> Counter[str]:
    """Count Torque's `n1-gpu/0+n1-gpu/1`."""
    devices = sum(_hosts(exec_gpus).values())
    if not devices:
        return Counter()
    if "gpu" not in rules.cards:
        raise TresError("unknown_gres", "exec_gpus names cards, but gpu is none on this cluster: add it to its cards")
    return Counter({model_of("", "gpu", rules): thousandths(Decimal(devices), "gpu", rules)})


def _amount(text: str, gres: str, rules: GresRules) -> int:
    if not _NUMBER.fullmatch(text):
        raise TresError("bad_cards", f"{gres}={text} is no number of cards")
    return thousandths(Decimal(text), gres, rules)


def _whole(text: str) -> int:
    if not _NUMBER.fullmatch(text) or Fraction(text).denominator != 1:
        raise TresError("bad_cpus", f"{text!r} is no number of CPUs")
    return int(Fraction(text))
