"""A supplier's bill as it arrives: CSV read line by line; what cannot be used is kept by name, nothing is dropped."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256

from base.money import parse_amount, parse_decimal
from base.period import parse_month
from pricing.charges import UNIT_SCALE

COLUMNS = ("line_id", "month", "cluster", "queue", "login", "item", "quantity", "unit", "unit_price", "amount")
UNITS = frozenset(UNIT_SCALE) | {"month"}


class BillFormatError(ValueError):
    """The file is no supplier bill at all; the message says why and what is expected."""


class _RefusedLineError(ValueError):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class SupplierCharge:
    """One line of a supplier's bill, normalised."""

    cluster: str
    queue: str
    login: str
    item: str
    quantity: Fraction
    unit: str
    unit_price: Decimal
    amount_minor: int  # gross
    line_id: str
    line_number: int  # in the file, from 1
    raw: str


@dataclass(frozen=True)
class RejectedBillLine:
    """A line that cannot be used, kept with the reason; it blocks the month's reconciliation until it is settled."""

    code: str  # "broken_row" "no_value" "wrong_month" "not_a_number" "negative" "unknown_unit" "line_id_conflict" …
    message: str  # what, which, and what to do
    line_number: int
    raw: str


@dataclass(frozen=True)
class SupplierBill:
    """One file that a supplier sent for a month."""

    supplier: str
    month: str
    digest: str  # of the file's bytes: the same file again is the same bill
    lines: tuple[SupplierCharge, ...]
    rejected: tuple[RejectedBillLine, ...]

    @property
    def billed_minor(self) -> int:
        """What the readable lines ask for, gross."""
        return sum(line.amount_minor for line in self.lines)


def load_bill(payload: bytes, *, supplier: str, month: str, currency: str = "CNY") -> SupplierBill:
    """Read a supplier's bill together with what identifies the file."""
    lines, rejected = read_bill(payload, supplier=supplier, month=month, currency=currency)
    return SupplierBill(supplier, month, sha256(payload).hexdigest(), lines, rejected)


def read_bill(
    payload: bytes, *, supplier: str, month: str, currency: str = "CNY"
) -> tuple[tuple[SupplierCharge, ...], tuple[RejectedBillLine, ...]]:
    """Read a bill's lines; every line with content is either a charge or rejected by name.

    A file that is no bill at all (not UTF-8, no header, a column missing) raises `BillFormatError`: taken as an
    empty bill it would replace a good one.
    """
    parse_month(month)
    records = _records(payload, supplier)
    header = _header(records[0][1], supplier)
    charges: dict[str, SupplierCharge] = {}
    rejected: list[RejectedBillLine] = []
    for number, raw in records[1:]:
        try:
            charge = _charge(_cells(raw, header), number, raw, month=month, currency=currency)
            _refuse_repeat(charge, charges.get(charge.line_id))
        except _RefusedLineError as refused:
            rejected.append(RejectedBillLine(refused.code, f"line {number}: {refused}", number, raw))
        else:
            charges[charge.line_id] = charge
    return tuple(charges.values()), tuple(rejected)


def _records(payload: bytes, supplier: str) -> list[tuple[int, str]]:
    """Cut the file into its lines with content, numbered from 1; the first one is the header."""
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BillFormatError(
            f"bill of {supplier}: not UTF-8 at byte {error.start}; save the sheet as CSV UTF-8"
        ) from error
    # Only "\n" ends a line: other separators may stand inside a name. A cell never holds a line break.
    numbered = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), start=1)]
    records = [(number, line) for number, line in numbered if line.strip(' \t,"\r')]
    if not records:
        raise BillFormatError(f"bill of {supplier}: the file is empty; expected columns {', '.join(COLUMNS)}")
    return records


def _header(raw: str, supplier: str) -> list[str]:
    names = [name.strip() for name in next(csv.reader([raw]))]
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise BillFormatError(
            f"bill of {supplier}: column(s) {', '.join(missing)} missing; the header reads {', '.join(names)}"
        )
    repeated = [column for column in COLUMNS if names.count(column) > 1]
    if repeated:
        raise BillFormatError(f"bill of {supplier}: column(s) {', '.join(repeated)} stand more than once")
    return names


def _cells(raw: str, header: Sequence[str]) -> dict[str, str]:
    try:
        cells = next(csv.reader([raw], strict=True))
    except csv.Error as error:
        raise _RefusedLineError("broken_row", f"the quotes do not close ({error}); ask for the line again") from error
    if len(cells) != len(header):
        raise _RefusedLineError("broken_row", f"{len(cells)} cells under {len(header)} columns; ask for the line again")
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def _charge(cells: Mapping[str, str], number: int, raw: str, *, month: str, currency: str) -> SupplierCharge:
    """Turn the cells of one line into a charge, or refuse it by name."""
    for column in ("line_id", "month", "cluster", "item", "quantity", "unit", "unit_price", "amount"):
        if not cells[column]:
            raise _RefusedLineError("no_value", f"column {column} is empty; ask the supplier for it")
    if cells["month"] != month:
        raise _RefusedLineError("wrong_month", f"it is of month {cells['month']!r}, this bill is of {month}")
    if cells["unit"] not in UNITS:
        raise _RefusedLineError(
            "unknown_unit", f"unit {cells['unit']!r} is unknown; known are {', '.join(sorted(UNITS))}"
        )
    return SupplierCharge(
        cluster=cells["cluster"],
        queue=cells["queue"],
        login=cells["login"],
        item=cells["item"],
        quantity=Fraction(_number(cells, "quantity")),
        unit=cells["unit"],
        unit_price=_number(cells, "unit_price"),
        amount_minor=_amount(cells, currency),
        line_id=cells["line_id"],
        line_number=number,
        raw=raw,
    )


def _number(cells: Mapping[str, str], column: str) -> Decimal:
    try:
        value = parse_decimal(cells[column])
    except ValueError as error:
        raise _RefusedLineError("not_a_number", f"column {column}: {error}") from error
    if value < 0:
        raise _RefusedLineError("negative", f"column {column}: {cells[column]} is below zero; a credit is a bill apart")
    return value


def _amount(cells: Mapping[str, str], currency: str) -> int:
    _number(cells, "amount")
    try:
        return parse_amount(cells["amount"], currency)
    except (ValueError, OverflowError) as error:
        raise _RefusedLineError("not_an_amount", f"column amount: {error}") from error


def _refuse_repeat(charge: SupplierCharge, earlier: SupplierCharge | None) -> None:
    """Refuse a line id that stands in the file already: the first line of it is the one that counts."""
    if earlier is None:
        return
    if _content(charge) == _content(earlier):
        raise _RefusedLineError(
            "repeated_line", f"the same as line {earlier.line_number} ({charge.line_id}), which counts once"
        )
    raise _RefusedLineError(
        "line_id_conflict",
        f"line_id {charge.line_id!r} stands on line {earlier.line_number} with other content; ask which one is right",
    )


def _content(charge: SupplierCharge) -> tuple[object, ...]:
    place = (charge.cluster, charge.queue, charge.login, charge.item)
    return (*place, charge.quantity, charge.unit, charge.unit_price, charge.amount_minor)
