"""Documents in SQL: issued ones are only ever added to; numbers are taken without a gap in the issuing transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime

import orjson
from sqlalchemy import Text, UniqueConstraint, delete
from sqlmodel import Field, Session, SQLModel, col, select

from base.columns import BigInt, Day, Instant
from invoices.document import DocumentContent, content_hash, from_json, to_json

SERIES_OF_KIND = {"invoice": "INV", "statement": "STM", "credit_note": "CRN"}


class DocumentRow(SQLModel, table=True):
    """An issued document: its content never changes."""

    __tablename__ = "document"
    __table_args__ = (UniqueConstraint("customer", "month", "kind", "contracts"),)

    number: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(sa_type=Text)
    customer: str = Field(sa_type=Text, index=True)
    month: str = Field(sa_type=Text, index=True)
    contracts: str = Field(sa_type=Text)  # comma-separated
    content: str = Field(sa_type=Text)  # canonical JSON
    content_hash: str = Field(sa_type=Text)
    total_minor: int = Field(sa_type=BigInt)
    issued_on: date = Field(sa_type=Day)
    issued_at: datetime = Field(sa_type=Instant)


class RenderingRow(SQLModel, table=True):
    """The fingerprint of a document's PDF when it was first rendered: every later one must equal it."""

    __tablename__ = "document_rendering"

    number: str = Field(primary_key=True, sa_type=Text, foreign_key="document.number")
    pdf_sha256: str = Field(sa_type=Text)


class NumberSeriesRow(SQLModel, table=True):
    """The last number taken of a series such as INV-2026."""

    __tablename__ = "number_series"

    series: str = Field(primary_key=True, sa_type=Text)
    last: int = Field(sa_type=BigInt)


class PeriodCloseRow(SQLModel, table=True):
    """A month that is being closed or is closed, and the numbers as of which."""

    __tablename__ = "period_close"

    month: str = Field(primary_key=True, sa_type=Text)
    status: str = Field(sa_type=Text)  # closing closed
    pins: str = Field(sa_type=Text)  # JSON: what its documents are a function of
    issued_on: date = Field(sa_type=Day)
    started_at: datetime = Field(sa_type=Instant)
    closed_at: datetime | None = Field(default=None, sa_type=Instant)


class PaymentRow(SQLModel, table=True):
    """Money received for an invoice."""

    __tablename__ = "payment"

    reference: str = Field(primary_key=True, sa_type=Text)
    number: str = Field(sa_type=Text, foreign_key="document.number", index=True)
    amount_minor: int = Field(sa_type=BigInt)
    paid_on: date = Field(sa_type=Day)
    recorded_at: datetime = Field(sa_type=Instant)


class DraftRow(SQLModel, table=True):
    """A document as it would be issued now; drafts are made anew as often as wanted."""

    __tablename__ = "document_draft"

    month: str = Field(primary_key=True, sa_type=Text)
    customer: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(primary_key=True, sa_type=Text)
    contracts: str = Field(primary_key=True, sa_type=Text)
    content: str = Field(sa_type=Text)
    total_minor: int = Field(sa_type=BigInt)
    drafted_at: datetime = Field(sa_type=Instant)


class UnknownDocumentError(LookupError):
    """No document has this number."""

    def __init__(self, number: str) -> None:
        super().__init__(f"there is no document {number!r}; `hourbook invoice list MONTH` shows the numbers")
        self.number = number


def next_numbers(session: Session, series: str, count: int) -> list[str]:
    """Take the next numbers of a series, without a gap: they are taken only if the transaction commits."""
    row = session.get(NumberSeriesRow, series) or NumberSeriesRow(series=series, last=0)
    first = row.last + 1
    row.last += count
    session.add(row)
    session.flush()
    return [f"{series}-{number:05d}" for number in range(first, first + count)]


def add_documents(session: Session, contents: Sequence[DocumentContent], now: datetime) -> list[DocumentContent]:
    """Issue documents in the order given: number each and store it."""
    numbered = _numbered(session, contents)
    for content in numbered:
        session.add(
            DocumentRow(
                number=content.number,
                kind=content.kind,
                customer=content.customer.id,
                month=content.month,
                contracts=",".join(content.contracts),
                content=to_json(content).decode(),
                content_hash=content_hash(content),
                total_minor=content.total_minor,
                issued_on=content.issued_on,
                issued_at=now,
            )
        )
    months = {content.month for content in contents}
    session.exec(delete(DraftRow).where(col(DraftRow.month).in_(months)))
    session.flush()
    return numbered


def _numbered(session: Session, contents: Sequence[DocumentContent]) -> list[DocumentContent]:
    series = [f"{SERIES_OF_KIND[content.kind]}-{content.issued_on:%Y}" for content in contents]
    numbers = {name: iter(next_numbers(session, name, series.count(name))) for name in sorted(set(series))}
    return [
        replace(content, series=name, number=next(numbers[name]))
        for content, name in zip(contents, series, strict=True)
    ]


def documents(session: Session, *, month: str | None = None, customer: str | None = None) -> list[DocumentRow]:
    """Return issued documents in order of number."""
    wanted = select(DocumentRow).order_by(col(DocumentRow.number))
    if month is not None:
        wanted = wanted.where(DocumentRow.month == month)
    if customer is not None:
        wanted = wanted.where(DocumentRow.customer == customer)
    return list(session.exec(wanted))


def document(session: Session, number: str) -> DocumentRow:
    """Return one document."""
    row = session.get(DocumentRow, number)
    if row is None:
        raise UnknownDocumentError(number)
    return row


def content_of(row: DocumentRow | DraftRow) -> DocumentContent:
    """Return what a document says."""
    return from_json(row.content)


def keep_rendering(session: Session, number: str, pdf: bytes) -> bool:
    """Note the fingerprint of a document's first PDF; tell whether this one equals it."""
    digest = hashlib.sha256(pdf).hexdigest()
    row = session.get(RenderingRow, number)
    if row is None:
        session.add(RenderingRow(number=number, pdf_sha256=digest))
        return True
    return row.pdf_sha256 == digest


def rendering_of(session: Session, number: str) -> str:
    """Return the fingerprint of a document's first PDF; "" where it was never rendered."""
    row = session.get(RenderingRow, number)
    return row.pdf_sha256 if row else ""


def start_close(session: Session, month: str, pins: Mapping[str, int], issued_on: date, now: datetime) -> None:
    """Note that a month is being closed, as of which numbers; whoever goes on with it uses the same."""
    text = orjson.dumps(dict(pins), option=orjson.OPT_SORT_KEYS).decode()
    session.add(PeriodCloseRow(month=month, status="closing", pins=text, issued_on=issued_on, started_at=now))
    session.flush()


def finish_close(session: Session, month: str, now: datetime) -> None:
    """Note that a month is closed."""
    row = session.get_one(PeriodCloseRow, month)
    row.status, row.closed_at = "closed", now
    session.add(row)
    session.flush()


def close_of(session: Session, month: str) -> PeriodCloseRow | None:
    """Return how far the close of a month is; None where it has not begun."""
    return session.get(PeriodCloseRow, month)


def closes(session: Session) -> list[PeriodCloseRow]:
    """Return every close, oldest month first."""
    return list(session.exec(select(PeriodCloseRow).order_by(col(PeriodCloseRow.month))))


def add_payment(session: Session, payment: PaymentRow) -> None:
    """Record a payment."""
    session.add(payment)
    session.flush()


def payments(session: Session, number: str | None = None) -> list[PaymentRow]:
    """Return payments, of one document or all, oldest first."""
    wanted = select(PaymentRow).order_by(col(PaymentRow.paid_on), col(PaymentRow.reference))
    if number is not None:
        wanted = wanted.where(PaymentRow.number == number)
    return list(session.exec(wanted))


def save_drafts(session: Session, month: str, contents: Sequence[DocumentContent], now: datetime) -> None:
    """Replace a month's drafts."""
    session.exec(delete(DraftRow).where(col(DraftRow.month) == month))
    for content in contents:
        session.add(
            DraftRow(
                month=month,
                customer=content.customer.id,
                kind=content.kind,
                contracts=",".join(content.contracts),
                content=to_json(content).decode(),
                total_minor=content.total_minor,
                drafted_at=now,
            )
        )
    session.flush()


def drafts(session: Session, month: str) -> list[DraftRow]:
    """Return a month's drafts by customer."""
    return list(session.exec(select(DraftRow).where(DraftRow.month == month).order_by(col(DraftRow.customer))))


# What the migrations add for tables that change, but only forward; documents, renderings and payments are append-only.
_FORWARD = (
    (
        "number_series",
        "NEW.last < OLD.last OR NEW.series <> OLD.series",
        "a number that was taken is never taken back",
    ),
    (
        "period_close",
        "OLD.status = 'closed' OR NEW.month <> OLD.month OR NEW.pins <> OLD.pins OR NEW.issued_on <> OLD.issued_on",
        "a closed month never changes, nor do the facts that a close is pinned to",
    ),
)


def _sqlite_triggers(table: str, refused: str, message: str) -> tuple[str, str]:
    return (
        (
            f"CREATE TRIGGER {table}_forward BEFORE UPDATE ON {table} WHEN {refused} "
            f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        ),
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} BEGIN SELECT RAISE(ABORT, '{message}'); END",
    )


def _postgresql_triggers(table: str, refused: str, message: str) -> tuple[str, ...]:
    function = f"CREATE FUNCTION {table}_{{0}}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {{1}} END $$"
    # The same kind of error as where SQLite refuses.
    refuse = f"RAISE EXCEPTION '{message}' USING ERRCODE = 'integrity_constraint_violation';"
    return (
        function.format("forward", f"IF {refused} THEN {refuse} END IF; RETURN NEW;"),
        function.format("no_delete", refuse),
        f"CREATE TRIGGER {table}_forward BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_forward()",
        (
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE OR TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_no_delete()"
        ),
    )


TRIGGERS: Mapping[str, tuple[str, ...]] = {
    "sqlite": tuple(statement for guard in _FORWARD for statement in _sqlite_triggers(*guard)),
    "postgresql": tuple(statement for guard in _FORWARD for statement in _postgresql_triggers(*guard)),
}
