"""Named points at which a test may kill the process, to prove that a run can be taken up again from anywhere."""

from __future__ import annotations

import os
import signal

CRASH_VARIABLE = "HOURBOOK_CRASH_AT"

# Before and after each commit of the main run; the tests kill at every one and fail if one is never reached.
CRASH_POINTS = (
    "apply:before_commit",
    "apply:after_commit",
    "inbox:before_commit",
    "inbox:after_commit",
    "seal:after_lease",
    "seal:before_lake",
    "seal:after_lake",
    "seal:before_commit",
    "seal:after_commit",
    "plan:before_commit",
    "plan:after_commit",
    "rollup:before_commit",
    "rollup:after_commit",
    "receipt:before_commit",
    "receipt:after_commit",
    "accrue:before_commit",
    "accrue:after_commit",
    "close:before_pin",
    "close:after_pin",
    "close:before_commit",
    "close:after_commit",
    "bill:before_commit",
    "bill:after_commit",
)


def crash_point(name: str) -> None:
    """Kill this process, without any clean-up, if the environment asks for it at this point."""
    if os.environ.get(CRASH_VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
