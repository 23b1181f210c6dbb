"""The operator's words about an event: amend, retract, revert, backfill. Each is one more row of it, for ever.

A word counts before whatever the source says, earlier or later, until it is reverted. So a word states the whole event
as it shall count: an amendment is the counting row with other values, a retraction holds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args

import orjson
import polars as pl

from metering.collectors.common import LONGEST_SECONDS, MOST_HELD, MOST_MEMORY
from metering.events import CARD_DENOMINATOR, EVENT_SCHEMA, USAGE_FACTS
from metering.identity import AMENDED, REVERTED, STRUCK, mark

Kind = Literal["amend", "retract", "revert", "backfill"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RETRACTED = "RETRACTED"
MAX_REASON = 500
MAX_NAME_BYTES = 256
MAX_COUNTER = 2**53 - 1

_NOTHING: Mapping[str, object] = {
    **dict.fromkeys(("cpus", "nodes", "memory_bytes", "suspended_seconds"), 0),
    **dict.fromkeys(("cards", "counters"), ""),
}
_MOST = {"cpus": MOST_HELD, "nodes": MOST_HELD, "memory_bytes": MOST_MEMORY, "suspended_seconds": LONGEST_SECONDS}
_NAMES = ("state", "account", "user", "partition", "qos")
FIELDS = ("end", *_NAMES, *_MOST, "cards", "counters")
_FIXED = {
    "start": "an event never changes its start; retract it, and backfill it with the right one under an id of its own",
    "cluster": "an event stays with its cluster; retract it, and backfill it under the other one",
    **dict.fromkeys(("source", "id", "revision"), "that is the event's identity"),
}
_NAMED = re.compile(r"([^;:,=]+):([0-9]{1,16}(?:\.[0-9]{1,3})?)")


class AmendmentRefusedError(ValueError):
    """A word about an event that cannot be taken as it is; the message says why and what to do."""


class UnknownEventError(LookupError):
    """Nothing is recorded under this source and id."""

    def __init__(self, source: str, event_id: str) -> None:
        super().__init__(
            f"no event {event_id!r} of {source!r} is recorded; ids are shown by hourbook invoice explain, and usage "
            "that no log holds is brought in by hourbook event backfill"
        )


@dataclass(frozen=True)
class Word:
    """What a person says about an event, and why."""

    kind: Kind
    reason: str
    by: str
    changes: Mapping[str, str | int] | None = None  # amend: field -> value, as FIELDS names them

    def __post_init__(self) -> None:
        for what, text in (("the reason", self.reason), ("the author", self.by)):
            if not text.strip() or not text.isprintable() or len(text) > MAX_REASON:
                raise AmendmentRefusedError(f"{what} must say something, in one line of up to {MAX_REASON} characters")


def is_word() -> pl.Expr:
    """Tell which rows of the lake are the operator's words."""
    return pl.col("revision").is_between(AMENDED, STRUCK, closed="left")


def next_revision(rows: pl.DataFrame) -> int:
    """Return the revision of the next word about an event, of which these are all rows."""
    latest = rows.filter(is_word())["revision"].max()
    return (latest if isinstance(latest, int) else AMENDED) + 1


def word_number(revision: int) -> int:
    """Return which word about an event a revision is, from 1; 0 for what its source says."""
    return revision - AMENDED if AMENDED < revision < STRUCK else 0


def spoken(rows: pl.DataFrame, word: Word, now: datetime) -> pl.DataFrame:
    """Return the word as one more row of an event, of which `rows` are all that the lake holds, or refuse it."""
    statuses = mark(rows)
    counting = statuses.filter(pl.col("status") == "kept")
    row = (counting if counting.height else statuses).row(-1, named=True)
    if word.kind == "revert":
        changed = _reverted(statuses)
    elif counting.is_empty():
        raise AmendmentRefusedError(f"nothing of event {row['id']} counts, so there is nothing to {word.kind}")
    elif word.kind == "retract":
        changed = _retracted(row)
    else:
        changed = _amended(row, word, now)
    said = {name: row[name] for name in EVENT_SCHEMA} | changed
    said |= {"revision": next_revision(rows), "revision_derived": False, "evidence": _evidence(word, row)}
    return pl.DataFrame([said], schema=EVENT_SCHEMA, orient="row")


def _reverted(statuses: pl.DataFrame) -> dict[str, object]:
    if statuses.filter(is_word() & (pl.col("status") != "reverted")).is_empty():
        raise AmendmentRefusedError("the operator has said nothing about this event that still holds")
    return {**_NOTHING, "state": REVERTED, "ended": True}


def _retracted(row: Mapping[str, Any]) -> dict[str, object]:
    if all(row[name] == nothing for name, nothing in _NOTHING.items()):
        raise AmendmentRefusedError(f"event {row['id']} holds nothing already; hourbook event revert takes that back")
    return {**_NOTHING, "state": RETRACTED, "ended": True}


def _amended(row: Mapping[str, Any], word: Word, now: datetime) -> dict[str, object]:
    changes = read_changes(word.changes or {})
    after = {**row, **changes}
    _check_times(after, now)
    if not after["ended"]:
        raise AmendmentRefusedError(
            f"event {row['id']} still runs, and an amendment would hold it where it is: say end=… too, or wait"
        )
    if all(after[fact] == row[fact] for fact in USAGE_FACTS):
        raise AmendmentRefusedError(f"this changes nothing: event {row['id']} is recorded so already")
    if after["state"] in {REVERTED, RETRACTED}:
        raise AmendmentRefusedError(f"{after['state']} is no state of a job; say hourbook event retract, or revert")
    return changes


def _check_times(after: Mapping[str, Any], now: datetime) -> None:
    start, end = after["start_second"], after["end_second"]
    if end < start:
        raise AmendmentRefusedError("it would end before it starts")
    if end > now.timestamp():
        raise AmendmentRefusedError("it would end in the future; state an end that has come")
    if end - start > LONGEST_SECONDS:
        raise AmendmentRefusedError(f"it would last longer than {LONGEST_SECONDS} seconds: no attempt can")
    if after["suspended_seconds"] > end - start:
        raise AmendmentRefusedError("it would have been suspended for longer than it lasted")


def read_changes(changes: Mapping[str, str | int]) -> dict[str, object]:
    """Read what is to be set, as `{"cpus": 64, "end": "2026-11-22T04:00:00+08:00"}`, as columns of an event."""
    if not changes:
        raise AmendmentRefusedError(f"say what is to be set: {', '.join(FIELDS)}")
    read: dict[str, object] = {}
    for name, value in changes.items():
        if name not in FIELDS:
            raise AmendmentRefusedError(f"{name} cannot be set: {_FIXED.get(name, 'known are ' + ', '.join(FIELDS))}")
        if name == "end":
            read |= {"end_second": _second(str(value)), "ended": True}
        elif name in _MOST:
            read[name] = _number(name, str(value))
        elif name in _NAMES:
            read[name] = _name(name, str(value))
        else:
            read[name] = _amounts(name, str(value))
    return read


def _second(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None or instant.microsecond:
        raise AmendmentRefusedError(
            f"end {text!r} is no instant in whole seconds; write it as 2026-11-22T04:00:00+08:00"
        )
    return int(instant.timestamp())


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,16}", text, re.ASCII) or int(text) > _MOST[name]:
        raise AmendmentRefusedError(f"{name} {text!r} is no whole number from 0 to {_MOST[name]}")
    return int(text)


def _name(name: str, text: str) -> str:
    if len(text.encode()) > MAX_NAME_BYTES or not text.isprintable() or (not text and name in {"state", "partition"}):
        raise AmendmentRefusedError(f"{name} {text[:40]!r} is empty, too long or not printable")
    return text.upper() if name == "state" else text


def _amounts(name: str, text: str) -> str:
    """Read `a100:2,v100:0.5` (cards) or `storage_byte_seconds:123` (counters); an empty text is none."""
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        match = _NAMED.fullmatch(part.strip())
        if match is None or match[1] in found or not match[1].isprintable():
            raise AmendmentRefusedError(f"{name} {text!r} cannot be read; write it as {_EXAMPLES[name]}")
        found[match[1]] = _amount(name, match[2])
    return ";".join(f"{model}:{amount}" for model, amount in sorted(found.items()) if amount)


_EXAMPLES = {"cards": "a100:2,v100:0.5", "counters": "storage_byte_seconds:1200"}


def _amount(name: str, text: str) -> int:
    try:
        exact = Decimal(text) * (CARD_DENOMINATOR if name == "cards" else 1)
    except InvalidOperation as error:
        raise AmendmentRefusedError(f"{name}: {text!r} is no number") from error
    if exact != int(exact) or exact > (MOST_HELD * CARD_DENOMINATOR if name == "cards" else MAX_COUNTER):
        raise AmendmentRefusedError(f"{name}: {text} is too large, or no whole number")
    return int(exact)


def _evidence(word: Word, row: Mapping[str, Any]) -> str:
    """Say who spoke and why, and about which row; what the source said besides stays with its own rows."""
    said: dict[str, object] = {"word": word.kind, "reason": word.reason, "by": word.by, "of": row["recorded_seq"]}
    if word.changes:
        said["set"] = dict(word.changes)
    return orjson.dumps(said).decode()


def backfilled(events: pl.DataFrame, known: pl.DataFrame, word: Word) -> pl.DataFrame:
    """Return usage that no log holds as the operator's first word about each event, or refuse what is known already.

    `known` is what the lake holds under these keys.
    """
    _refuse_repeated(events)
    rows = events.join(_words_before(known), on=["source", "id"], how="left", maintain_order="left")
    _refuse_known(known)
    others = rows.filter(pl.col("known_start").is_not_null() & (pl.col("known_start") != pl.col("start_second")))
    if others.height:
        raise AmendmentRefusedError(
            f"event {others['id'][0]} was recorded with another start; give it an id of its own"
        )
    moved = rows.filter(pl.col("known_cluster").is_not_null() & (pl.col("known_cluster") != pl.col("cluster")))
    if moved.height:
        raise AmendmentRefusedError(
            f"event {moved['id'][0]} was recorded as of cluster {moved['known_cluster'][0]}; give it an id of its own"
        )
    said = {"word": word.kind, "reason": word.reason, "by": word.by}
    evidence = [orjson.dumps({**orjson.loads(text or "{}"), **said}).decode() for text in rows["evidence"]]
    return rows.with_columns(
        revision=pl.col("latest").fill_null(AMENDED) + 1,
        revision_derived=pl.lit(value=False),
        evidence=pl.Series(evidence, dtype=pl.String),
    ).select(list(EVENT_SCHEMA))


def _words_before(known: pl.DataFrame) -> pl.DataFrame:
    words = known.filter(is_word())
    return words.group_by("source", "id").agg(
        latest=pl.col("revision").max(),
        known_start=pl.col("start_second").first(),
        known_cluster=pl.col("cluster").first(),
    )


def _refuse_repeated(events: pl.DataFrame) -> None:
    repeated = events.filter(events.select("source", "id").is_duplicated())
    if repeated.height:
        raise AmendmentRefusedError(f"event {repeated['id'][0]} of {repeated['source'][0]} stands there twice")
    running = events.filter(~pl.col("ended"))
    if running.height:
        raise AmendmentRefusedError(f"event {running['id'][0]} has no end; only what is over can be backfilled")


def _refuse_known(known: pl.DataFrame) -> None:
    """Refuse events that a source, or a word that still holds, has told of: those are amended."""
    told = mark(known).filter(~is_word() | (pl.col("status") == "kept"))
    if told.height:
        names = _listed(told["id"].unique(maintain_order=True).to_list())
        raise AmendmentRefusedError(f"recorded already: {names}; hourbook event amend says what is wrong with them")


def _listed(names: Iterable[str], most: int = 3) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
