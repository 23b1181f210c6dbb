"""The auditor finds every way in which somebody with the database file could alter the books."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from hourbook import audit
from hourbook.audit import ANCHORS_FILE, Anchor, Finding, anchor, read_anchors, verify
from hourbook.database import open_home, write_session
from hourbook.settings import DATABASE_FILE, Home
from ledger.accounts import AccountKey
from ledger.funding import FundingSource
from ledger.journal import canonical_json, chain_hash, transaction_from_movements
from ledger.store import post, post_with_sources
from tests.homes import NewHome

NOW = datetime(2026, 11, 3, 2, 0, tzinfo=UTC)
DAY = date(2026, 11, 3)
BANK = AccountKey("assets:bank")
LOT = AccountKey("liabilities:contract", "u-north", detail="lot-1")
VAT = AccountKey("liabilities:vat_pending", "u-north", detail="lot-1")
REVENUE = AccountKey("income:usage", detail="core-hour|hpc1")


@pytest.fixture
def home(new_home: NewHome, tmp_path: Path) -> Home:
    """A receipt, five accruals of which one is reversed, and an anchor at the end."""
    made = new_home(tmp_path / "home", NOW)
    with write_session(made.engine) as session:
        lot = FundingSource("lot-1", "lot", "u-north", "HT-1", "bank 7", DAY, DAY, gross_minor=1060)
        receipt = transaction_from_movements(
            "receipt",
            "receipt:u-north:bank 7",
            {BANK: 1060, LOT: -1000, VAT: -60},
            effective_on=DAY,
            narration="到款 “工行” \t\x7f\x01 \\ 😀",
        )
        post_with_sources(session, receipt, [lot], NOW)
        for number in range(1, 6):
            accrual = transaction_from_movements(
                "accrual",
                f"accrual:{number}",
                {LOT: 10 * number, REVENUE: -10 * number},
                effective_on=DAY,
                narration="usage",
                metadata={"period": "2026-11", "recorded_seq": number},
            )
            post(session, accrual, NOW)
        post(session, accrual.reversed(effective_on=DAY, narration="wrong"), NOW)
    anchor(made)
    return made


on_sqlite = pytest.mark.parametrize("new_home", ["sqlite"], indirect=True)


def tampered(home: Home, *statements: str) -> list[Finding]:
    """Alter the database with the triggers out of the way, put them back, and let the auditor look."""
    alter = _alter_sqlite if home.engine.dialect.name == "sqlite" else _alter_postgresql
    alter(home, statements)
    return verify(home.engine, anchors=read_anchors(home.path))


def _alter_postgresql(home: Home, statements: Sequence[str]) -> None:
    # A superuser's way round every trigger and reference.
    with write_session(home.engine) as session:
        for statement in ("SET LOCAL session_replication_role = replica", *statements):
            session.connection().exec_driver_sql(statement)


def _alter_sqlite(home: Home, statements: Sequence[str]) -> None:
    home.engine.dispose()
    with closing(sqlite3.connect(home.path / DATABASE_FILE)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.executescript(statement)
        for _, sql in triggers:
            connection.execute(sql)
        connection.commit()


# What somebody would put right besides, to hide that a transaction at the end is gone.
REBUILT_COUNTERS = """
UPDATE account_balance SET
  debit_posted = (SELECT coalesce(sum(amount_minor), 0) FROM posting p
                  WHERE p.account_id = account_balance.account_id AND side = 'debit'),
  credit_posted = (SELECT coalesce(sum(amount_minor), 0) FROM posting p
                   WHERE p.account_id = account_balance.account_id AND side = 'credit'),
  version = (SELECT count(*) FROM posting p WHERE p.account_id = account_balance.account_id);
UPDATE ledger_head SET (sequence, hash) =
  (SELECT sequence, hash FROM ledger_transaction ORDER BY sequence DESC LIMIT 1);
"""
TAIL_CUT = (
    "DELETE FROM posting WHERE sequence = 7",
    "DELETE FROM ledger_transaction WHERE sequence = 7",
    REBUILT_COUNTERS,
)
SWAP = (
    "UPDATE posting SET sequence = 99 WHERE sequence = 2",
    "UPDATE posting SET sequence = 2 WHERE sequence = 3",
    "UPDATE posting SET sequence = 3 WHERE sequence = 99",
)
FORGED_END = (
    """INSERT INTO ledger_transaction
    SELECT 8, owner, kind, 'forged', '', request_hash, effective_on, recorded_at, customer, period, narration, metadata,
        NULL, hash, hash FROM ledger_transaction WHERE sequence = 6""",
    """INSERT INTO posting
    SELECT 8, line, owner, account_id, side, amount_minor, 0, 50 FROM posting WHERE sequence = 6""",
    REBUILT_COUNTERS,
)


def test_untouched_books_hold(home: Home) -> None:
    assert verify(home.engine, anchors=read_anchors(home.path)) == []


@pytest.mark.parametrize(
    ("statements", "check"),
    [
        pytest.param("UPDATE posting SET amount_minor = 11 WHERE sequence = 2", "I3", id="both amounts"),
        pytest.param("UPDATE posting SET amount_minor = 11 WHERE sequence = 2 AND line = 1", "I1", id="one amount"),
        pytest.param("DELETE FROM posting WHERE sequence = 3 AND line = 2", "I1", id="one posting"),
        pytest.param(
            "DELETE FROM posting WHERE sequence = 3; DELETE FROM ledger_transaction WHERE sequence = 3;",
            "I3",
            id="middle",
        ),
        pytest.param(
            "DELETE FROM posting WHERE sequence = 7; DELETE FROM ledger_transaction WHERE sequence = 7;",
            "I3",
            id="tail",
        ),
        pytest.param("UPDATE account_balance SET debit_posted = debit_posted + 1", "I2", id="a counter"),
        pytest.param(
            "UPDATE account_balance SET debit_posted = debit_posted + 1, credit_posted = credit_posted + 1",
            "I3",
            id="both counters",
        ),
        pytest.param("UPDATE account_balance SET debit_pending = 1, credit_pending = 1", "I3", id="pending"),
        pytest.param("DELETE FROM account_balance WHERE account_id = 1", "I2", id="a counter's row"),
        pytest.param(
            "UPDATE posting SET balance_after = balance_after + 1 WHERE sequence = 4", "I4", id="balance after"
        ),
        pytest.param(
            "UPDATE posting SET account_version = account_version + 100 WHERE sequence = 7", "I4", id="version"
        ),
        pytest.param("UPDATE ledger_transaction SET reverses = 2 WHERE sequence = 7", "I7", id="reversal of another"),
        pytest.param("UPDATE ledger_account SET has_floor = 0", "I5", id="floor taken away"),
        pytest.param("UPDATE ledger_transaction SET narration = 'x' WHERE sequence = 2", "I9", id="narration"),
        pytest.param(
            """UPDATE ledger_transaction SET metadata = '{"period":"2026-12","recorded_seq":2}' WHERE sequence = 3""",
            "I9",
            id="metadata",
        ),
        pytest.param("UPDATE ledger_transaction SET metadata = 'gone' WHERE sequence = 3", "I9", id="metadata no JSON"),
        pytest.param("UPDATE ledger_transaction SET effective_on = '2026-12-03'", "I9", id="effective day"),
        pytest.param("UPDATE ledger_transaction SET recorded_at = recorded_at + 1", "I9", id="recorded time"),
        pytest.param("UPDATE ledger_transaction SET kind = 'grant' WHERE sequence = 4", "I9", id="kind"),
        pytest.param("UPDATE ledger_transaction SET customer = 'c-acme' WHERE sequence = 4", "I9", id="customer"),
        pytest.param("UPDATE ledger_transaction SET period = '2026-10' WHERE sequence = 4", "I9", id="period"),
        pytest.param("UPDATE ledger_transaction SET request_hash = '' WHERE sequence = 4", "I9", id="request hash"),
        pytest.param("UPDATE ledger_transaction SET hash = 'no hash' WHERE sequence = 4", "I9", id="hash"),
        pytest.param(
            "UPDATE ledger_account SET customer = 'c-acme' WHERE customer = 'u-north'", "I9", id="whose account"
        ),
        pytest.param("UPDATE funding_source SET last_day = NULL", "I9", id="a lot's last day"),
        pytest.param("UPDATE funding_source SET tax_rate = '0.13'", "I9", id="a lot's tax rate"),
        pytest.param("DELETE FROM funding_source", "I9", id="a lot"),
        pytest.param("UPDATE ledger_head SET sequence = 6", "I9", id="head"),
        pytest.param(";".join(SWAP), "I4", id="two swapped"),
        pytest.param(";".join(FORGED_END), "I4", id="one inserted"),
        pytest.param(";".join(TAIL_CUT), "I9", id="tail cut and all counters put right"),
    ],
)
def test_every_alteration_is_found(home: Home, statements: str, check: str) -> None:
    findings = tampered(home, statements)
    assert findings
    assert findings[0].check == check, findings


def test_only_the_anchor_shows_a_cut_tail(home: Home) -> None:
    # Without it, a journal that ended earlier is a journal like any other: the reason why anchors exist.
    tampered(home, *TAIL_CUT)
    assert verify(home.engine) == []
    (finding,) = verify(home.engine, anchors=read_anchors(home.path))
    assert finding.facts["transaction"] == 7
    assert finding.facts["found"] == "nothing"


def forge(home: Home, sequence: int) -> tuple[str, str]:
    """Return statements that alter a transaction's narration and give it a link that fits the alteration."""
    with home.engine.connect() as connection:
        wanted = {"sequence": sequence}
        select = text("SELECT * FROM ledger_transaction WHERE sequence = :sequence")
        row = dict(connection.execute(select, wanted).mappings().one())
        select = text(
            "SELECT code, a.customer, asset, detail, side, amount_minor FROM posting p "
            "JOIN ledger_account a ON a.id = p.account_id WHERE sequence = :sequence ORDER BY line"
        )
        legs = connection.execute(select, wanted).fetchall()
    sealed = {name: value for name, value in row.items() if name not in {"sequence", "previous_hash", "hash"}}
    body = {**sealed, "narration": "forged", "postings": [list(leg) for leg in legs]}
    link = chain_hash(sequence, row["previous_hash"], canonical_json(body))
    return (
        f"UPDATE ledger_transaction SET narration = 'forged', hash = '{link}' WHERE sequence = {sequence}",  # noqa: S608
        f"UPDATE ledger_head SET hash = '{link}' WHERE sequence = {sequence}",  # noqa: S608
    )


def test_only_the_anchor_shows_a_chain_that_was_forged_to_its_end(home: Home) -> None:
    findings = tampered(home, *forge(home, 7))
    assert [finding.message for finding in findings] == ["the journal is not the one that was anchored"]


def test_a_transaction_forged_in_the_middle_does_not_fit_the_next(home: Home) -> None:
    (finding,) = tampered(home, *forge(home, 4))
    assert (finding.message, finding.facts["transaction"]) == ("a transaction was altered", 5)


def test_a_gap_in_the_journal_is_named(home: Home) -> None:
    findings = tampered(
        home, "DELETE FROM posting WHERE sequence IN (3, 4)", "DELETE FROM ledger_transaction WHERE sequence IN (3, 4)"
    )
    missing = Finding("I9", "transactions are missing from the journal", {"from": 3, "to": 4})
    assert missing in findings


def test_a_renumbered_line_is_found(home: Home) -> None:
    (finding,) = tampered(home, "UPDATE posting SET line = 9 WHERE sequence = 7 AND line = 2")
    assert finding == Finding("I9", "lines of a transaction are missing", {"transaction": 7})


@on_sqlite  # a file is copied
def test_an_older_copy_of_the_database_is_found(home: Home, tmp_path: Path) -> None:
    home.engine.dispose()
    shutil.copy(home.path / DATABASE_FILE, tmp_path / "yesterday")
    with write_session(home.engine) as session:
        late = transaction_from_movements("test", "late", {BANK: 1, REVENUE: -1}, effective_on=DAY, narration="")
        post(session, late, NOW)
    anchor(home)
    home.engine.dispose()
    shutil.copy(tmp_path / "yesterday", home.path / DATABASE_FILE)
    findings = verify(open_home(home.path).engine, anchors=read_anchors(home.path))
    assert [finding.check for finding in findings] == ["I9"]


HOLLOW = "CREATE TRIGGER posting_no_update BEFORE UPDATE ON posting BEGIN SELECT 1; END"


@on_sqlite
@pytest.mark.parametrize("instead", ["", HOLLOW])
def test_a_trigger_that_is_gone_or_hollow_is_found(home: Home, instead: str) -> None:
    with closing(sqlite3.connect(home.path / DATABASE_FILE)) as connection:
        connection.executescript(f"DROP TRIGGER posting_no_update; {instead}")
    (finding,) = verify(home.engine)
    assert finding.facts == {"trigger": "posting_no_update"}


def test_a_posting_to_an_account_that_is_not_there_is_found(home: Home) -> None:
    findings = tampered(home, "UPDATE posting SET account_id = 99 WHERE sequence = 7 AND line = 1")
    assert findings[0].check == "storage"
    assert "ledger_account that is not there" in findings[0].message


@on_sqlite  # its pages are where we know them
def test_a_damaged_page_is_found(home: Home) -> None:
    home.engine.dispose()
    with closing(sqlite3.connect(home.path / DATABASE_FILE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root, size = connection.execute(
            "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = 'posting'"
        ).fetchone()
    with (home.path / DATABASE_FILE).open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(bytes(size))
    assert verify(home.engine)


def test_money_moved_between_two_customers_without_a_transfer_is_found(home: Home) -> None:
    with write_session(home.engine) as session:
        theirs = AccountKey("liabilities:contract", "c-acme", detail="lot-9")
        transfer = transaction_from_movements(
            "transfer", "transfer:1", {LOT: 5, theirs: -5}, effective_on=DAY, narration="agreed"
        )
        post(session, transfer, NOW)
    assert verify(home.engine) == []
    findings = tampered(home, "UPDATE ledger_transaction SET kind = 'accrual' WHERE sequence = 8")
    assert {finding.check for finding in findings} == {"I9", "I10"}


def test_books_of_two_legal_entities_that_mix_are_found(home: Home) -> None:
    findings = tampered(home, "UPDATE ledger_account SET owner = 'another'")
    assert {"storage", "I10"} <= {finding.check for finding in findings}


def test_a_counter_near_overflow_is_an_alarm_before_it_is_an_error(home: Home) -> None:
    with write_session(home.engine) as session:
        huge = transaction_from_movements(
            "test", "huge", {BANK: 2**61, REVENUE: -(2**61)}, effective_on=DAY, narration=""
        )
        post(session, huge, NOW)
    assert {finding.check for finding in verify(home.engine)} == {"I15"}


def test_a_transaction_without_postings_is_found(home: Home) -> None:
    findings = tampered(home, "DELETE FROM posting WHERE sequence = 7", REBUILT_COUNTERS)
    assert findings[0] == Finding("I1", "a transaction has fewer than two postings", {"transaction": 7, "postings": 0})


def test_a_finding_names_its_check_and_its_facts() -> None:
    finding = Finding("I1", "debits and credits differ", {"transaction": 7, "asset": "CNY"})
    assert str(finding) == "I1: debits and credits differ (transaction 7, asset CNY)"


def test_further_checks_are_run_and_one_that_cannot_read_the_books_is_a_finding(home: Home) -> None:
    def documents(_: Connection) -> Iterator[Finding]:
        yield Finding("I13", "an invoice's lines do not add up", {})
        raise ValueError("no number")

    findings = verify(home.engine, further=[documents])
    assert [finding.check for finding in findings] == ["I13", "unreadable"]


def test_an_anchor_is_written_once_per_end_and_survives_a_torn_line(home: Home) -> None:
    file = home.path / ANCHORS_FILE
    (first,) = read_anchors(home.path)
    anchor(home)
    assert read_anchors(home.path) == [first]
    with file.open("a", encoding="utf-8") as torn:
        torn.write('{"sequence": 8, "ha')
    with write_session(home.engine) as session:
        late = transaction_from_movements("test", "late", {BANK: 1, REVENUE: -1}, effective_on=DAY, narration="")
        post(session, late, NOW)
    assert read_anchors(home.path) == [first]
    second = anchor(home)
    assert read_anchors(home.path) == [first, second]
    assert second.sequence == 8


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**63), 2**63)))
def test_the_auditors_json_and_the_ledgers_are_the_same_bytes(body: dict[str, str | int]) -> None:
    # Two writers of one form, so that neither can be wrong alone.
    assert audit._canonical(body) == canonical_json(body)  # noqa: SLF001


def test_an_empty_journal_is_anchored_at_zero(new_home: NewHome, tmp_path: Path) -> None:
    empty = new_home(tmp_path / "empty", NOW)
    assert anchor(empty) == Anchor(0, "0" * 64)
    assert verify(empty.engine, anchors=read_anchors(empty.path)) == []


def test_a_lots_tax_rate_is_part_of_its_fingerprint(home: Home) -> None:
    with write_session(home.engine) as session:
        lot = FundingSource("lot-2", "lot", "u-north", "HT-1", "bank 8", DAY, tax_rate=Decimal("0.060"), gross_minor=5)
        receipt = transaction_from_movements(
            "receipt", "receipt:2", {BANK: 5, LOT: -5}, effective_on=DAY, narration="to the same lot's account"
        )
        post_with_sources(session, receipt, [lot], NOW)
    assert verify(home.engine) == []
