"""The operator's words about an event: amended, retracted, reverted, backfilled; before and after a close."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest

from hourbook.amending import Spoken, say_word
from hourbook.database import read_session
from hourbook.event_history import EventHistory, event_history
from hourbook.explaining import explain_document
from metering.amendments import AmendmentRefusedError, Kind, UnknownEventError, Word, word_number
from tests.hourbook.month_stories import Operator, Run, lines_of

NOVEMBER, DECEMBER = "2026-11", "2026-12"
JOB = Run("j-1", "llm", "2026-11-03T08:00", core_hours=10)


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """An operator with one job of ten core-hours in November, whose prices are 0.10, and 0.20 from the 16th."""
    operator = Operator(tmp_path)
    operator.used(JOB)
    return operator


def say(operator: Operator, kind: Kind, *, dry_run: bool = False, **changes: str | int) -> Spoken:
    word = Word(kind, "node failed, the ticket says so", "lin", changes or None)
    return say_word(operator.home, "stories", "j-1", word, dry_run=dry_run)


def history(operator: Operator) -> EventHistory:
    operator.accrue()
    with read_session(operator.home.engine) as session:
        return event_history(operator.home, session, "stories", "j-1")


def close_november(operator: Operator) -> None:
    operator.at("2026-12-01T10:00")
    operator.close(NOVEMBER)


def test_an_amended_event_counts_as_the_operator_says(operator: Operator) -> None:
    said = say(operator, "amend", cpus=4)
    (effect,) = said.effects
    assert (effect.month, effect.closed, effect.difference["core_hours"]) == (NOVEMBER, False, "-6.000000")
    assert operator.balance("c-line").credit_used_minor == 40


def test_a_preview_says_the_same_and_records_nothing(operator: Operator) -> None:
    preview = say(operator, "amend", dry_run=True, cpus=4)
    assert operator.balance("c-line").credit_used_minor == 100
    assert preview.effects == say(operator, "amend", cpus=4).effects
    assert preview.batch == 0


def test_a_word_stands_before_what_the_source_says_later_until_it_is_reverted(operator: Operator) -> None:
    say(operator, "retract")
    operator.used(Run("j-1", "llm", "2026-11-03T08:00", core_hours=20, revision=7))
    assert operator.balance("c-line").credit_used_minor == 0
    say(operator, "revert")
    assert operator.balance("c-line").credit_used_minor == 200


def test_after_the_close_an_amendment_is_an_adjustment_and_its_revert_brings_it_back(operator: Operator) -> None:
    close_november(operator)
    said = say(operator, "amend", cpus=4)
    assert said.adjusts == (NOVEMBER,)
    operator.used(Run("j-2", "llm", "2026-12-01T08:00", core_hours=100))
    operator.at("2027-01-01T10:00")
    operator.close(DECEMBER)
    december = lines_of(operator.document(DECEMBER, "c-line", "invoice"))
    assert ("Adjustment", NOVEMBER, "core-hour") in [line[:3] for line in december]
    assert sum(line[4] for line in december) == 2000 - 60
    say(operator, "revert")
    operator.used(Run("j-3", "llm", "2027-01-01T08:00", core_hours=100))
    operator.at("2027-02-01T10:00")
    operator.close("2027-01")
    january = lines_of(operator.document("2027-01", "c-line", "invoice"))
    assert sum(line[4] for line in january) == 2000 + 60
    assert operator.rebuilt() == []


def test_a_word_that_is_reverted_before_the_next_close_leaves_no_line(operator: Operator) -> None:
    close_november(operator)
    say(operator, "retract")
    say(operator, "revert")
    operator.used(Run("j-2", "llm", "2026-12-01T08:00", core_hours=100))
    operator.at("2027-01-01T10:00")
    operator.close(DECEMBER)
    assert [line[0] for line in lines_of(operator.document(DECEMBER, "c-line", "invoice"))] == ["Usage"]


def test_a_later_row_beneath_a_word_is_held_by_it_and_an_earlier_one_superseded(operator: Operator) -> None:
    say(operator, "amend", cpus=4)
    operator.used(Run("j-1", "llm", "2026-11-03T08:00", core_hours=20, revision=7))
    assert [(one.name, one.status) for one in history(operator).revisions] == [
        ("1", "superseded"),
        ("word 1", "kept"),
        ("7", "held_by_word"),
    ]
    say(operator, "revert")
    assert [one.status for one in history(operator).revisions] == ["superseded", "reverted", "kept", "reverted"]


def test_the_history_of_an_event_tells_every_row_and_where_it_was_billed(operator: Operator) -> None:
    close_november(operator)
    say(operator, "amend", cpus=4)
    found = history(operator)
    assert [(one.name, one.status, one.customer) for one in found.revisions] == [
        ("1", "held_by_word", "c-line"),
        ("word 1", "kept", "c-line"),
    ]
    assert found.revisions[1].evidence["reason"] == "node failed, the ticket says so"
    charged, given_back = found.billed
    assert (charged.document, charged.charged_in, charged.customer, charged.project, charged.sku) == (
        "INV-2026-00001 line 1",
        NOVEMBER,
        "c-line",
        "llm",
        "core-hour",
    )
    assert (charged.quantity, charged.amount) == (Fraction(10), Fraction(100))
    assert (given_back.document, given_back.original_month, given_back.quantity, given_back.amount) == (
        "",
        NOVEMBER,
        Fraction(-6),
        Fraction(-60),
    )


REFUSED: tuple[tuple[dict[str, str | int], str], ...] = (
    ({}, "say what is to be set"),
    ({"start": "2026-11-03T07:00:00+08:00"}, "never changes its start"),
    ({"cluster": "ai1"}, "stays with its cluster"),
    ({"price": 1}, "known are end"),
    ({"cpus": 10}, "changes nothing"),
    ({"cpus": "-1"}, "no whole number"),
    ({"cpus": "1.5"}, "no whole number"),
    ({"cpus": 2**24 + 1}, "no whole number"),
    ({"end": "2026-11-03T07:00:00+08:00"}, "end before it starts"),
    ({"end": "2026-11-30T07:00:00+08:00"}, "in the future"),
    ({"end": "2026-11-03T09:00:00"}, "no instant"),
    ({"end": "yesterday"}, "no instant"),
    ({"suspended_seconds": 3601}, "suspended for longer"),
    ({"cards": "a100"}, "write it as a100:2"),
    ({"cards": "a100:0.0005"}, "write it as a100:2"),
    ({"partition": ""}, "is empty"),
    ({"state": "REVERTED"}, "is no state of a job"),
)


def test_what_cannot_be_is_refused_with_the_reason(operator: Operator) -> None:
    for changes, reason in REFUSED:
        with pytest.raises(AmendmentRefusedError, match=reason):
            say(operator, "amend", dry_run=True, **changes)


def test_a_running_attempt_is_amended_only_with_an_end(operator: Operator) -> None:
    operator.sacct("7|1793700000|1793700000|Unknown|RUNNING|3600|0|cpu=4,node=1|llm|lin|cpu|normal|hpc1")
    word = Word("amend", "it ended", "lin", {"cpus": 2})
    with pytest.raises(AmendmentRefusedError, match="still runs"):
        say_word(operator.home, "slurm:hpc1", "7:1793700000", word)
    ended = Word("amend", "it ended", "lin", {"cpus": 2, "end": "2026-11-04T00:00:00+08:00"})
    assert say_word(operator.home, "slurm:hpc1", "7:1793700000", ended).revision > 0


def shares(operator: Operator, event_id: str) -> dict[str, tuple[Fraction, Fraction]]:
    """What an event was billed as, by the invoice line: quantity and minor units."""
    with read_session(operator.home.engine) as session:
        found = event_history(operator.home, session, "stories", event_id)
    return {one.document.split(",")[0]: (one.quantity, one.amount) for one in found.billed}


def test_the_parts_of_two_events_add_up_to_their_lines(operator: Operator) -> None:
    for number in (1, 2):
        operator.used(Run(f"c-{number}", "llm", "2026-11-05T08:00", card_hours=8))
    close_november(operator)
    document = operator.document(NOVEMBER, "c-line", "invoice")
    lines = {
        f"{document.number} line {line.n}": line.line_amount_minor for line in document.lines if line.sku == "card-hour"
    }
    first, second = shares(operator, "c-1"), shares(operator, "c-2")
    assert first == second
    assert sorted((int(q), int(a)) for q, a in first.values()) == [
        (3, 1800),
        (5, 4000),
    ]  # of ten hours at eight yuan, and of six at six
    assert {place: first[place][1] + second[place][1] for place in lines} == lines


def test_a_word_needs_a_known_event_and_something_to_say(operator: Operator) -> None:
    with pytest.raises(UnknownEventError):
        say_word(operator.home, "stories", "j-9", Word("retract", "why", "lin"))
    with pytest.raises(AmendmentRefusedError, match="said nothing"):
        say(operator, "revert")
    say(operator, "retract")
    with pytest.raises(AmendmentRefusedError, match="holds nothing already"):
        say(operator, "retract")
    with pytest.raises(AmendmentRefusedError, match="the reason must say something"):
        Word("retract", "  ", "lin")


def test_explain_shows_the_word_behind_an_adjustment_also_of_an_event_that_holds_nothing(operator: Operator) -> None:
    close_november(operator)
    say(operator, "retract")
    operator.used(Run("j-2", "llm", "2026-12-01T08:00", core_hours=100))
    operator.at("2027-01-01T10:00")
    operator.close(DECEMBER)
    document = operator.document(DECEMBER, "c-line", "invoice")
    (line,) = (line.n for line in document.lines if line.category == "Adjustment")
    with read_session(operator.home.engine) as session:
        sections = list(explain_document(operator.home, session, document.number, line))
    (event,) = sections[-1][2]
    assert (event["id"], event["state"], event["word"]) == (
        "j-1",
        "RETRACTED",
        "retract by lin: node failed, the ticket says so",
    )


def test_two_people_who_speak_at_once_speak_one_after_the_other(operator: Operator) -> None:
    words = [Word("amend", "ticket", "lin", {"cpus": 4}), Word("amend", "ticket", "wu", {"account": "dev"})]
    with ThreadPoolExecutor(2) as people:
        said = [people.submit(say_word, operator.home, "stories", "j-1", word) for word in words]
        assert sorted(word_number(one.result().revision) for one in said) == [1, 2]
    last = history(operator).revisions[-1].usage
    assert (last["cpus"], last["account"]) == (4, "dev")  # the later one spoke of what the earlier one had said
