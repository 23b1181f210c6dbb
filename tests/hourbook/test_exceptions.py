"""What a person sees of usage that cannot be charged, and what can be decided about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hourbook.exceptions import Decision, ResolutionError, list_open, resolve_exception, show_open

from .month_stories import Operator, Run

TORN = "12|2026-11-05T08:00:00|2026-11-05T08:00:00|2026-11-05T07:00:00|COMPLETED|3600|0|cpu=1|g|u|cpu|n|hpc1"


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    """November holds usage of an account that nobody knows, and a row that cannot be."""
    made = Operator(tmp_path)
    made.used(Run("stranger", "grp_new", "2026-11-04T08:00", core_hours=5))
    made.sacct(TORN)
    yield made
    made.home.close()


def stranger(operator: Operator) -> str:
    (entry,) = [row["id"] for row in list_open(operator.home) if row["code"] == "unassigned"]
    return str(entry)


def test_both_are_listed_with_what_to_do(operator: Operator) -> None:
    rows = {row["id"]: row for row in list_open(operator.home)}
    assert {row["month"] for row in rows.values()} == {"2026-11"}
    assert "account grp_new, user alice" in rows[stranger(operator)]["message"]
    assert "[[mappings]]" in rows[stranger(operator)]["message"]


def test_usage_is_shown_with_its_quantity_and_a_row_with_exactly_what_arrived(operator: Operator) -> None:
    shown = show_open(operator.home, stranger(operator))
    assert shown["quantity"].startswith(str(5 * 3600))
    assert show_open(operator.home, "Q-1")["as it arrived"] == TORN


def test_a_mapping_charges_the_usage_to_the_project_named(operator: Operator) -> None:
    operator.resolve(stranger(operator), project="u-pre/chem")
    assert operator.balance("u-pre").arrears_minor == 50
    assert [row["id"] for row in list_open(operator.home)] == ["Q-1"]


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"project": "u-pre/none"}, "none"),
        ({"project": "nobody/chem"}, "nobody"),
        ({"dismiss": True}, "map it or write it off"),
    ],
)
def test_a_decision_that_makes_no_sense_for_usage_is_refused(
    operator: Operator, decision: dict[str, str], message: str
) -> None:
    with pytest.raises(ResolutionError, match=message):
        resolve_exception(operator.home, Decision(stranger(operator), "why", **decision))  # type: ignore[arg-type]
    assert len(list_open(operator.home)) == 2


def test_a_row_that_cannot_be_read_cannot_be_mapped(operator: Operator) -> None:
    with pytest.raises(ResolutionError, match="--write-off or --dismiss"):
        operator.resolve("Q-1", project="u-pre/chem")


def test_a_row_is_decided_on_once(operator: Operator) -> None:
    operator.resolve("Q-1", dismiss=True)
    with pytest.raises(ResolutionError, match="dismissed already: as the story says"):
        operator.resolve("Q-1", write_off=True)


def test_usage_without_a_price_is_not_helped_by_a_mapping(operator: Operator) -> None:
    operator.used(Run("early", "physics", "2026-09-30T08:00", core_hours=5))
    (entry,) = [row["id"] for row in list_open(operator.home) if row["code"] == "unpriced"]
    with pytest.raises(ResolutionError, match="mapping does not help"):
        operator.resolve(entry, project="u-pre/chem")


def test_an_entry_that_does_not_exist_is_refused(operator: Operator) -> None:
    for entry in ("U-00000000", "Q-99"):
        with pytest.raises(LookupError, match="quarantine list"):
            operator.resolve(entry, write_off=True)


def test_usage_whose_mapping_ended_gets_a_new_one_beside_the_old(operator: Operator) -> None:
    operator.apply(
        '[[mappings]]\ncluster = "hpc1"\naccount = "grp_old"\nuser = "alice"\nproject = "u-pre/physics"\n'
        "last_day = 2026-11-10\n"
    )
    operator.used(
        Run("before", "grp_old", "2026-11-09T08:00", core_hours=1),
        Run("after", "grp_old", "2026-11-12T08:00", core_hours=2),
    )
    (entry,) = [row["id"] for row in list_open(operator.home) if "grp_old" in row["message"]]
    operator.resolve(entry, project="p-grant/own")
    assert operator.balance("u-pre").arrears_minor == 10
    assert [lot.rest for lot in operator.balance("p-grant").lots] == ["4.80"]


def test_usage_that_names_nobody_is_not_mapped_with_everybody_else(operator: Operator) -> None:
    operator.sacct(
        "7|2026-11-05T08:00:00|2026-11-05T08:00:00|2026-11-05T09:00:00|COMPLETED|3600|0|cpu=1,node=1|||cpu|n|hpc1"
    )
    (entry,) = [row["id"] for row in list_open(operator.home) if "account (none)" in row["message"]]
    with pytest.raises(ResolutionError, match="names neither account nor user"):
        operator.resolve(entry, project="u-pre/chem")
    operator.resolve(entry, write_off=True)
    assert stranger(operator)
