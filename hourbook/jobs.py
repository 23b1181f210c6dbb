"""Scheduled work. A ticker asks every few seconds what is due and not done; the database says what was done.

The ticker remembers nothing: after a crash or days of downtime the same question finds what was missed. Each effect is
committed together with its claim in `job_run`, so several processes at once have the effect of one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import func
from sqlmodel import Session, col, select

from base.period import month_of
from hourbook import facts
from hourbook.accruing import accrue_open_months, open_months
from hourbook.closes import closes_by_month, closing_pins
from hourbook.closing import draft_month
from hourbook.collecting_schedule import COLLECT_EVERY_SECONDS, ScheduledCollection
from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.refreshing import refresh, seal_waiting
from hourbook.runs import claim, done_periods
from hourbook.settings import Home, Settings
from hourbook.start_check import check_starts
from hourbook.stripe_events import catch_up
from hourbook.topups import gateway_of
from invoices import store as invoices
from invoices.document import DocumentContent
from ledger.store.tables import TRANSACTION
from metering import store as metering
from metering.lake import EventLake
from pricing.catalog import Catalog

log = logging.getLogger(__name__)

DRAFT = "draft"
SEAL_EVERY_SECONDS = 1  # what was acknowledged is in every report within 5 seconds
CHECK_STARTS_EVERY_SECONDS = 600  # it reads the hashes of all that was ever recorded
DRAFT_EVERY_SECONDS = 60
PAYMENTS_EVERY_SECONDS = 60
COMPACT_EVERY_SECONDS = 300


@dataclass(frozen=True)
class ChargeableState:
    """All that open months' charges depend on; as long as it is the same, there is nothing to accrue."""

    batch: int
    unsealed: int
    configuration: int
    ledger: int  # the last transaction that is no accrual: receipts, payments, bills
    closes: int
    today: date  # leases grow day by day


class Accruer:
    """Accrues when something changed since it last did; what arrives meanwhile is left for the next turn."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.done: ChargeableState | None = None

    def __call__(self) -> bool:
        """Accrue if there is anything to; tell whether there was."""
        before = chargeable_state(self.home)
        if before == self.done:
            return False
        accrue_open_months(self.home)
        # What was unsealed before is sealed now; anything newer than `before` differs from it in other parts.
        self.done = ChargeableState(**{**vars(before), "unsealed": 0})
        return True


def chargeable_state(home: Home) -> ChargeableState:
    """Return what charges depend on, as it stands."""
    batch = metering.InboxBatchRow
    with read_session(home.engine) as session:
        accepted = select(func.coalesce(func.max(col(batch.batch_seq)), 0))
        waiting = select(func.count()).select_from(batch).where(col(batch.sealed).is_(other=False))
        posted = select(func.coalesce(func.max(TRANSACTION.c.sequence), 0)).where(TRANSACTION.c.kind != "accrual")
        catalog = Catalog.from_facts(facts.as_of(session))
        return ChargeableState(
            batch=session.exec(accepted).one(),
            unsealed=session.exec(waiting).one(),
            configuration=facts.latest(session),
            ledger=session.connection().execute(posted).scalar_one(),
            closes=sum(1 + (row.status == "closed") for row in invoices.closes(session)),
            today=home.today(catalog.zone()),
        )


def draft_finished_months(home: Home) -> list[str]:
    """Draft every month that is over and was not drafted yet, oldest first; return those drafted here."""
    refresh(home)  # usage that waits may be the first of its month
    drafted = []
    for month in months_to_draft(home):
        contents, _ = draft_month(home, month)
        crash_point("draft:before_write")
        if run_write(home.engine, partial(_save, home, month, contents)):
            drafted.append(month)
        crash_point("draft:after_commit")
    return drafted


def months_to_draft(home: Home) -> list[str]:
    """Return the months that are over in the billing zone, not closed, and were never drafted by the schedule."""
    with read_session(home.engine) as session:
        catalog = Catalog.from_facts(facts.as_of(session))
        if catalog.operator is None:
            return []  # nobody to issue documents yet
        this_month = month_of(home.today(catalog.zone()))
        closing = closing_pins(session)
        settled = {*closes_by_month(session), *done_periods(session, DRAFT), *([closing[0]] if closing else [])}
        return [
            month for month in open_months(home, session, closes_by_month(session)) if _due(month, this_month, settled)
        ]


def _due(month: str, this_month: str, settled: set[str]) -> bool:
    return month < this_month and month not in settled


def _save(home: Home, month: str, contents: tuple[DocumentContent, ...], session: Session) -> bool:
    if invoices.close_of(session, month) is not None:
        return False  # closed meanwhile: its documents are issued, and drafts would only mislead
    if not claim(session, DRAFT, month, home.now(), f"{len(contents)} documents"):
        return False
    invoices.save_drafts(session, month, contents, home.now())
    crash_point("draft:before_commit")
    return True


def compact_lake(home: Home) -> list[str]:
    """Put the many small files of a date together, and delete what lay unused for a week; return the dates."""
    lake = EventLake(home.lake)
    dates = lake.compact_if_needed()
    if dates:
        lake.vacuum()
    return dates


@contextmanager
def scheduled_jobs(home: Home, settings: Settings) -> Iterator[BackgroundScheduler]:
    """Run the schedule beside whatever is done inside; at the end, work under way is finished first."""
    scheduler = make_scheduler(home, settings)
    scheduler.start()
    try:
        yield scheduler
    finally:
        scheduler.shutdown(wait=True)


def make_scheduler(home: Home, settings: Settings) -> BackgroundScheduler:
    """Return the ticker with its jobs; every job also runs once at the start, to catch up."""
    # A late turn is never dropped, several late turns are one, and none overlaps the one before it.
    rules = {"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
    scheduler = BackgroundScheduler(timezone=UTC, job_defaults=rules)
    scheduler.add_listener(_report, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
    _every(scheduler, "seal", partial(seal_waiting, home), SEAL_EVERY_SECONDS)
    _every(scheduler, "accrue", Accruer(home), settings.accrue_every_seconds)
    _every(scheduler, DRAFT, partial(draft_finished_months, home), DRAFT_EVERY_SECONDS)
    _every(scheduler, "starts", partial(check_starts, home), CHECK_STARTS_EVERY_SECONDS)
    _every(scheduler, "collect", ScheduledCollection(home), COLLECT_EVERY_SECONDS)
    _every(scheduler, "compact", partial(compact_lake, home), COMPACT_EVERY_SECONDS)
    gateway = gateway_of(settings)
    if gateway is not None:
        _every(scheduler, "payments", partial(catch_up, home, gateway), PAYMENTS_EVERY_SECONDS)
    return scheduler


def _every(scheduler: BackgroundScheduler, name: str, work: Callable[[], object], seconds: int) -> None:
    scheduler.add_job(work, "interval", seconds=seconds, id=name, next_run_time=datetime.now(UTC))


def _report(event: JobEvent) -> None:
    if event.code == EVENT_JOB_MAX_INSTANCES:
        log.info("job %s is still at work; this turn is left out", event.job_id)
    elif event.code == EVENT_JOB_MISSED:
        log.error("job %s missed its turn", event.job_id)
    else:
        log.error("job %s failed; it is tried again at its next turn", event.job_id, exc_info=event.exception)
