"""The checksum by which a sender and the lake compare what they have of an hour; Python's standard library only.

It is a sum, so that the order does not matter, over the source, id and revision of each attempt. The words of the id
are folded as `metering.identity.key_hash` does on whole columns, so that the lake checks millions of events quickly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

MASK = 2**64 - 1
STEP = 0x9E3779B97F4A7C15
MIX = 0xBF58476D1CE4E5B9


def _fold(value: int) -> int:
    return value ^ (value >> 29)


def event_sum(source: str, event_id: str, revision: int) -> int:
    """Return the number that one attempt, in one revision, adds to a checksum."""
    text = event_id.encode()
    hashed = int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "little") ^ len(text)
    for at in range(0, len(text), 8):
        word = int.from_bytes(text[at : at + 8].ljust(8, b"\0"), "little")
        hashed = _fold((hashed ^ word) * STEP & MASK)
    key = _fold(hashed * MIX & MASK)
    return _fold((key ^ revision * STEP & MASK) * MIX & MASK)


def checksum(events: Iterable[tuple[str, str, int]]) -> str:
    """Return the checksum of attempts, each as (source, id, revision), as 16 hexadecimal digits."""
    return f"{sum(event_sum(*event) for event in events) & MASK:016x}"
