"""What the stories about followed logs share: records, a home, and what is known of usage there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from hourbook.collecting import FollowedLog, Polled, poll_log
from hourbook.database import read_session
from hourbook.importing import OtherLog
from hourbook.settings import Home
from metering import store as metering
from metering.collectors.registry import COLLECTORS
from metering.events import USAGE_FACTS
from metering.identity import mark

CLOCK = datetime(2026, 12, 1, 2, tzinfo=UTC)
START = 1_795_276_800
SHANGHAI = ZoneInfo("Asia/Shanghai")


def pbs(job: int, *, cpus: int = 1, seconds: int = 3600) -> str:
    """Write a job's end as PBS does."""
    return (
        f"11/22/2026 01:00:00;E;{job}.srv;user=li group=phys account=grp queue=workq ctime={START - 60} start={START} "
        f"exec_host=n1/0*{cpus} end={START + seconds} Exit_status=0\n"
    )


def followed(*paths: Path, kind: str = "pbs", options: str = "") -> FollowedLog:
    """Follow logs of the cluster hpc2."""
    reader = COLLECTORS[kind]
    return FollowedLog(OtherLog(reader, "hpc2", options=reader.parse_options(options) if options else None), paths)


def usage(home: Home) -> dict[str, tuple[object, ...]]:
    """The facts of each event that counts, as the inbox holds them; nothing is sealed in these stories."""
    rows = _rows(home)
    kept = mark(rows).filter(pl.col("status") == "kept").select("id", *USAGE_FACTS)
    return {str(event): tuple(facts) for event, *facts in kept.sort("id").iter_rows()}


def cores(home: Home) -> dict[str, object]:
    """CPUs of each job that counts."""
    at = USAGE_FACTS.index("cpus")
    return {event.partition(".")[0]: facts[at] for event, facts in usage(home).items()}


def rows_recorded(home: Home) -> int:
    """How many rows were recorded, repeated ones too."""
    with read_session(home.engine) as session:
        return sum(batch.logical_rows for batch in metering.inbox_batches(session))


def lines_of_events(home: Home) -> list[int]:
    """Which lines of their files the recorded events say that they come from."""
    return sorted(int(line) for line in _rows(home)["evidence"].str.json_path_match("$.line"))


def _rows(home: Home) -> pl.DataFrame:
    with read_session(home.engine) as session:
        batches = [metering.batch_events(batch) for batch in metering.unsealed(session, 10**9)]
    return pl.concat(batches)


def poll(home: Home, log: FollowedLog) -> Polled:
    """Look at a log once; nothing may go wrong."""
    polled = poll_log(home, log)
    assert not polled.problems, polled.problems
    return polled


def append(file: Path, text: str | bytes) -> Path:
    """Write on in a file, as a scheduler does."""
    with file.open("ab") as stream:
        stream.write(text.encode() if isinstance(text, str) else text)
    return file
