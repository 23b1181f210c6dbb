"""Quarantine and exceptions for a person: list them, look at one, decide about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from hourbook import facts
from hourbook.accruing import open_months
from hourbook.closes import closes_by_month
from hourbook.database import read_session, run_write
from hourbook.reading import Reading
from hourbook.refreshing import current_pins, refresh
from hourbook.settings import Home
from metering import store as metering
from pricing.assignment import assign
from pricing.catalog import Catalog
from pricing.checks import check
from pricing.exceptions import UsageException
from pricing.models import Mapping as UsageMapping
from pricing.models import WriteOff
from pricing.toml_files import body_of


class ResolutionError(ValueError):
    """A decision that cannot be taken about this entry."""


@dataclass(frozen=True)
class Decision:
    """What a person decided about one entry, and why."""

    entry: str
    reason: str
    project: str | None = None  # CUSTOMER/PROJECT
    write_off: bool = False
    dismiss: bool = False


def open_exceptions(home: Home, session: Session) -> Sequence[UsageException]:
    """Return usage that cannot be charged as things stand: of the open months, and what came late for settled ones."""
    closed = closes_by_month(session)
    months = open_months(home, session, closed)
    if not months:
        return ()
    reading = Reading(home, session, current_pins(session), closed)
    catalog = reading.catalog()
    first = min([*reading.late_months(catalog), *months])
    return assign(reading.usage(catalog, first, months[-1]), catalog).exceptions


def list_open(home: Home, *, every: bool = False) -> list[dict[str, Any]]:
    """Return what stands in quarantine, and what cannot be charged, as rows."""
    with read_session(home.engine) as session:
        rows = [
            {"id": e.id, "code": e.code, "month": e.month, "status": e.status, "message": e.message}
            for e in metering.quarantine(session, status=None if every else "open")
        ]
        rows += [
            {"id": e.id, "code": e.code, "month": e.month, "status": "open", "message": e.message}
            for e in open_exceptions(home, session)
        ]
    return rows


def show_open(home: Home, entry: str) -> dict[str, Any]:
    """Return everything that is known of one entry."""
    with read_session(home.engine) as session:
        if entry.startswith("U-"):
            found = _exception(home, session, entry)
            return {
                "id": found.id,
                "code": found.code,
                "message": found.message,
                "month": found.month,
                "jobs": found.jobs,
                "quantity": f"{found.quantity} (as the rollup counts {found.resource})",
                "days": f"{found.first_day} to {found.last_day}",
            }
        row = metering.quarantine_entry(session, entry)
        return {
            "id": row.id,
            "code": row.code,
            "message": row.message,
            "status": row.status,
            "month": row.month or "unknown: blocks every close until decided",
            "event": f"{row.source} {row.event_id}".strip(),
            "file": _file_of(session, row.batch_seq),
            "line": row.line,
            "resolved by": row.resolved_by,
            "reason": row.reason,
            "as it arrived": row.raw.decode("utf-8", "backslashreplace"),
        }


def _file_of(session: Session, batch_seq: int) -> str:
    return next(batch.origin for batch in metering.inbox_batches(session) if batch.batch_seq == batch_seq)


def _exception(home: Home, session: Session, entry: str) -> UsageException:
    for exception in open_exceptions(home, session):
        if exception.id == entry:
            return exception
    raise LookupError(f"there is no open exception {entry!r}; `hourbook quarantine list` shows them")


def resolve_exception(home: Home, decision: Decision) -> str:
    """Record a decision and say what it did."""
    if decision.entry.startswith("U-"):
        refresh(home)
        return run_write(home.engine, lambda session: _decide_usage(home, session, decision))
    return run_write(home.engine, lambda session: _decide_row(home, session, decision))


def _decide_row(home: Home, session: Session, decision: Decision) -> str:
    row = metering.quarantine_entry(session, decision.entry)
    if row.status != "open":
        raise ResolutionError(f"{row.id} is {row.status} already: {row.reason}")
    if decision.project is not None:
        raise ResolutionError(f"{row.id} could not be read, so it cannot be mapped; --write-off or --dismiss it")
    status: metering.QuarantineStatus = "written_off" if decision.write_off else "dismissed"
    metering.close_entry(session, row, status, home.now(), resolved_by="person", reason=decision.reason)
    return f"{row.id} is {status.replace('_', ' ')}"


def _decide_usage(home: Home, session: Session, decision: Decision) -> str:
    exception = _exception(home, session, decision.entry)
    if decision.dismiss:
        raise ResolutionError(f"{exception.id} is usage that ran; map it or write it off")
    if decision.write_off:
        fact = WriteOff(id=exception.id, reason=decision.reason, quantity=exception.quantity)
        _record(home, session, "write_off", fact, decision)
        return f"{exception.id} is written off: {exception.quantity} of {exception.resource} will not be charged"
    if exception.code != "unassigned":
        raise ResolutionError(f"{exception.id} is {exception.code}, so mapping does not help: {exception.message}")
    mapping = _mapping(session, exception, decision.project or "")
    _record(home, session, "mapping", mapping, decision)
    return f"{exception.cluster}/{exception.account}/{exception.user} is mapped to {decision.project}"


def _mapping(session: Session, exception: UsageException, project: str) -> UsageMapping:
    if not exception.account and not exception.user:
        raise ResolutionError(
            f"{exception.id} names neither account nor user, so a mapping would take everybody's; write it off, "
            "or apply a [[mappings]] that says so"
        )
    account, user = exception.account or "*", exception.user or "*"
    mapping = UsageMapping(cluster=exception.cluster, account=account, user=user, project=project)
    if mapping.fact_key not in facts.as_of(session).get("mapping", {}):
        return mapping
    # One that ended stays as it was for its days; this one goes on from where nobody was named.
    return mapping.model_copy(update={"valid_from": exception.first_day})


def _record(home: Home, session: Session, kind: str, fact: UsageMapping | WriteOff, decision: Decision) -> None:
    before = facts.as_of(session)
    body = body_of(fact)
    before.setdefault(kind, {})[fact.fact_key] = body
    problems = check(Catalog.from_facts(before))
    if problems:
        raise ResolutionError("; ".join(str(problem) for problem in problems))
    source = f"resolve {decision.entry}: {decision.reason}"
    facts.record(session, {(kind, fact.fact_key): body}, home.now(), source=source)
