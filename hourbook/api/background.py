"""What goes on while the server runs: usage that arrived is counted and charged every few seconds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from sqlalchemy import func
from sqlmodel import col, select

from hourbook import facts
from hourbook.accruing import accrue_open_months
from hourbook.database import read_session
from hourbook.importing import catalog_of
from hourbook.settings import Home
from ledger import store as ledger
from metering import store as metering

log = logging.getLogger(__name__)

State = tuple[int, int, int, date]


@contextmanager
def background_accrual(home: Home, every_seconds: float) -> Iterator[None]:
    """Count and charge in a thread until the server stops; what is under way then is finished first."""
    stop = threading.Event()
    thread = threading.Thread(target=_run, args=(home, every_seconds, stop), name="accrual")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _run(home: Home, every_seconds: float, stop: threading.Event) -> None:
    done: State | None = None
    while True:
        try:
            done = accrue_if_needed(home, done)
        except Exception:  # one failure must not stop it: the next turn tries again
            log.exception("usage could not be charged; trying again in %s s", every_seconds)
        if stop.wait(every_seconds):
            return


def accrue_if_needed(home: Home, done: State | None) -> State:
    """Accrue unless nothing changed since the state in which it was done last; return the present state."""
    # Taken before: what arrives meanwhile must be seen as new the next time.
    now = _state(home)
    if now != done:
        accrue_open_months(home)
    return now


def _state(home: Home) -> State:
    """Return all that charges depend on: usage accepted, configuration, money received, and the day."""
    today = home.today(catalog_of(home).zone())
    with read_session(home.engine) as session:
        batch = session.exec(select(func.max(col(metering.InboxBatchRow.batch_seq)))).one() or 0
        return batch, facts.latest(session), ledger.head(session)[0], today
