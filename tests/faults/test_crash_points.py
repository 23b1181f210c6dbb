"""Every named crash point is one that a test kills at."""

from __future__ import annotations

import re
from pathlib import Path

from hourbook.crash import CRASH_POINTS

ROOT = Path(__file__).parents[2]


def test_every_point_in_the_code_is_killed_at_somewhere() -> None:
    placed: set[str] = set()
    for module in (ROOT / "hourbook").rglob("*.py"):
        placed |= set(re.findall(r'crash_point\("([^"]+)"\)', module.read_text(encoding="utf-8")))
    # The main run's points are listed; those of other work stand in the tests that start a process to kill it there.
    named = set(CRASH_POINTS)
    for test in (ROOT / "tests").rglob("test_*.py"):
        story = test.read_text(encoding="utf-8")
        if "CRASH_VARIABLE: " in story:
            named |= set(re.findall(r'"([a-z]+:[a-z_]+)"', story))
    assert placed, "no crash point was found at all"
    assert placed - named == set(), "no test kills here"
    assert set(CRASH_POINTS) - placed == set(), "these are listed and nowhere in the code"
