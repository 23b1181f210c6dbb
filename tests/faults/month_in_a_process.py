"""Run a small month of the sample operator in a process of its own, so that it can be killed: argument is the home."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from hourbook.billing_run import Month, run_month
from hourbook.database import HomeError, create_home, open_home
from hourbook.demo import CLOCK, sample_month
from hourbook.settings import Home


def small_month() -> Month:
    """The real log in three deliveries, one delivery of each generated one, every receipt and bill."""
    whole = sample_month()
    (real, dumps), *generated = whole.logs
    few = [(real, [dumps[1], dumps[5], dumps[-1]]), *((cluster, files[:1]) for cluster, files in generated)]
    return replace(whole, logs=few)


def main(path: Path) -> None:
    """Take the month up where the last process left it."""
    run_month(_home(path), small_month(), lambda _step, _done, _all: None)


def _home(path: Path) -> Home:
    try:
        return open_home(path)
    except HomeError:  # there is none yet, or whoever made it was killed
        pass
    try:
        return create_home(path, CLOCK)
    except HomeError:  # another process was first
        return open_home(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
