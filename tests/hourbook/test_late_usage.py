"""What is learned after a close is charged, or given back, in the next month, with the original month shown."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from hourbook.closing import draft_month
from hourbook.database import read_session
from hourbook.explaining import explain_document

from .month_stories import Operator, Run, codes, lines_of


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    made = Operator(tmp_path)
    yield made
    made.home.close()


def close_october(operator: Operator, *runs: Run) -> None:
    operator.used(*runs)
    operator.at("2026-11-03T10:00")
    operator.close("2026-10")


def close_november(operator: Operator, *runs: Run) -> None:
    """Let usage arrive after October was closed, and close November."""
    operator.at("2026-12-03T10:00")
    if runs:
        operator.used(*runs)
    operator.close("2026-11")
    assert operator.rebuilt() == []


def close_december(operator: Operator, *runs: Run) -> None:
    """Let usage arrive after November was closed, and close December."""
    operator.at("2027-01-03T10:00")
    operator.used(*runs)
    operator.close("2026-12")
    assert operator.rebuilt() == []


def test_late_usage_is_an_adjustment_at_the_price_of_its_day(operator: Operator) -> None:
    operator.used(Run("known", "physics", "2026-11-03T08:00", core_hours=10))
    operator.at("2026-12-03T10:00")
    operator.close("2026-11")
    close_december(
        operator,
        Run("late-cheap", "physics", "2026-11-15T23:00", core_hours=7),
        Run("late-dear", "chem", "2026-11-16T00:00", core_hours=3),
        Run("own", "physics", "2026-12-01T08:00", core_hours=1),
    )
    december = operator.document("2026-12", "u-pre")
    assert lines_of(december) == [
        ("Usage", "2026-12", "core-hour", Decimal(1), 20),
        ("Adjustment", "2026-11", "core-hour", Decimal(7), 70),
        ("Adjustment", "2026-11", "core-hour", Decimal(3), 60),
    ]
    assert [line.price_source[-10:] for line in december.lines] == ["2026-11-16", "2026-10-01", "2026-11-16"]
    assert operator.document("2026-11", "u-pre").total_minor == 100


def test_late_usage_counts_into_the_tiers_of_its_month(operator: Operator) -> None:
    close_october(operator, Run("known", "llm", "2026-10-20T08:00", card_hours=8))
    # Nine more on an earlier day: two fill the first tier, seven stand in the second.
    close_november(operator, Run("late", "llm", "2026-10-05T08:00", card_hours=9, user="bob"))
    invoice = operator.document("2026-11", "c-line", "invoice")
    lines = [(line.tier, line.quantity, line.line_amount_minor) for line in invoice.lines]
    assert lines == [(1, "2", 1600), (2, "7", 4200)]
    assert operator.document("2026-10", "c-line", "invoice").total_minor == 6400
    assert operator.balance("c-line").billed_minor == 10000
    assert operator.balance("c-line").arrears_minor == 10 * 800 + 7 * 600 - 10000


def test_usage_of_a_month_before_the_first_close_is_charged_with_the_next(operator: Operator) -> None:
    operator.used(Run("known", "physics", "2026-11-03T08:00", core_hours=10))
    operator.at("2026-12-03T10:00")
    operator.close("2026-11")
    close_december(operator, Run("much-too-late", "physics", "2026-10-05T08:00", core_hours=4))
    assert lines_of(operator.document("2026-12", "u-pre")) == [("Adjustment", "2026-10", "core-hour", Decimal(4), 40)]


def test_late_usage_that_nobody_can_be_charged_for_blocks_the_next_close(operator: Operator) -> None:
    close_october(operator, Run("known", "physics", "2026-10-05T08:00", core_hours=1))
    operator.used(Run("late", "grp_new", "2026-10-06T08:00", core_hours=2))
    operator.at("2026-12-03T10:00")
    ((code, command),) = operator.blocked("2026-11")
    assert code == "unassigned"
    operator.resolve(command.split()[2], project="u-pre/chem")
    operator.close("2026-11")
    assert lines_of(operator.document("2026-11", "u-pre")) == [("Adjustment", "2026-10", "core-hour", Decimal(2), 20)]


def test_late_rows_that_cannot_be_read_block_the_next_close(operator: Operator) -> None:
    close_october(operator, Run("known", "physics", "2026-10-05T08:00", core_hours=1))
    operator.at("2027-01-03T10:00")
    operator.close("2026-11")
    operator.sacct(
        "12|2026-10-05T08:00:00|2026-10-05T08:00:00|2026-10-05T07:00:00|COMPLETED|3600|0|cpu=1|g|u|cpu|n|hpc1"
    )
    assert len(operator.blocked("2026-12")) == 1


def test_a_correction_gives_a_lot_its_money_back(operator: Operator) -> None:
    operator.top_up("u-pre", "10.00", "r1", "2026-10-01")
    close_october(operator, Run("job", "physics", "2026-10-05T08:00", core_hours=50))
    close_november(operator, Run("job", "physics", "2026-10-05T08:00", core_hours=20, revision=2))
    statement = operator.document("2026-11", "u-pre")
    assert lines_of(statement) == [("Adjustment", "2026-10", "core-hour", Decimal(-30), -300)]
    assert statement.tax_minor == -18  # of 57 in the lot 29 were released on 500, and 11 are on 200
    wallet = operator.wallet("2026-11", "u-pre")
    assert (wallet.opening_minor, wallet.drawn_minor, wallet.closing_minor) == (500, -300, 800)


def test_a_correction_frees_the_credit_line_that_it_had_taken(operator: Operator) -> None:
    close_october(operator, Run("job", "llm", "2026-10-05T08:00", card_hours=10))
    close_november(operator, Run("job", "llm", "2026-10-05T08:00", card_hours=4, revision=2))
    assert operator.document("2026-11", "c-line", "invoice").total_minor == -4800
    assert operator.balance("c-line").credit_used_minor == 3200


def test_a_correction_gives_a_pack_its_hours_back(operator: Operator) -> None:
    close_october(operator, Run("job", "bio", "2026-10-05T08:00", core_hours=60))
    close_november(operator, Run("job", "bio", "2026-10-05T08:00", core_hours=10, revision=2))
    (pack,) = operator.wallet("2026-11", "u-pack").packs
    assert (pack.opening, pack.drawn, pack.closing) == ("40", "-50", "90")
    assert operator.document("2026-11", "u-pack").total_minor == -350


def test_a_correction_gives_a_grant_its_value_back(operator: Operator) -> None:
    close_october(operator, Run("job", "own", "2026-10-05T08:00", core_hours=70))
    assert operator.document("2026-10", "p-grant").lines[0].parts == {"arrears": 200, "grant": 500}
    close_november(operator, Run("job", "own", "2026-10-05T08:00", core_hours=20, revision=2))
    # What was taken last comes back first: the arrears, then the grant.
    assert operator.document("2026-11", "p-grant").lines[0].parts == {"arrears": -200, "grant": -300}
    (grant,) = operator.wallet("2026-11", "p-grant").grants
    assert (grant.opening_minor, grant.drawn_minor, grant.closing_minor) == (0, -300, 300)


def test_usage_that_is_taken_back_whole_leaves_nothing_charged(operator: Operator) -> None:
    operator.top_up("u-pre", "10.00", "r1", "2026-10-01")
    close_october(operator, Run("job", "physics", "2026-10-05T08:00", core_hours=50))
    close_november(operator, Run("job", "physics", "2026-10-05T08:00", revision=2))
    assert operator.wallet("2026-11", "u-pre").closing_minor == 1000
    booked = operator.booked("u-pre")
    assert booked == {"liabilities:contract": -943, "liabilities:vat_pending": -57}


def test_late_usage_draws_what_is_left_of_a_pack_that_was_used_further_since(operator: Operator) -> None:
    close_october(operator, Run("october", "bio", "2026-10-05T08:00", core_hours=60))
    close_november(operator, Run("november", "bio", "2026-11-05T08:00", core_hours=30))
    close_december(operator, Run("late", "bio", "2026-10-06T08:00", core_hours=25))
    december = operator.document("2026-12", "u-pack")
    assert lines_of(december) == [
        ("Adjustment", "2026-10", "core-hour", Decimal(15), 150),
        ("Adjustment", "2026-10", "core-hour", Decimal(10), 70),
    ]
    assert operator.wallet("2026-12", "u-pack").packs[0].closing == "0"


def test_a_correction_takes_back_what_was_charged_and_not_what_a_pack_would_give_now(operator: Operator) -> None:
    close_october(operator, Run("october", "bio", "2026-10-05T08:00", core_hours=60))
    close_november(
        operator,
        Run("late", "bio", "2026-10-06T08:00", core_hours=40),
        Run("november", "bio", "2026-11-05T08:00", core_hours=40),
    )
    # The late hours emptied the pack, so November paid the price book.
    assert sorted(amount for *_, amount in lines_of(operator.document("2026-11", "u-pack"))) == [280, 400]
    close_december(
        operator,
        Run("late", "bio", "2026-10-06T08:00", revision=2),
        Run("november", "bio", "2026-11-05T08:00", revision=2),
    )
    assert sorted(amount for *_, amount in lines_of(operator.document("2026-12", "u-pack"))) == [-400, -280]
    assert operator.wallet("2026-12", "u-pack").packs[0].closing == "40"
    assert "assets:receivable:arrears" not in operator.booked("u-pack")


def test_a_price_that_is_corrected_afterwards_is_charged_with_the_next_month(operator: Operator) -> None:
    close_october(operator, Run("job", "physics", "2026-10-05T08:00", core_hours=50))
    operator.apply('[[prices]]\nsku = "core-hour"\neffective_from = 2026-10-01\nunit_price = 0.08\n')
    close_november(operator)
    (line,) = operator.document("2026-11", "u-pre").lines
    assert (line.category, line.original_month, line.amount_minor) == ("Adjustment", "2026-10", -100)
    assert line.price_source == "价目表 2026-10-01 · 50 × 0.1 → 50 × 0.08"
    assert operator.balance("u-pre").arrears_minor == 400


def test_a_new_price_inside_a_closed_month_moves_usage_from_one_line_to_the_other(operator: Operator) -> None:
    close_october(operator, Run("job", "physics", "2026-10-20T08:00", core_hours=50))
    operator.apply('[[prices]]\nsku = "core-hour"\neffective_from = 2026-10-15\nunit_price = 0.30\n')
    close_november(operator)
    assert lines_of(operator.document("2026-11", "u-pre")) == [
        ("Adjustment", "2026-10", "core-hour", Decimal(-50), -500),
        ("Adjustment", "2026-10", "core-hour", Decimal(50), 1500),
    ]


def test_configuration_that_changes_nothing_of_a_closed_month_adjusts_nothing(operator: Operator) -> None:
    close_october(operator, Run("job", "bio", "2026-10-05T08:00", core_hours=50))
    operator.apply(
        '[[prices]]\nsku = "core-hour"\neffective_from = 2026-11-10\nunit_price = 0.50\n'
        '[[customers]]\nid = "new"\nname = "新客户"\nkind = "company"\n'
    )
    operator.at("2026-12-03T10:00")
    contents, _ = draft_month(operator.home, "2026-11")
    assert [line for content in contents for line in content.lines] == []


def test_a_ticket_entered_late_is_charged_with_the_next_month(operator: Operator) -> None:
    close_october(operator, Run("job", "physics", "2026-10-05T08:00", core_hours=1))
    operator.apply(
        '[[one_off_charges]]\nid = "t-1"\ncustomer = "c-line"\ncontract = "HT-LINE"\nsku = "ticket"\non = 2026-10-12\n'
    )
    close_november(operator)
    (line,) = operator.document("2026-11", "c-line", "invoice").lines
    assert (line.category, line.original_month, line.price_source) == ("Adjustment", "2026-10", "One-off charge t-1")
    assert operator.document("2026-11", "c-line", "invoice").total_minor == 10000
    assert operator.document("2026-11", "c-line", "statement").total_minor == 180000


def test_an_adjustment_is_explained_down_to_its_late_event(operator: Operator) -> None:
    close_october(operator, Run("known", "physics", "2026-10-05T08:00", core_hours=1))
    close_november(operator, Run("late", "physics", "2026-10-06T08:00", core_hours=2))
    with read_session(operator.home.engine) as session:
        number = operator.document("2026-11", "u-pre").number
        sections = {title: rows for title, _, rows in explain_document(operator.home, session, number, 1)}
    assert [row["amount"] for row in sections["by day, project, user, cluster"]] == ["0.20"]
    assert [row["id"] for row in sections["events"]] == ["known", "late"]
    assert {row["file"].rsplit("/")[-1] for row in sections["events"]} == {"given-2.json", "given-3.json"}


def test_nothing_blocks_a_month_whose_settled_months_are_quiet(operator: Operator) -> None:
    close_october(operator, Run("known", "physics", "2026-10-05T08:00", core_hours=1))
    operator.at("2026-12-03T10:00")
    assert codes(operator.blocked("2026-11")) == []
