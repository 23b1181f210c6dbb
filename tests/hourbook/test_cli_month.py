"""A month at the terminal: from facts and a log to documents, payments, balances and suppliers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.hourbook.cli_stories import Terminal, fresh, sacct_file, sacct_row

FACTS = """
[operator]
id = "starlight"
name = "星河超算云"
name_en = "Starlight"
billing_timezone = "Asia/Shanghai"
currency = "CNY"
tax_rate = 0.06

[[clusters]]
name = "hpc1"
timezone = "Asia/Shanghai"

[[customers]]
id = "u-north"
name = "北方大学"
kind = "university"
projects = [{ id = "physics", name = "物理" }]

[[customers]]
id = "c-acme"
name = "艾克米"
kind = "company"
projects = [{ id = "rd", name = "研发" }]

[[contracts]]
number = "HT-1"
customer = "u-north"
signed_on = 2026-01-01
valid_from = 2026-01-01
last_day = 2027-12-31
billing = "prepaid"

[[contracts]]
number = "HT-2"
customer = "c-acme"
signed_on = 2026-01-01
valid_from = 2026-01-01
last_day = 2027-12-31
billing = "credit_line"
credit_limit = "1000.00"
payment_days = 30

[[mappings]]
cluster = "hpc1"
account = "grp"
project = "u-north/physics"

[[skus]]
id = "core-hour"
product = "general-hpc"
name = "CPU 核时"
unit = "core-hour"

[[sku_rules]]
order = 1
cluster = "*"
partition = "*"
qos = "*"
resource = "cpu"
sku = "core-hour"

[[sku_rules]]
order = 2
cluster = "*"
partition = "*"
qos = "*"
resource = "node"
included = true

[[sku_rules]]
order = 3
cluster = "*"
partition = "*"
qos = "*"
resource = "wall"
included = true

[[prices]]
sku = "core-hour"
effective_from = 2026-01-01
unit_price = 1

[[suppliers]]
id = "gz"
name = "广州超算中心"

[[supplier_contracts]]
number = "CG-1"
supplier = "gz"
cluster = "hpc1"
billing = "by_use"
timezone = "Asia/Shanghai"
valid_from = 2026-01-01
last_day = 2027-12-31
tax_rate = 0.06
tolerance_quantity = 1
tolerance_amount = "0.10"
[[supplier_contracts.items]]
item = "core-hour"
partition = "*"
resource = "cpu"
unit = "core-hour"
unit_price = 0.5
effective_from = 2026-01-01
"""
BILL = """line_id,month,cluster,queue,login,item,quantity,unit,unit_price,amount
1,2026-11,hpc1,cpu,grp,core-hour,40.00,core-hour,0.5,20.00
2,2026-11,hpc1,cpu,rd,core-hour,eight,core-hour,0.5,4.00
3,2026-10,hpc1,cpu,rd,core-hour,8.00,core-hour,0.5,4.00
"""
BOB = {"Account": "rd", "User": "bob", "AllocTRES": "billing=8,cpu=8,mem=8G,node=1", "NCPUS": 8}


@pytest.fixture(scope="module")
def open_month(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """A month that is over: 40 core-hours of a university, 8 of an account that nobody has mapped."""
    folder = tmp_path_factory.mktemp("month")
    terminal = fresh(folder)
    facts = folder / "facts.toml"
    facts.write_text(FACTS, encoding="utf-8")
    terminal.done("apply", facts)
    rows = [*(sacct_row(job) for job in range(1, 11)), sacct_row(11, BOB)]
    terminal.done("import", "slurm", sacct_file(folder / "log.psv", rows), "--cluster", "hpc1")
    terminal.done("topup", "u-north", "100.00", "--reference", "bank 1", "--received-on", "2026-11-01")
    return terminal


@pytest.fixture(scope="module")
def closed_month(open_month: Terminal, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """The same month, resolved and closed."""
    terminal = copy_of(open_month, tmp_path_factory.mktemp("closed"))
    [entry] = terminal.done("quarantine", "list", "--format", "csv").rows()
    terminal.done("resolve", entry["id"], "--map", "c-acme/rd", "--reason", "new group")
    terminal.done("close", "2026-11")
    return terminal


def copy_of(terminal: Terminal, folder: Path) -> Terminal:
    """A home of one's own in the same state."""
    shutil.copytree(terminal.home, folder / "home")
    return Terminal(folder / "home")


def balance(terminal: Terminal, customer: str) -> dict[str, str]:
    rows = terminal.done("balance", customer, "--format", "csv").rows()
    return {row["what"]: row["amount"] for row in rows}


def test_facts_are_applied_once_and_a_dry_run_records_nothing(tmp_path: Path) -> None:
    terminal, facts = fresh(tmp_path), tmp_path / "facts.toml"
    facts.write_text(FACTS, encoding="utf-8")
    planned = terminal.done("apply", facts, "--dry-run", "--format", "csv").rows()
    assert terminal.done("apply", facts, "--format", "csv").rows() == planned
    assert {row["change"] for row in planned} == {"added"}
    assert "nothing changes" in terminal.done("apply", facts).out
    facts.write_text(FACTS.replace("unit_price = 1\n", "unit_price = one\n"), encoding="utf-8")
    refused = terminal("apply", facts)
    assert refused.code == 1
    assert "facts.toml:" in refused.err


def test_what_blocks_a_close_is_listed_with_the_command_that_resolves_it(open_month: Terminal) -> None:
    answer = open_month("close", "2026-11")
    assert answer.code == 1
    assert "unassigned: U-" in answer.err
    assert "--map CUSTOMER/PROJECT" in answer.err
    assert "1 thing(s) to resolve first" in answer.err
    draft = open_month.done("close", "2026-11", "--dry-run", "--format", "csv")
    assert {(row["number"], row["customer"]) for row in draft.rows()} >= {("(draft)", "u-north")}
    assert "unassigned" in draft.err
    assert open_month.done("invoice", "list", "2026-11", "--format", "json").json() == []


def test_usage_by_customer_shows_what_nobody_owns(open_month: Terminal) -> None:
    days = ("--from", "2026-11-01", "--to", "2026-11-30", "--by", "customer,account")
    rows = open_month.done("usage", *days, "--format", "csv").rows()
    assert {(row["customer"], row["account"], row["core_hours"]) for row in rows} == {
        ("u-north", "grp", "40.000000"),
        ("", "rd", "8.000000"),
    }


def test_a_closed_month_has_an_invoice_and_a_statement_and_stays_as_it_is(closed_month: Terminal) -> None:
    documents = closed_month.done("invoice", "list", "2026-11", "--format", "csv").rows()
    assert [(one["number"], one["kind"], one["customer"], one["total"], one["due"]) for one in documents] == [
        ("INV-2026-00001", "invoice", "c-acme", "8.00", "2026-12-31"),
        ("STM-2026-00001", "statement", "u-north", "40.00", ""),
    ]
    again = closed_month.done("close", "2026-11", "--format", "csv")
    assert again.rows() == documents
    assert "was closed before; nothing changed" in again.err
    assert "closed already" in closed_month.done("close", "2026-11", "--dry-run").out


def test_documents_are_rendered_and_derived_again_byte_for_byte(closed_month: Terminal, tmp_path: Path) -> None:
    closed_month.done("invoice", "pdf", "--all", "--out", tmp_path / "all")
    closed_month.done("invoice", "pdf", "INV-2026-00001", "--out", tmp_path / "one")
    closed_month.done("invoice", "rebuild", "INV-2026-00001", "--out", tmp_path / "again")
    names = sorted(file.name for file in (tmp_path / "all").iterdir())
    assert names == ["INV-2026-00001.pdf", "STM-2026-00001.pdf"]
    pages = {(tmp_path / folder / names[0]).read_bytes() for folder in ("all", "one", "again")}
    assert len(pages) == 1


def test_an_explanation_leads_to_the_line_of_the_log(closed_month: Terminal) -> None:
    parts = closed_month.done("invoice", "explain", "INV-2026-00001", "--line", "1", "--format", "json").json()
    named = {part["table"]: part["rows"] for part in parts}
    assert list(named) == ["lines", "as_of", "rounding", "days", "draws", "rollup", "events"]
    [event] = named["events"]
    assert (event["job"], event["cpus"]) == ("11", 8)
    assert '"line":12' in event["evidence"]
    rows = closed_month.done("invoice", "explain", "INV-2026-00001", "--line", "1", "--format", "csv").rows()
    assert [row["amount"] for row in rows if row["table"] == "draws"] == ["8.00"]
    shown = closed_month.done("invoice", "explain", "INV-2026-00001", "--line", "1").out
    assert "log.psv" in shown
    assert closed_month("invoice", "explain", "INV-2026-00001", "--line", "7").code == 1


def test_a_payment_counts_once_and_never_more_than_is_open(closed_month: Terminal, tmp_path: Path) -> None:
    terminal = copy_of(closed_month, tmp_path)
    pay = ("invoice", "pay", "INV-2026-00001")
    assert "3.00 CNY recorded" in terminal.done(*pay, "3.00", "--reference", "bank 7").out
    assert "already there" in terminal.done(*pay, "3.00", "--reference", "bank 7").out
    assert terminal(*pay, "4.00", "--reference", "bank 7").code == 1
    too_much = terminal(*pay, "5.01", "--reference", "bank 8")
    assert (too_much.code, "has 5.00 open" in too_much.err) == (1, True)
    assert "settled by topping up" in terminal("invoice", "pay", "STM-2026-00001", "1.00", "--reference", "b").err
    documents = terminal.done("invoice", "list", "2026-11", "--format", "csv").rows()
    assert [one["paid"] for one in documents] == ["3.00", ""]


def test_a_top_up_counts_once_and_only_for_what_the_customer_has(closed_month: Terminal, tmp_path: Path) -> None:
    terminal = copy_of(closed_month, tmp_path)
    assert balance(terminal, "u-north")["prepaid"] == "60.00"
    top_up = ("topup", "u-north", "500.00", "--reference", "bank 9")
    assert "500.00 CNY received" in terminal.done(*top_up, "--contract", "HT-1", "--project", "physics").out
    assert "already there" in terminal.done(*top_up, "--contract", "HT-1", "--project", "physics").out
    assert balance(terminal, "u-north")["prepaid"] == "560.00"
    other = terminal("topup", "u-north", "501.00", "--reference", "bank 9")
    assert (other.code, "500.00, not 501.00" in " ".join(other.err.split())) == (1, True)
    for wrong in (("--contract", "HT-2"), ("--project", "rd")):
        answer = terminal("topup", "u-north", "1.00", "--reference", "bank 10", *wrong)
        assert (answer.code, f"u-north has no {wrong[0][2:]}" in answer.err) == (1, True)
    assert balance(terminal, "u-north")["prepaid"] == "560.00"


def test_lines_of_a_bill_that_cannot_be_read_are_named_until_they_are_settled(
    closed_month: Terminal, tmp_path: Path
) -> None:
    terminal, bill = copy_of(closed_month, tmp_path), tmp_path / "bill.csv"
    bill.write_text(BILL, encoding="utf-8")
    arguments = ("import", "bill", bill, "--supplier", "gz", "--month", "2026-11")
    imported = terminal.done(*arguments, "--format", "csv")
    assert [(row["line"], row["code"]) for row in imported.rows()] == [("3", "not_a_number"), ("4", "wrong_month")]
    assert "must be settled with gz" in imported.err
    assert "already there" in terminal.done(*arguments).out
    answer = terminal.done("reconcile", "2026-11", "--format", "csv")
    assert "2 line(s) of the bill of gz could not be read and must be settled" in answer.err
    tables = {row["table"] for row in answer.rows()}
    assert tables == {"items", "differences", "rejected", "margin"}
    found = [(row["kind"], row["login"]) for row in answer.rows() if row["table"] == "differences"]
    assert found == [("unbilled_usage", "rd")]
    assert "eight" in terminal.done("reconcile", "2026-11").out
    bill.write_text(BILL.replace("eight", "8").replace("2026-10", "2026-11").replace("3,", "4,", 1), encoding="utf-8")
    assert "version 2" in terminal.done(*arguments).out


@pytest.mark.parametrize("month", ["2026-10", "2026-11", "2026-12"])
def test_a_month_without_a_bill_says_so(closed_month: Terminal, tmp_path: Path, month: str) -> None:
    answer = closed_month.done("reconcile", month, "--supplier", "gz", "--out", tmp_path / "reports")
    assert "no bill yet: its cost is accrued" in answer.out
    assert (tmp_path / "reports" / f"gz-{month}.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "reports" / f"margin-{month}.csv").is_file()


def test_usage_over_the_border_of_a_month_can_be_reconciled_on_both_sides(
    closed_month: Terminal, tmp_path: Path
) -> None:
    # From six hours before midnight in Shanghai until six hours after it; cut nowhere else.
    terminal, midnight = copy_of(closed_month, tmp_path), 1_796_054_400
    times = {"Submit": midnight - 21_600, "Start": midnight - 21_600, "End": midnight + 3600, "ElapsedRaw": 25_200}
    log = sacct_file(tmp_path / "late.psv", [sacct_row(99, times)])
    terminal.done("import", "slurm", log, "--cluster", "hpc1")
    for month, hours in (("2026-11", "72.0000"), ("2026-12", "4.0000")):
        rows = terminal.done("reconcile", month, "--format", "csv").rows()
        assert [row["metered_quantity"] for row in rows if row["table"] == "items"] == [hours]


def test_the_books_hold_together(closed_month: Terminal) -> None:
    rows = closed_month.done("verify", "--format", "csv").rows()
    assert {row["result"] for row in rows} == {"holds"}
    assert len(rows) > 10
