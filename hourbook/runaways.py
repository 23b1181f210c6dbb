"""Runaways and attempts that fell silent: what is counted of them, who is told, and what a person accepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import orjson
import polars as pl
from sqlmodel import Session, col, select

from hourbook import facts
from hourbook.database import read_session, run_write
from hourbook.settings import Home
from metering import store as metering
from metering.clusters import Cluster
from metering.identity import AMENDED, winners
from metering.lake import EventLake
from metering.runaways import RUNAWAY, cap, is_runaway, may_be_runaway

RUNAWAY_CODE = "runaway"
STALE_AFTER = timedelta(hours=24)


class RunawayError(LookupError):
    """There is no such runaway to decide about."""


@dataclass(frozen=True)
class OpenAttempt:
    """A running attempt that was capped, or of which nothing was heard for long."""

    kind: Literal["runaway", "stale"]
    source: str
    id: str
    cluster: str
    account: str
    user: str
    cpus: int
    cards: str
    start: datetime
    counted_until: datetime
    stated_until: datetime
    last_heard: datetime
    waived: str  # who accepted the cap, and why; "" where nobody did


def capped(session: Session, events: pl.DataFrame) -> pl.DataFrame:
    """Count the running attempts of a batch no longer than their time limit and their cluster's grace."""
    if not may_be_runaway(events):
        return events
    described = facts.as_of(session).get("cluster", {})
    return cap(events, {name: Cluster.model_validate(body) for name, body in described.items()})


def open_attempts(home: Home, session: Session, *, before: datetime | None = None) -> list[OpenAttempt]:
    """Return the runaways, then the attempts that fell silent, oldest first; of those that began before an instant."""
    rows = _running(EventLake(home.lake), before)
    if rows.is_empty():
        return []
    heard = _received(session, rows["batch_seq"].unique().to_list())
    accepted = {
        (row.subject, row.detail): f"{row.waived_by}: {row.reason}"
        for row in metering.waivers(session, RUNAWAY_CODE, rows["source"].unique().to_list())
    }
    silent_since = home.now() - STALE_AFTER
    found = []
    for row in rows.with_columns(runaway=is_runaway()).sort("start_second", "source", "id").iter_rows(named=True):
        last = heard[row["batch_seq"]]
        if not row["runaway"] and last > silent_since:
            continue
        said = orjson.loads(row["evidence"] or "{}").get(RUNAWAY, {})
        attempt = OpenAttempt(
            kind="runaway" if row["runaway"] else "stale",
            **{name: row[name] for name in ("source", "id", "cluster", "account", "user", "cpus", "cards")},
            start=_instant(row["start_second"]),
            counted_until=_instant(row["end_second"]),
            stated_until=_instant(said.get("stated_end_second", row["end_second"])),
            last_heard=last,
            waived=accepted.get((row["source"], row["id"]), ""),
        )
        found.append(attempt)
    return sorted(found, key=lambda one: one.kind)


def _running(lake: EventLake, before: datetime | None) -> pl.DataFrame:
    """Return the row that counts of every attempt that has not ended."""
    partitions = lake.partitions()
    if before is not None:
        partitions = partitions.filter(pl.col("start_date") <= before.astimezone(UTC).date().isoformat())
    dates = partitions["start_date"].to_list()
    found = [lake.scan([]).collect()]
    for (date,), hashes in _perhaps_running(lake.scan(dates)).partition_by("start_date", as_dict=True).items():
        rows = lake.scan([str(date)]).filter(pl.col("key_hash").is_in(hashes["key_hash"].implode())).collect()
        found.append(winners(rows).filter(~pl.col("ended")))
    rows = pl.concat(found)
    return rows if before is None else rows.filter(pl.col("start_second") < int(before.timestamp()))


def _perhaps_running(rows: pl.LazyFrame) -> pl.DataFrame:
    """Return date and hash of the keys whose source has said nothing later than that they run."""
    key = ["start_date", "key_hash", "source", "id"]
    own = rows.filter(pl.col("revision") < AMENDED)
    running = own.filter(~pl.col("ended")).group_by(key).agg(pl.col("revision").max()).collect()
    hashes = running["key_hash"].unique().implode()
    ended = own.filter(pl.col("ended") & pl.col("key_hash").is_in(hashes))
    latest = ended.group_by(key).agg(end_revision=pl.col("revision").max()).collect()
    both = running.join(latest, on=key, how="left")
    unended = both.filter(pl.col("end_revision").is_null() | (pl.col("end_revision") < pl.col("revision")))
    return unended.select("start_date", "key_hash").unique(maintain_order=True)


def _received(session: Session, numbers: Sequence[int]) -> dict[int, datetime]:
    table = metering.InboxBatchRow
    wanted = select(table.batch_seq, table.received_at).where(col(table.batch_seq).in_(numbers))
    return dict(session.exec(wanted).all())


def _instant(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def undecided(home: Home, session: Session, before: datetime) -> Iterator[OpenAttempt]:
    """Yield the runaways that reach into the time before an instant, and that nobody accepted."""
    for one in open_attempts(home, session, before=before):
        if one.kind == "runaway" and not one.waived:
            yield one


def accept_runaways(
    home: Home, chosen: tuple[str, str] | None, *, cluster: str = "", reason: str, by: str
) -> list[OpenAttempt]:
    """Accept what is counted of one runaway, or of all of a cluster; a later word of the source still replaces it."""
    with read_session(home.engine) as session:
        found = [one for one in open_attempts(home, session) if one.kind == "runaway" and not one.waived]
    mine = [one for one in found if (one.source, one.id) == chosen or (chosen is None and one.cluster == cluster)]
    if not mine:
        what = f"{chosen[1]} of {chosen[0]}" if chosen else f"cluster {cluster}"
        raise RunawayError(f"there is no undecided runaway of {what}; `hourbook runaways list` shows them")
    waivers = [metering.Waiver(RUNAWAY_CODE, one.source, one.id) for one in mine]
    run_write(
        home.engine,
        lambda session: metering.add_waivers(session, waivers, reason=reason, waived_by=by, now=home.now()),
    )
    return mine
