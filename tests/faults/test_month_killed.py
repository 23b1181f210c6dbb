"""A month killed at any named point and run again, or run by two at once, ends as one undisturbed run does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from hourbook.auditing import audit
from hourbook.crash import CRASH_POINTS, CRASH_VARIABLE
from hourbook.database import open_home, read_session

RUNNER = Path(__file__).with_name("month_in_a_process.py")
TIMEOUT = 300

pytestmark = pytest.mark.slow


def start(home: Path, crash_at: str = "") -> subprocess.Popen[bytes]:
    environment = {**os.environ, CRASH_VARIABLE: crash_at}
    return subprocess.Popen(
        [sys.executable, str(RUNNER), str(home)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> int:
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode in {0, -signal.SIGKILL}, errors.decode()
    return process.returncode


def outcome(path: Path) -> dict[str, Any]:
    """What a run must agree on: documents with their numbers, and every balance; not times, not the printed head."""
    home = open_home(path)
    with read_session(home.engine) as session:
        connection = session.connection()
        documents = {}
        for number, content in connection.execute(text("SELECT number, content FROM document")):
            body = orjson.loads(content)
            del body["ledger_head"], body["pins"]["ledger_seq"]
            documents[number] = body
        balances = connection.execute(
            text(
                "SELECT a.code, a.customer, a.asset, a.detail, b.debit_posted - b.credit_posted "
                "FROM ledger_account a JOIN account_balance b ON b.account_id = a.id"
            )
        )
        held = {(code, customer, asset, detail): amount for code, customer, asset, detail, amount in balances if amount}
    findings = audit(home).findings
    home.close()
    return {"documents": documents, "balances": held, "findings": findings}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("undisturbed") / "home"
    assert finish(start(path)) == 0
    result = outcome(path)
    assert result["documents"], "a run without documents shows nothing"
    assert not result["findings"]
    return result


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_month_killed_at_a_named_point_and_run_again_is_as_if_never_killed(
    point: str, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    assert finish(start(home, crash_at=point)) == -signal.SIGKILL, f"{point} is never reached"
    assert finish(start(home)) == 0
    assert outcome(home) == undisturbed


def test_two_processes_running_one_month_end_as_one(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    home = tmp_path / "home"
    both = [start(home), start(home)]
    assert [finish(process) for process in both] == [0, 0]
    # A file that both brought in is recorded twice, under other numbers; its rows count once.
    documents = {number: {**body, "pins": None} for number, body in undisturbed["documents"].items()}
    mine = outcome(home)
    assert {number: {**body, "pins": None} for number, body in mine["documents"].items()} == documents
    assert mine["balances"] == undisturbed["balances"]
    assert not mine["findings"]


def test_two_processes_closing_at_once_issue_one_set_of_documents(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    home = tmp_path / "home"
    # Killed just before the close is pinned: what is left to do is the close itself.
    assert finish(start(home, crash_at="close:before_pin")) == -signal.SIGKILL
    both = [start(home), start(home), start(home)]
    assert [finish(process) for process in both] == [0, 0, 0]
    assert outcome(home) == undisturbed
