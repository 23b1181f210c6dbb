"""What a home holds after all that was done to it, by plain sums, compared with what was sent and acknowledged."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import polars as pl
from sqlalchemy import text

from hourbook.database import read_session
from hourbook.lake_check import OtherLakeError
from hourbook.refreshing import plan_now, refresh
from hourbook.rollups import Window, read_rollup
from hourbook.settings import Home
from metering.lake import EventLake

from .load import Said

FIRST, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
SECONDS = 3600


def lost_and_doubled(home: Home, said: Said) -> list[str]:
    """Name what was acknowledged and is not there, and what is there more than once, of usage."""
    try:
        refresh(home)
    except OtherLakeError as error:
        return [f"the inbox has handed over more than the lake holds: {error}"]
    rows = EventLake(home.lake).scan().select("id", "revision", "recorded_seq", "cpus").collect()
    wrong = []
    held = {(name, revision) for name, revision in rows.select("id", "revision").iter_rows()}
    if lost := said.acknowledged.keys() - held:
        wrong.append(f"{len(lost)} acknowledged events are lost, as {sorted(lost)[:3]}")
    if strange := {name for name, _ in held} - said.sent.keys():
        wrong.append(f"{len(strange)} events are there that nobody sent")
    numbers = rows["recorded_seq"]
    if numbers.n_unique() != numbers.len():
        wrong.append(f"{numbers.len() - numbers.n_unique()} recorded rows are in the lake twice")
    if numbers.len() and numbers.max() != numbers.n_unique():
        wrong.append(f"the lake holds {numbers.n_unique()} numbers up to {numbers.max()!r}: it has gaps")
    return wrong + _miscounted(home, rows)


def _miscounted(home: Home, rows: pl.DataFrame) -> list[str]:
    """Compare the rollup with a plain sum in Python over each event's latest revision."""
    latest: dict[str, tuple[int, int]] = {}
    for name, revision, cpus in rows.select("id", "revision", "cpus").iter_rows():
        latest[name] = max(latest.get(name, (0, 0)), (revision, cpus))
    wanted = Counter({"cpu": SECONDS * sum(cpus for _, cpus in latest.values()), "wall": SECONDS * len(latest)})
    with read_session(home.engine) as session:
        rollup = read_rollup(session, EventLake(home.lake), plan_now(session), Window(FIRST, END))
    counted = dict(rollup.group_by("resource").agg(pl.col("quantity").sum()).iter_rows())
    return [
        f"{resource} was counted as {counted.get(resource, 0)}, not {seconds}"
        for resource, seconds in wanted.items()
        if counted.get(resource, 0) != seconds
    ]


def payments_astray(home: Home, said: Said, taken: list[tuple[str, int, str]]) -> list[str]:
    """Name payments that were acknowledged and not credited, credited twice or with another amount."""
    query = text(
        "SELECT t.business_key, sum(p.amount_minor) "
        "FROM ledger_transaction t JOIN posting p ON p.sequence = t.sequence "
        "WHERE t.kind = 'receipt' AND p.side = 'debit' GROUP BY t.sequence, t.business_key"
    )
    with read_session(home.engine) as session:
        posted = [(key.rpartition(":")[2], int(minor)) for key, minor in session.connection().execute(query)]
    credited = Counter(name for name, _ in posted)
    amounts = dict(posted)
    truth = {payment: minor for payment, minor, _ in taken} | said.receipts
    wrong = [f"{name} was credited {times} times" for name, times in credited.items() if times > 1]
    wrong += [f"{name} was acknowledged and is lost" for name in (said.paid | said.received) - amounts.keys()]
    wrong += [f"{name} was never paid" for name in amounts.keys() - truth.keys()]
    return wrong + [
        f"{name} was credited as {amounts[name]}, not {truth[name]}"
        for name in amounts.keys() & truth.keys()
        if amounts[name] != truth[name]
    ]
