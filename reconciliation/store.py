"""Supplier bills in SQL: every file that came is a version of its month's bill; none is ever edited."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from sqlalchemy import Text, UniqueConstraint, func
from sqlmodel import Field, Session, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from base.columns import BigInt, Instant
from base.money import parse_decimal
from reconciliation.supplier_bill import RejectedBillLine, SupplierBill, SupplierCharge
from reconciliation.wording import short_text

_DIGITS = 18  # after the point, as many as a bill may write


class SupplierBillRow(SQLModel, table=True):
    """One file that a supplier sent for a month; the highest version is the one that counts."""

    __tablename__ = "supplier_bill"
    __table_args__ = (UniqueConstraint("supplier", "month", "version"), UniqueConstraint("supplier", "month", "digest"))

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInt)
    supplier: str = Field(sa_type=Text)
    month: str = Field(sa_type=Text)
    version: int = Field(sa_type=BigInt)
    digest: str = Field(sa_type=Text)  # of the file's bytes
    imported_at: datetime = Field(sa_type=Instant)


class SupplierBillLineRow(SQLModel, table=True):
    """A charge on a bill; decimals are kept as text."""

    __tablename__ = "supplier_bill_line"
    __table_args__ = (UniqueConstraint("bill_id", "line_id"),)

    bill_id: int = Field(primary_key=True, sa_type=BigInt, foreign_key="supplier_bill.id")
    line_number: int = Field(primary_key=True, sa_type=BigInt, sa_column_kwargs={"autoincrement": False})
    line_id: str = Field(sa_type=Text)
    cluster: str = Field(sa_type=Text)
    queue: str = Field(sa_type=Text)
    login: str = Field(sa_type=Text)
    item: str = Field(sa_type=Text)
    quantity: str = Field(sa_type=Text)
    unit: str = Field(sa_type=Text)
    unit_price: str = Field(sa_type=Text)
    amount_minor: int = Field(sa_type=BigInt)
    raw: str = Field(sa_type=Text)


class SupplierBillRejectedRow(SQLModel, table=True):
    """A bill line in quarantine: what it said, and why it cannot be used."""

    __tablename__ = "supplier_bill_rejected"

    bill_id: int = Field(primary_key=True, sa_type=BigInt, foreign_key="supplier_bill.id")
    line_number: int = Field(primary_key=True, sa_type=BigInt, sa_column_kwargs={"autoincrement": False})
    code: str = Field(sa_type=Text)
    message: str = Field(sa_type=Text)
    raw: str = Field(sa_type=Text)


@dataclass(frozen=True)
class StoredBill:
    """A bill as recorded."""

    bill: SupplierBill
    version: int
    imported_at: datetime


@dataclass(frozen=True)
class AddedBill:
    """What came of handing in a bill."""

    version: int
    current_version: int  # lower than this: a later file has taken its place
    added: bool  # False: the same file was there already


def add_bill(session: Session, bill: SupplierBill, *, imported_at: datetime) -> AddedBill:
    """Record a bill as the newest version of its month; the same file again changes nothing."""
    latest = _latest_version(session, bill.supplier, bill.month)
    known = session.exec(
        _of_month(bill.supplier, bill.month).where(col(SupplierBillRow.digest) == bill.digest)
    ).one_or_none()
    if known is not None:
        return AddedBill(known.version, latest, added=False)
    row = SupplierBillRow(
        supplier=bill.supplier, month=bill.month, version=latest + 1, digest=bill.digest, imported_at=imported_at
    )
    session.add(row)
    session.flush()
    if row.id is None:
        raise RuntimeError(f"the bill of {bill.supplier} for {bill.month} was not given a number by the database")
    bill_id = row.id
    session.add_all([_line_row(bill_id, line) for line in bill.lines])
    session.add_all([_rejected_row(bill_id, line) for line in bill.rejected])
    session.flush()
    return AddedBill(row.version, row.version, added=True)


def current_bill(session: Session, supplier: str, month: str) -> StoredBill | None:
    """Return the newest version of a supplier's bill of a month; none where no bill has come."""
    versions = bill_versions(session, supplier, month)
    return versions[-1] if versions else None


def bill_versions(session: Session, supplier: str, month: str) -> tuple[StoredBill, ...]:
    """Return every version of a supplier's bill of a month, the oldest first."""
    rows = session.exec(_of_month(supplier, month).order_by(col(SupplierBillRow.version))).all()
    return tuple(_stored(session, row) for row in rows)


def suppliers_with_bill(session: Session, month: str) -> tuple[str, ...]:
    """Return who has sent a bill for a month."""
    query = select(SupplierBillRow.supplier).where(col(SupplierBillRow.month) == month).distinct()
    return tuple(sorted(session.exec(query).all()))


def _of_month(supplier: str, month: str) -> SelectOfScalar[SupplierBillRow]:
    return select(SupplierBillRow).where(col(SupplierBillRow.supplier) == supplier, col(SupplierBillRow.month) == month)


def _latest_version(session: Session, supplier: str, month: str) -> int:
    query = select(func.max(SupplierBillRow.version)).where(
        col(SupplierBillRow.supplier) == supplier, col(SupplierBillRow.month) == month
    )
    return session.exec(query).one() or 0


def _stored(session: Session, row: SupplierBillRow) -> StoredBill:
    lines = session.exec(
        select(SupplierBillLineRow)
        .where(SupplierBillLineRow.bill_id == row.id)
        .order_by(col(SupplierBillLineRow.line_number))
    ).all()
    rejected = session.exec(
        select(SupplierBillRejectedRow)
        .where(SupplierBillRejectedRow.bill_id == row.id)
        .order_by(col(SupplierBillRejectedRow.line_number))
    ).all()
    bill = SupplierBill(
        row.supplier,
        row.month,
        row.digest,
        tuple(_charge(line) for line in lines),
        tuple(RejectedBillLine(line.code, line.message, line.line_number, line.raw) for line in rejected),
    )
    return StoredBill(bill, row.version, row.imported_at)


def _line_row(bill_id: int, line: SupplierCharge) -> SupplierBillLineRow:
    return SupplierBillLineRow(
        bill_id=bill_id,
        line_number=line.line_number,
        line_id=line.line_id,
        cluster=line.cluster,
        queue=line.queue,
        login=line.login,
        item=line.item,
        quantity=short_text(line.quantity, _DIGITS),
        unit=line.unit,
        unit_price=format(line.unit_price, "f"),
        amount_minor=line.amount_minor,
        raw=line.raw,
    )


def _charge(row: SupplierBillLineRow) -> SupplierCharge:
    return SupplierCharge(
        cluster=row.cluster,
        queue=row.queue,
        login=row.login,
        item=row.item,
        quantity=Fraction(parse_decimal(row.quantity)),
        unit=row.unit,
        unit_price=parse_decimal(row.unit_price),
        amount_minor=row.amount_minor,
        line_id=row.line_id,
        line_number=row.line_number,
        raw=row.raw,
    )


def _rejected_row(bill_id: int, line: RejectedBillLine) -> SupplierBillRejectedRow:
    return SupplierBillRejectedRow(
        bill_id=bill_id, line_number=line.line_number, code=line.code, message=line.message, raw=line.raw
    )
