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
    # The main run's points are listed; those of other work stand in the tests that reach them.
    others = [ROOT / "tests" / "hourbook" / name for name in ("test_collecting.py", "test_jobs.py", "test_topups.py")]
    named = set(CRASH_POINTS) | set(re.findall(r'"([a-z]+:[a-z_]+)"', "".join(p.read_text("utf-8") for p in others)))
    assert placed, "no crash point was found at all"
    assert placed <= named
    assert set(CRASH_POINTS) <= placed
