"""What blocks a close, by name and with the command that resolves it; and a close has one effect."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hourbook.closing import Closed, CloseRefusedError, close_month, draft_month

from .month_stories import Operator, Run, codes, lines_of


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    """December has come, and November had ten core-hours of physics."""
    made = Operator(tmp_path)
    made.used(Run("known", "physics", "2026-11-03T08:00", core_hours=10))
    made.at("2026-12-02T10:00")
    yield made
    made.home.close()


def entry_of(command: str) -> str:
    """The entry that a command names."""
    return command.partition("resolve ")[2].partition(" ")[0]


def test_usage_of_an_unknown_account_blocks_until_it_is_mapped(operator: Operator) -> None:
    operator.used(Run("stranger", "grp_new", "2026-11-04T08:00", core_hours=5))
    ((code, command),) = operator.blocked("2026-11")
    assert code == "unassigned"
    assert command.endswith("--map CUSTOMER/PROJECT --reason TEXT")
    operator.resolve(entry_of(command), project="u-pre/chem")
    operator.close("2026-11")
    assert operator.document("2026-11", "u-pre").total_minor == 150


def test_usage_in_an_unknown_partition_blocks_until_the_partition_is_described(operator: Operator) -> None:
    operator.used(Run("odd", "physics", "2026-11-04T08:00", core_hours=5, partition="debug"))
    blockers = operator.blocked("2026-11")
    assert set(codes(blockers)) == {"unknown_partition"}
    assert all("hourbook apply" in command for _, command in blockers)
    operator.apply('[[clusters]]\nname = "hpc1"\ntimezone = "Asia/Shanghai"\npartitions = ["cpu", "debug"]\n')
    operator.close("2026-11")
    assert operator.document("2026-11", "u-pre").total_minor == 150


def test_cards_of_an_unknown_type_block_until_a_rule_says_what_they_are(operator: Operator) -> None:
    operator.used(Run("cards", "llm", "2026-11-04T08:00", card_hours=2, card="h100"))
    ((code, command),) = operator.blocked("2026-11")
    assert code == "unmatched"
    assert "hourbook apply" in command
    operator.apply('[[sku_rules]]\norder = 6\nresource = "card:h100"\nsku = "card-hour"\n')
    operator.close("2026-11")
    assert operator.document("2026-11", "c-line", "invoice").total_minor == 1600


def test_usage_from_before_the_first_price_blocks_until_it_is_priced(operator: Operator) -> None:
    operator.used(Run("early", "physics", "2026-09-30T08:00", core_hours=5))
    ((code, command),) = operator.blocked("2026-09")
    assert code == "unpriced"
    assert "hourbook apply" in command
    operator.apply('[[prices]]\nsku = "core-hour"\neffective_from = 2026-09-01\nunit_price = 0.30\n')
    operator.close("2026-09")
    assert operator.document("2026-09", "u-pre").total_minor == 150


def test_usage_of_a_customer_without_a_contract_blocks_until_there_is_one(operator: Operator) -> None:
    operator.apply(
        '[[customers]]\nid = "new"\nname = "新客户"\nkind = "company"\nprojects = [{ id = "p", name = "P" }]\n'
        '[[mappings]]\ncluster = "*"\naccount = "grp_new"\nproject = "new/p"\n'
    )
    operator.used(Run("unsigned", "grp_new", "2026-11-04T08:00", core_hours=5))
    assert codes(operator.blocked("2026-11")) == ["no_contract"]
    operator.apply(
        '[[contracts]]\nnumber = "HT-NEW"\ncustomer = "new"\nsigned_on = 2026-11-01\nvalid_from = 2026-11-01\n'
        'last_day = 2027-10-31\nbilling = "prepaid"\n'
    )
    operator.close("2026-11")
    assert operator.document("2026-11", "new").total_minor == 50


@pytest.mark.parametrize("decision", ["write_off", "dismiss"])
def test_open_quarantine_of_the_month_blocks_until_somebody_decides(operator: Operator, decision: str) -> None:
    operator.sacct(
        "12|2026-11-05T08:00:00|2026-11-05T08:00:00|2026-11-05T07:00:00|COMPLETED|3600|0|cpu=1|g|u|cpu|n|hpc1"
    )
    ((_, command),) = operator.blocked("2026-11")
    assert "hourbook quarantine show Q-1" in command
    operator.resolve(entry_of(command), **{decision: True})
    operator.close("2026-11")


def test_open_quarantine_of_no_known_month_blocks_every_close(operator: Operator) -> None:
    operator.sacct("a row|of which|nothing|can be|read")
    assert len(operator.blocked("2026-11")) == 1
    operator.resolve("Q-1", dismiss=True)
    assert operator.blocked("2026-11") == []


def test_quarantine_of_a_later_month_does_not_block(operator: Operator) -> None:
    operator.at("2027-01-05T10:00")
    operator.sacct(
        "12|2026-12-05T08:00:00|2026-12-05T08:00:00|2026-12-05T07:00:00|COMPLETED|3600|0|cpu=1|g|u|cpu|n|hpc1"
    )
    assert operator.blocked("2026-11") == []
    assert len(operator.blocked("2026-12")) == 1


def test_what_is_written_off_is_counted_and_not_charged(operator: Operator) -> None:
    operator.used(Run("stranger", "grp_new", "2026-11-04T08:00", core_hours=5))
    ((_, command),) = operator.blocked("2026-11")
    operator.resolve(entry_of(command), write_off=True)
    operator.close("2026-11")
    assert [one.total_minor for one in operator.documents()] == [0, 0, 100]
    _, blockers = draft_month(operator.home, "2026-12")
    assert [blocker.code for blocker in blockers] == ["not_over"]


def test_more_usage_than_was_written_off_blocks_again(operator: Operator) -> None:
    operator.used(Run("stranger", "grp_new", "2026-11-04T08:00", core_hours=5))
    ((_, command),) = operator.blocked("2026-11")
    operator.resolve(entry_of(command), write_off=True)
    operator.used(Run("stranger-2", "grp_new", "2026-11-04T09:00", core_hours=1))
    ((code, again),) = operator.blocked("2026-11")
    assert (code, entry_of(again)) == ("unassigned", entry_of(command))
    operator.resolve(entry_of(again), project="u-pre/chem")
    operator.close("2026-11")
    assert operator.document("2026-11", "u-pre").total_minor == 160


def test_a_month_that_is_not_over_is_refused_in_the_zone_of_its_contracts(operator: Operator) -> None:
    operator.at("2026-11-30T23:59")
    assert codes(operator.blocked("2026-11")) == ["not_over"]
    operator.at("2026-12-01T00:00")
    assert operator.blocked("2026-11") == []


def test_a_contract_in_a_zone_further_west_is_waited_for(operator: Operator) -> None:
    operator.apply(
        '[[customers]]\nid = "west"\nname = "West"\nkind = "company"\n'
        '[[contracts]]\nnumber = "HT-W"\ncustomer = "west"\nsigned_on = 2026-11-01\nvalid_from = 2026-11-01\n'
        'last_day = 2027-10-31\nbilling = "prepaid"\ntimezone = "America/New_York"\n'
    )
    operator.at("2026-12-01T12:59")  # in New York, it is November for another minute
    assert codes(operator.blocked("2026-11")) == ["not_over"]
    operator.at("2026-12-01T13:00")
    assert operator.blocked("2026-11") == []


def test_an_earlier_open_month_with_charges_blocks(operator: Operator) -> None:
    operator.used(Run("october", "chem", "2026-10-03T08:00", core_hours=1))
    assert operator.blocked("2026-11") == [("earlier_month", "hourbook close 2026-10")]
    operator.close("2026-10")
    operator.close("2026-11")


def test_an_earlier_month_without_charges_is_settled_with_the_later(operator: Operator) -> None:
    operator.at("2027-01-02T10:00")
    operator.close("2026-11")
    operator.at("2027-02-02T10:00")
    operator.used(Run("january", "physics", "2027-01-03T08:00", core_hours=1))
    operator.close("2027-01")
    assert operator.blocked("2026-12") == [("settled", "hourbook close 2027-02")]


def test_a_month_closed_twice_changes_nothing(operator: Operator) -> None:
    first = operator.close("2026-11")
    booked = operator.booked()
    operator.used(Run("late", "physics", "2026-11-09T08:00", core_hours=3))
    again = close_month(operator.home, "2026-11")
    assert again == Closed("2026-11", first.documents, repeated=True)
    assert operator.booked() == booked


def test_two_threads_closing_at_once_issue_one_set(operator: Operator) -> None:
    operator.top_up("u-pre", "5.00", "r1", "2026-11-01")
    with ThreadPoolExecutor(2) as pool:
        closed = list(pool.map(lambda _: close_month(operator.home, "2026-11"), range(2)))
    assert closed[0].documents == closed[1].documents == tuple(operator.documents())
    assert [one.number for one in operator.documents()] == ["STM-2026-00001", "STM-2026-00002", "STM-2026-00003"]
    assert operator.booked("u-pre")["liabilities:vat_payable"] == -6


def test_usage_that_arrives_just_before_the_close_may_take_what_the_next_month_drew(operator: Operator) -> None:
    operator.top_up("u-pre", "1.50", "r1", "2026-11-01")
    operator.used(Run("december", "physics", "2026-12-01T08:00", core_hours=10))
    operator.accrue()
    assert operator.booked("u-pre")["assets:receivable:arrears"] == 150
    operator.used(Run("late", "physics", "2026-11-09T08:00", core_hours=5))
    operator.close("2026-11")
    assert operator.document("2026-11", "u-pre").lines[0].parts == {"lot": 150}
    operator.accrue()
    assert operator.booked("u-pre")["assets:receivable:arrears"] == 200


def test_months_that_exchange_two_lots_are_posted_without_either_running_short(operator: Operator) -> None:
    operator.top_up("u-pre", "1.00", "any", "2026-11-01")
    operator.top_up("u-pre", "1.00", "physics-only", "2026-11-01", project="physics")
    operator.used(
        Run("chem", "chem", "2026-11-05T08:00", core_hours=10, revision=1),
        Run("known", "physics", "2026-11-03T08:00", core_hours=0, revision=2),
        Run("december", "physics", "2026-12-01T08:00", core_hours=5),
    )
    operator.accrue()
    # November took the free money and December the bound; now it is the other way round.
    operator.used(
        Run("chem", "chem", "2026-11-05T08:00", core_hours=0, revision=2),
        Run("known", "physics", "2026-11-03T08:00", core_hours=10, revision=3),
        Run("chem-december", "chem", "2026-12-01T09:00", core_hours=5),
    )
    operator.close("2026-11")
    assert operator.document("2026-11", "u-pre").total_minor == 100
    assert operator.booked("u-pre")["assets:receivable:arrears"] == 100


def test_the_refusal_names_the_month_and_counts_what_blocks(operator: Operator) -> None:
    operator.at("2026-11-20T10:00")
    operator.used(Run("stranger", "grp_new", "2026-11-04T08:00", core_hours=5))
    with pytest.raises(CloseRefusedError, match="2026-11 cannot be closed: 2 thing"):
        close_month(operator.home, "2026-11")


def test_a_document_names_its_customer_and_where_each_price_comes_from(operator: Operator) -> None:
    operator.close("2026-11")
    document = operator.document("2026-11", "u-pre")
    assert (document.customer.name, document.customer.email) == ("北方大学", "finance@north.example.edu")
    assert [line.price_source for line in document.lines] == ["价目表 2026-10-01"]


def test_a_line_stands_on_both_documents_with_the_part_drawn_there(operator: Operator) -> None:
    operator.used(Run("cards", "dev", "2026-11-05T08:00", card_hours=20))
    operator.top_up("c-both", "60.00", "r1", "2026-11-02")
    operator.close("2026-11")
    invoice, statement = (operator.document("2026-11", "c-both", kind) for kind in ("invoice", "statement"))
    assert [amount for *_, amount in lines_of(invoice)] == [2000, 3000]
    assert [amount for *_, amount in lines_of(statement)] == [6000, 3000]
    assert [line.tier for line in invoice.lines] == [1, 2]
    assert invoice.total_minor + statement.total_minor == 10 * 800 + 10 * 600
    assert operator.rebuilt() == []
