"""Which windows of time are asked for next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .asking import DAY, HOUR, Window

UNKNOWN_LOOKBACK = 30 * DAY  # where jobs may run without a limit
LEAST_LOOKBACK = 2 * DAY
# Slurm's controller and database need moments to write down what just ended.
SETTLING = 300


@dataclass(frozen=True)
class Rhythm:
    """How often and how far back is asked, in seconds."""

    overlap: int = 2 * HOUR  # asked again each time, as rows arrive late
    lookback: int = UNKNOWN_LOOKBACK  # asked again by each sweep, as rows change late
    sweep_every: int = DAY // 4
    running_every: int = 900  # how often a running job's row is worth sending


def lookback_for(longest_limit: int | None) -> int:
    """Return how far back a row may still change: twice the longest time that a job may run."""
    return UNKNOWN_LOOKBACK if longest_limit is None else max(2 * longest_limit, LEAST_LOOKBACK)


def sweep_is_due(state: Mapping[str, int], now: int, rhythm: Rhythm) -> bool:
    """Tell whether all that may still change is to be asked for again; where nothing is remembered it is."""
    return now - state.get("swept_at", 0) >= rhythm.sweep_every


def due_windows(state: Mapping[str, int], now: int, rhythm: Rhythm, since: int | None = None) -> list[Window]:
    """Return the windows to ask for, oldest first, each a day at most, so that no answer is too long.

    They begin at full hours: of each hour that lies whole in a window it can be stated what ended in it.
    """
    asked = [state.get("pulled_until", now) - rhythm.overlap]
    if sweep_is_due(state, now, rhythm):
        asked.append(now - rhythm.lookback)
    if since is not None:
        asked.append(since)
    first = max(0, min(asked)) // HOUR * HOUR
    return [(begin, min(begin + DAY, now)) for begin in range(first, now, DAY)]
