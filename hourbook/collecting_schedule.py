"""Collecting as a job of the server: every source of `[[collect]]` is looked at when its time has come."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

from hourbook import facts
from hourbook.collecting import PASSING, FollowedLog, Polled, poll_log
from hourbook.collecting_pods import PodSource, poll_pods
from hourbook.collecting_slurm import poll_slurm
from hourbook.database import read_session
from hourbook.importing import OtherLog
from hourbook.kube_access import kube_access
from hourbook.settings import Home
from metering.collectors.registry import collector
from metering.log_sources import LogSource
from metering.slurm_source import SlurmAccess

log = logging.getLogger(__name__)

COLLECT_EVERY_SECONDS = 5  # how often it is asked what is due


class ScheduledCollection:
    """Looks at each source when it is due; what it cannot read it logs once, and tries again the next time."""

    def __init__(self, home: Home, clock: Callable[[], float] = time.monotonic) -> None:
        self.home = home
        self.clock = clock
        self.looked_at: dict[str, float] = {}
        self.told: dict[str, Sequence[str]] = {}
        self.known: tuple[int, list[LogSource]] = (-1, [])  # the sources, as of a recording

    def __call__(self) -> int:
        """Look at the sources that are due; return how many batches they gave."""
        return sum(self._look_at(source) for source in self._due())

    def _due(self) -> Iterator[LogSource]:
        for source in self._sources():
            last = self.looked_at.get(source.name)
            if source.enabled and (last is None or self.clock() - last >= source.every_seconds):
                yield source

    def _sources(self) -> list[LogSource]:
        with read_session(self.home.engine) as session:
            latest = facts.latest(session)
        if latest != self.known[0]:
            self.known = latest, log_sources(self.home)
        return self.known[1]

    def _look_at(self, source: LogSource) -> int:
        polled = Polled()
        try:
            polled.add(poll_source(self.home, source))
        except PASSING as error:
            polled.problems.append(str(error))
        self.looked_at[source.name] = self.clock()
        for problem in polled.problems:
            if problem not in self.told.get(source.name, ()):
                log.error("collect %s: %s", source.name, problem)
        self.told[source.name] = polled.problems
        return len(polled.receipts)


def log_sources(home: Home) -> list[LogSource]:
    """Return the sources that the configuration names, as it stands."""
    with read_session(home.engine) as session:
        recorded = facts.as_of(session).get("log_source", {})
    return [LogSource.model_validate(body) for body in recorded.values()]


def poll_source(home: Home, source: LogSource) -> Polled:
    """Look at a source once."""
    if source.kind == "slurm":
        return poll_slurm(home, source.cluster, SlurmAccess.model_validate(source.options))
    reader = collector(source.kind)
    options = reader.parse_options(source.options) if source.options else None
    said = OtherLog(reader, source.cluster, ZoneInfo(source.timezone) if source.timezone else None, options)
    if source.kind == "kubernetes":
        pods = poll_pods(home, PodSource(said, kube_access(source.kubeconfig)))
        return Polled(pods.receipts, pods.problems)
    return poll_log(home, FollowedLog(said, tuple(Path(path) for path in source.paths)))
