"""What is stated of each hour: how many attempts ended in it, and a checksum, by which the server finds gaps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from .asking import FIELDS, HOUR, Window, duration, stamp

AT = {name: at for at, name in enumerate(FIELDS)}
LIVE = frozenset({"RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "SIGNALING", "STAGE_OUT", "STOPPED"})
ENDED = 2**40
MASK, STEP, MIX = 2**64 - 1, 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9

Attempt = tuple[str, int, int]  # id, revision, end


def is_live(cells: Sequence[str]) -> bool:
    """Tell whether an attempt goes on, so that its row changes from second to second."""
    return state_of(cells) in LIVE


def state_of(cells: Sequence[str]) -> str:
    """Return the first word of the state."""
    return (cells[AT["State"]].split() or [""])[0].upper()


def ended_attempt(cells: Sequence[str]) -> Attempt | None:
    """Return id, revision and end of an attempt that held nodes and is over; None for every other row."""
    state, nodes = state_of(cells), cells[AT["NodeList"]].strip()
    submit, began, end = (duration(cells[AT[name]]) or 0 for name in ("Submit", "Start", "End"))
    if not end or state in LIVE or state in {"REVOKED", "PENDING"} or nodes == "None assigned":
        return None
    elapsed, suspended = (duration(cells[AT[name]]) or 0 for name in ("ElapsedRaw", "Suspended"))
    if elapsed == 0 and (not began or (end <= began and not nodes)):
        return None
    return f"{cells[AT['JobIDRaw']]}:{submit}", elapsed + suspended + ENDED, end


def statements(cluster: str, window: Window, attempts: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Return what was seen to end in each whole hour of a window; that nothing did is said too."""
    source = f"slurm:{cluster}"
    hours = {hour: [0, 0] for hour in range(-(-window[0] // HOUR) * HOUR, window[1] - HOUR + 1, HOUR)}
    for event_id, (revision, end) in attempts.items():
        found = hours.get(end // HOUR * HOUR)
        if found is not None:
            found[0] += 1
            found[1] = (found[1] + event_sum(source, event_id, revision)) & MASK
    return [
        {"cluster": cluster, "source": source, "hour": f"{stamp(hour)}Z", "events": count, "checksum": f"{total:016x}"}
        for hour, (count, total) in hours.items()
    ]


def event_sum(source: str, event_id: str, revision: int) -> int:
    """Return what an attempt adds to an hour's checksum, as the server reckons it."""
    text = event_id.encode()
    hashed = int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "little") ^ len(text)
    for at in range(0, len(text), 8):
        hashed = _fold((hashed ^ int.from_bytes(text[at : at + 8].ljust(8, b"\0"), "little")) * STEP & MASK)
    key = _fold(hashed * MIX & MASK)
    return _fold((key ^ revision * STEP & MASK) * MIX & MASK)


def _fold(value: int) -> int:
    return value ^ (value >> 29)
