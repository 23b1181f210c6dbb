"""What is told of a pod besides its own state: that it is gone, when it was last seen, which cards its node has.

An item of a dump is a pod, or an event as a watch tells it (`{"type": "DELETED", "object": …}`). Whoever watches for
long adds what an event does not say: `lastSeen` and `goneBy`, between which a pod went, `timesGone`, how often it was
taken for gone before, and `cardModel`, of its node.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

GONE = "DELETED"
EVENT_TYPES = ("ADDED", "MODIFIED", GONE)


class Told(NamedTuple):
    """A pod, and what is told of it besides."""

    pod: Mapping[str, Any]
    gone: bool = False
    last_seen: int | None = None
    gone_by: int | None = None
    times_gone: int = 0
    model: str = ""


def told_of(item: Mapping[str, Any]) -> Told:
    """Take an item of a dump apart; raise a ValueError or the like where it is no pod and no event of one."""
    if "object" not in item:
        return Told(item)
    if item.get("type") not in EVENT_TYPES or not isinstance(item["object"], dict):
        raise ValueError(f"an event of type {item.get('type')!r} tells nothing of a pod")
    return Told(
        item["object"],
        item["type"] == GONE,
        _instant(item.get("lastSeen")),
        _instant(item.get("goneBy")),
        int(item.get("timesGone", 0)),
        str(item.get("cardModel", "")),
    )


def second_of(text: str) -> int:
    """Read an instant as Kubernetes writes it, in whole seconds of UTC."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text} names no zone")
    return int(instant.timestamp())


def gone_at(told: Told, *, last_told: int | None) -> tuple[int | None, str]:
    """Return when a pod that is gone ended, and how that is known: its containers' ends are asked for before.

    It was there when it was last seen, and held its cards at most until it was found gone. Between the two lies the
    end of the grace that it was deleted with; where it states none it is taken to have ended when it was last seen.
    """
    seen = told.last_seen if told.last_seen is not None else last_told
    deleted = told.pod["metadata"].get("deletionTimestamp")
    if not deleted:
        return seen, "last_seen"
    end = second_of(str(deleted))
    if told.gone_by is not None and end > told.gone_by:
        return told.gone_by, "found_gone"
    if seen is not None and end < seen:
        return seen, "last_seen"
    return end, "deletion_timestamp"


def _instant(text: object) -> int | None:
    return None if text is None else second_of(str(text))
