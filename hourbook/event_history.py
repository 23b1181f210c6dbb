"""One event from end to end: every row recorded of it, what became of each, and what it was billed as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import orjson
import polars as pl
from sqlmodel import Session, col, select

from hourbook import facts
from hourbook.event_bills import BilledShare, billed_shares
from hourbook.keys import Caller
from hourbook.settings import Home
from metering import store as metering
from metering.amendments import UnknownEventError, is_word, word_number
from metering.identity import KEY, STRUCK, key_hash, mark
from metering.lake import EventLake
from pricing.catalog import Catalog
from pricing.matching import with_owner

USAGE = (
    *("cluster", "partition", "qos", "account", "user", "job", "state", "ended", "suspended_seconds"),
    *("cpus", "nodes", "memory_bytes", "cards", "counters"),
)


# What became of a row that would count, had the operator not said a word about the event.
HELD = "held_by_word"


@dataclass(frozen=True)
class Revision:
    """One row of an event: what was said, by whom, and whether it counts."""

    revision: int
    word: int  # the operator's n-th word about the event; 0 for what its source says
    status: str  # one of metering.identity.STATUSES, or HELD
    usage: Mapping[str, Any]
    start: datetime
    end: datetime
    recorded_seq: int
    origin: str  # the file or request that it came with
    received_at: datetime | None
    evidence: Mapping[str, Any]
    customer: str  # whose usage it is, as mappings stand now; "" for nobody's

    @property
    def name(self) -> str:
        """The revision as a reader calls it."""
        if self.revision >= STRUCK:
            return "struck"
        return f"word {self.word}" if self.word else str(self.revision)


@dataclass(frozen=True)
class EventHistory:
    """An event with all its rows, what of it stands in quarantine, and what it was billed as."""

    source: str
    id: str
    cluster: str
    revisions: tuple[Revision, ...]
    quarantined: tuple[Mapping[str, str], ...]
    billed: tuple[BilledShare, ...]

    def seen_by(self, caller: Caller) -> EventHistory | None:
        """Return the part that a caller may see; None where there is none."""
        if caller.role in {"finance", "operator"}:
            return self
        if caller.role == "collector":
            return self._reported_by(caller)
        own = tuple(_for_customer(one) for one in self.revisions if one.customer == caller.customer)
        billed = tuple(one for one in self.billed if one.customer == caller.customer)
        return EventHistory(self.source, self.id, self.cluster, own, (), billed) if own or billed else None

    def _reported_by(self, caller: Caller) -> EventHistory | None:
        """Return the rows of a collector's clusters; what stands in quarantine is for the event's own cluster."""
        own = tuple(one for one in self.revisions if caller.may_report(one.usage["cluster"]))
        quarantined = self.quarantined if caller.may_report(self.cluster) else ()
        cluster = own[0].usage["cluster"] if own else self.cluster
        return EventHistory(self.source, self.id, cluster, own, quarantined, ()) if own or quarantined else None


# What a source says besides is the operator's: where a job ran, who spoke. The reason of a word is the customer's too.
_TOLD_CUSTOMERS = ("word", "reason", "set", "time_limit_seconds", "runaway", "job_name")


def _for_customer(one: Revision) -> Revision:
    evidence = {name: value for name, value in one.evidence.items() if name in _TOLD_CUSTOMERS}
    return Revision(**{**vars(one), "evidence": evidence, "origin": ""})


def event_rows(home: Home, source: str, event_id: str, start_date: date | None = None) -> pl.DataFrame:
    """Return every row that the lake holds of an event, oldest first; with a date, those that start on it in UTC."""
    dates = None if start_date is None else [start_date.isoformat()]
    return rows_of(home, pl.DataFrame({"source": [source], "id": [event_id]}), dates)


def rows_of(home: Home, keys: pl.DataFrame, dates: Sequence[str] | None = None) -> pl.DataFrame:
    """Return every row that the lake holds under these sources and ids, oldest first; without dates all are read."""
    hashes = key_hash(keys).unique().implode()
    rows = EventLake(home.lake).scan(dates).filter(pl.col("key_hash").is_in(hashes)).collect()
    return rows.join(keys.select(KEY).unique(), on=list(KEY), how="semi").sort("recorded_seq")


def event_history(
    home: Home,
    session: Session,
    source: str,
    event_id: str,
    *,
    billed: bool = True,
    start_date: date | None = None,
) -> EventHistory:
    """Follow one event, or refuse where nothing is known of it; who knows its date of start spares reading the lake."""
    rows = event_rows(home, source, event_id, start_date)
    quarantined = tuple(_quarantined(session, source, event_id))
    if rows.is_empty() and not quarantined:
        raise UnknownEventError(source, event_id)
    if rows.is_empty():
        return EventHistory(source, event_id, "", (), quarantined, ())
    shares = tuple(billed_shares(home, session, rows)) if billed else ()
    return EventHistory(source, event_id, rows["cluster"][0], tuple(_revisions(session, rows)), quarantined, shares)


def _revisions(session: Session, rows: pl.DataFrame) -> Iterator[Revision]:
    batches = _batches(session, rows["batch_seq"].unique().to_list())
    owners = _owners(session, rows)
    for row, owner in zip(_marked(rows).iter_rows(named=True), owners, strict=True):
        origin, received_at = batches.get(row["batch_seq"], ("", None))
        yield Revision(
            revision=row["revision"],
            word=word_number(row["revision"]),
            status=row["status"],
            usage={name: row[name] for name in USAGE},
            start=datetime.fromtimestamp(row["start_second"], UTC),
            end=datetime.fromtimestamp(row["end_second"], UTC),
            recorded_seq=row["recorded_seq"],
            origin=origin,
            received_at=received_at,
            evidence=orjson.loads(row["evidence"] or "{}"),
            customer=owner,
        )


def _marked(rows: pl.DataFrame) -> pl.DataFrame:
    """Say what became of each row; what a word alone keeps from counting is no earlier state, but held."""
    without_words = mark(rows.filter(~is_word())).filter(pl.col("status") == "kept")
    held = (pl.col("status") == "superseded") & pl.col("recorded_seq").is_in(without_words["recorded_seq"].implode())
    return mark(rows).with_columns(status=pl.when(held).then(pl.lit(HELD)).otherwise("status"))


def _batches(session: Session, numbers: Sequence[int]) -> dict[int, tuple[str, datetime]]:
    table = metering.InboxBatchRow
    wanted = select(table.batch_seq, table.origin, table.received_at).where(col(table.batch_seq).in_(numbers))
    return {number: (origin, received_at) for number, origin, received_at in session.exec(wanted)}


def _owners(session: Session, rows: pl.DataFrame) -> list[str]:
    """Return whose usage each row is, as mappings stand now."""
    start = pl.from_epoch("start_second", time_unit="s").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    placed = rows.select("cluster", "account", "user", span_start=start)
    return with_owner(placed, Catalog.from_facts(facts.as_of(session)))["customer"].fill_null("").to_list()


def _quarantined(session: Session, source: str, event_id: str) -> Iterator[dict[str, str]]:
    table = metering.QuarantineRow
    wanted = select(table).where(table.source == source, table.event_id == event_id).order_by(col(table.number))
    for entry in session.exec(wanted):
        yield {"id": entry.id, "code": entry.code, "status": entry.status, "message": entry.message}
