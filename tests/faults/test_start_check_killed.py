"""The check of all starts, killed at any of its steps and run again, ends as an undisturbed one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hourbook.crash import CRASH_VARIABLE
from hourbook.database import read_session
from metering import store
from tests.homes import NewHome
from tests.hourbook.lake_stories import MIDNIGHT, NOW, Site

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
YEAR = 365 * 86_400
# Sealing looks at a batch's own dates alone, as if many others had received events since.
CHECK = """
import sys
from pathlib import Path
from hourbook import sealing
from hourbook.database import open_home
from hourbook.start_check import check_starts
sealing.RECENT_DATES = 0
check_starts(open_home(Path(sys.argv[1])))
"""


def at(second: int, **facts: object) -> dict[str, object]:
    return {"start_second": second, "end_second": second + 100, **facts}


@pytest.mark.parametrize(
    "point", ["starts:before_commit", "starts:after_commit", "starts:before_note", "starts:after_note"]
)
def test_killed_in_the_check_an_event_with_two_starts_is_struck_once(
    new_home: NewHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setattr("hourbook.sealing.RECENT_DATES", 0)
    site = Site(new_home(tmp_path / "home", NOW))
    site.accept(at(MIDNIGHT - YEAR), at(MIDNIGHT, id="2:1"))
    site.seal()
    site.accept(at(MIDNIGHT, cpus=7))
    site.seal()
    assert site.all_cpu_seconds() == 900
    killed = subprocess.run(
        [sys.executable, "-c", CHECK, str(site.home.path)],
        cwd=ROOT,
        env={**os.environ, CRASH_VARIABLE: point},
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    site.check_starts()
    assert site.all_cpu_seconds() == 200
    assert site.quarantined() == [("start_changed", "open")]
    with read_session(site.home.engine) as session:
        strikes = [batch.events for batch in store.inbox_batches(session) if batch.kind == "start_check"]
        assert strikes == [1]
        assert store.starts_checked_to(session) == 4
