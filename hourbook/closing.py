"""Close a month: pin what is known, charge it, issue the documents. Killed and run again, it has one effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from zoneinfo import ZoneInfo

from sqlmodel import Session

from base.period import month_days
from hourbook.accruing import open_months, post_differences
from hourbook.audit import anchor
from hourbook.blockers import Blocker, blockers_of, earlier_months
from hourbook.closes import closes_by_month, closing_pins, pins_of
from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.deriving import DerivedMonth, derive
from hourbook.reading import Pins, Reading
from hourbook.refreshing import Progress, current_pins, refresh
from hourbook.settings import Home
from hourbook.start_check import check_starts
from hourbook.supplier_costs import accrue_supplier_costs
from invoices import store as invoices
from invoices.build import Printed, build_documents
from invoices.document import DocumentContent
from invoices.postings import bill_confirmed
from ledger import store as ledger
from metering import store as metering
from pricing.catalog import Catalog

RULES_VERSION = 1
TEMPLATE_VERSION = 1


class CloseRefusedError(RuntimeError):
    """A month cannot be closed yet; each reason names the command that resolves it."""

    def __init__(self, month: str, blockers: Sequence[Blocker]) -> None:
        super().__init__(f"{month} cannot be closed: {len(blockers)} thing(s) to resolve first")
        self.month = month
        self.blockers = tuple(blockers)


@dataclass(frozen=True)
class Closed:
    """A closed month and its documents."""

    month: str
    documents: tuple[DocumentContent, ...]
    repeated: bool  # it was closed before; nothing changed


def close_month(home: Home, month: str, progress: Progress = lambda _step, _done, _all: None) -> Closed:
    """Close a month; what blocks it is refused by name, and a month that is closed stays as it is."""
    month_days(month)
    with read_session(home.engine) as session:
        done = _closed(session, month)
    if done:
        return done
    refresh(home, progress)
    if check_starts(home, progress).struck:
        refresh(home, progress)
    run_write(home.engine, lambda session: _pin(home, session, month))
    crash_point("close:after_pin")
    progress("charge and issue", 0, 1)
    closed = run_write(home.engine, lambda session: _issue(home, session, month))
    crash_point("close:after_commit")
    anchor(home)
    progress("charge and issue", 1, 1)
    return closed


def draft_month(home: Home, month: str) -> tuple[tuple[DocumentContent, ...], tuple[Blocker, ...]]:
    """Return the documents as they would be issued now, and what blocks that; nothing is recorded."""
    refresh(home)
    with read_session(home.engine) as session:
        pins = current_pins(session)
        done = _closed(session, month)
        if done:
            return done.documents, ()
        closed = closes_by_month(session)
        reading = Reading(home, session, pins, closed)
        earlier = [one for one in open_months(home, session, closed) if one < month]
        derived = derive(reading, [*earlier, month])[month]
        contents = documents_of(session, derived, pins, issued_on=_today(home, derived.catalog))
        blockers = (*earlier_months(home, session, month, reading), *blockers_of(home, session, month, derived))
        return contents, blockers


def _closed(session: Session, month: str) -> Closed | None:
    row = invoices.close_of(session, month)
    if row is None or row.status != "closed":
        return None
    issued = tuple(invoices.content_of(one) for one in invoices.documents(session, month=month))
    return Closed(month, issued, repeated=True)


def _pin(home: Home, session: Session, month: str) -> None:
    """Note as of which numbers the month is closed, unless a run before this one did."""
    if invoices.close_of(session, month) is not None:
        return
    under_way = closing_pins(session)
    if under_way:
        raise CloseRefusedError(
            month, [Blocker("closing", f"{under_way[0]} is being closed", f"hourbook close {under_way[0]}")]
        )
    pins, closed = _pins_with_checked_starts(session), closes_by_month(session)
    reading = Reading(home, session, pins, closed)
    derived = derive(reading, [month])[month]
    blockers = [*earlier_months(home, session, month, reading), *blockers_of(home, session, month, derived)]
    if blockers:
        raise CloseRefusedError(month, blockers)
    invoices.start_close(session, month, asdict(pins), _today(home, derived.catalog), home.now())
    crash_point("close:before_pin")


def _pins_with_checked_starts(session: Session) -> Pins:
    """Return the numbers as of now, but of usage only what was checked: later, an event might count at two starts."""
    pins = current_pins(session)
    return replace(pins, recorded_seq=min(pins.recorded_seq, metering.starts_checked_to(session)))


def _today(home: Home, catalog: Catalog) -> date:
    return home.today(ZoneInfo(catalog.zone_name))


def _issue(home: Home, session: Session, month: str) -> Closed:
    """Charge the month as of its pins, number and store its documents, post the bills: all in one transaction."""
    done = _closed(session, month)
    if done:
        return done
    row = invoices.close_of(session, month)
    if row is None:
        raise RuntimeError(f"the close of {month} was never begun")
    pins = pins_of(row)
    reading = Reading(home, session, pins, closes_by_month(session))
    # Months that go on draw what this one leaves, so they are posted with it.
    later = [one for one in open_months(home, session, reading.closed) if one > month]
    derived = derive(reading, [month, *later])
    post_differences(home, session, derived, pins)
    accrue_supplier_costs(reading, month)
    contents = documents_of(session, derived[month], pins, issued_on=row.issued_on)
    issued = invoices.add_documents(session, contents, home.now())
    for content in issued:
        if content.kind == "invoice" and content.total_minor:
            ledger.post(session, bill_confirmed(content), home.now())
    invoices.finish_close(session, month, home.now())
    crash_point("close:before_commit")
    return Closed(month, tuple(issued), repeated=False)


def documents_of(
    session: Session, derived: DerivedMonth, pins: Pins, *, issued_on: date
) -> tuple[DocumentContent, ...]:
    """Build a month's documents, in order of customer, not numbered yet."""
    catalog = derived.catalog
    head = ledger.head(session, pins.ledger_seq)
    known = _known_before(session, derived.month)
    printed_pins: dict[str, int | str] = {**asdict(pins), "rules": RULES_VERSION, "template": TEMPLATE_VERSION}
    contents: list[DocumentContent] = []
    if catalog.operator is None:
        return ()
    for name, month in sorted(derived.customers.items()):
        printed = Printed(
            operator=catalog.operator,
            customer=catalog.customers[name],
            contracts={number: c for number, c in catalog.contracts.items() if c.customer == name},
            skus=catalog.skus,
            sources=derived.sources.get(name, ()),
            known_before=known,
            issued_on=issued_on,
            pins=printed_pins,
            ledger_head=head,
        )
        contents.extend(build_documents(month, printed))
    return tuple(contents)


def _known_before(session: Session, month: str) -> frozenset[str]:
    """Return the lots, packs and grants that statements of the month closed before showed."""
    earlier = {m: pins for m, pins in closes_by_month(session).items() if m < month}
    if not earlier:
        return frozenset()
    before = max(earlier)
    _, last = month_days(before)
    sources = ledger.funding_sources(session, up_to_seq=earlier[before].ledger_seq)
    return frozenset(source.id for source in sources if source.received_on <= last)
