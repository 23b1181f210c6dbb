"""Supplier bills as they arrive: every line is a charge or rejected by name."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

from reconciliation.supplier_bill import BillFormatError, load_bill, read_bill

HEADER = "line_id,month,cluster,queue,login,item,quantity,unit,unit_price,amount"
GOOD = "0001,2026-11,cpu2,cpu,grp_a,core-hour,1000.25,core-hour,0.05,50.01"


def read(*lines: str, header: str = HEADER) -> tuple[list[str], list[tuple[str, int]]]:
    payload = "\n".join([header, *lines, ""]).encode()
    charges, rejected = read_bill(payload, supplier="centre", month="2026-11")
    assert len(charges) + len(rejected) == len(lines)
    return [charge.line_id for charge in charges], [(line.code, line.line_number) for line in rejected]


def changed(**cells: str) -> str:
    values = dict(zip(HEADER.split(","), GOOD.split(","), strict=True)) | cells
    return ",".join(values.values())


def test_a_line_is_read_exactly() -> None:
    ((charge,), rejected) = read_bill(f"{HEADER}\n{GOOD}\n".encode(), supplier="centre", month="2026-11")

    assert rejected == ()
    assert charge.quantity == Fraction("1000.25")
    assert charge.unit_price == Decimal("0.05")
    assert (charge.amount_minor, charge.line_number, charge.raw) == (5001, 2, GOOD)


def test_columns_may_stand_in_any_order_with_others_between() -> None:
    header = "remark,amount,unit_price,unit,quantity,item,login,queue,cluster,month,line_id"
    line = ",".join(["说明", *reversed(GOOD.split(","))])

    assert read(line, header=header) == (["0001"], [])


def test_files_saved_by_a_spreadsheet_are_read() -> None:
    payload = f'\ufeff{HEADER}\r\n"0001",{GOOD.removeprefix("0001,")}\r\n,,,,,,,,,\r\n'.encode()
    (charge,), rejected = read_bill(payload, supplier="centre", month="2026-11")

    assert (charge.line_id, rejected) == ("0001", ())


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (changed(month="2026-10"), "wrong_month"),
        (changed(amount="-50.01"), "negative"),
        (changed(quantity="-1"), "negative"),
        (changed(unit_price="NaN"), "not_a_number"),
        (changed(quantity="1e3"), "not_a_number"),
        (changed(quantity="inf"), "not_a_number"),
        (changed(amount="50.012"), "not_an_amount"),
        (changed(amount="99999999999999999"), "not_an_amount"),
        (changed(unit="bogo-hour"), "unknown_unit"),
        (changed(line_id=""), "no_value"),
        (changed(amount=""), "no_value"),
        (GOOD + ",more", "broken_row"),
        (GOOD.rpartition(",")[0], "broken_row"),
        (changed(login='"grp_a'), "broken_row"),
        (changed(amount='"1,000.00"'), "not_a_number"),
    ],
)
def test_a_line_that_cannot_be_used_is_rejected_by_name(line: str, code: str) -> None:
    assert read(changed(line_id="0000"), line) == (["0000"], [(code, 3)])


def test_a_rejected_line_keeps_its_text_and_says_what_to_do() -> None:
    line = changed(month="2026-10")
    _, (rejected,) = read_bill(f"{HEADER}\n{line}\n".encode(), supplier="centre", month="2026-11")

    assert rejected.raw == line
    assert rejected.message == "line 2: it is of month '2026-10', this bill is of 2026-11"


def test_a_line_id_with_other_content_is_rejected_and_the_first_counts() -> None:
    assert read(GOOD, changed(amount="60.00")) == (["0001"], [("line_id_conflict", 3)])


def test_the_same_line_again_counts_once() -> None:
    assert read(GOOD, GOOD, changed(quantity="1000.250")) == (["0001"], [("repeated_line", 3), ("repeated_line", 4)])


def test_separators_inside_a_name_do_not_cut_the_line() -> None:
    assert read(changed(login="grp\u2028a\x1fb"), changed(line_id="0002")) == (["0001", "0002"], [])


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (HEADER.replace("amount", "sum").encode(), "column\\(s\\) amount missing"),
        (f"{HEADER},amount\n".encode(), "amount stand more than once"),
        (f"{HEADER}\n".encode() + "李".encode("gbk"), "not UTF-8"),
    ],
)
def test_a_file_that_is_no_bill_is_refused_rather_than_taken_as_an_empty_one(payload: bytes, why: str) -> None:
    with pytest.raises(BillFormatError, match=why):
        read_bill(payload, supplier="centre", month="2026-11")


def test_a_bill_is_known_by_its_bytes() -> None:
    one = load_bill(f"{HEADER}\n{GOOD}\n".encode(), supplier="centre", month="2026-11")
    other = load_bill(f"{HEADER}\n{GOOD}\n\n".encode(), supplier="centre", month="2026-11")

    assert one.lines == other.lines
    assert one.billed_minor == 5001
    assert one.digest != other.digest
