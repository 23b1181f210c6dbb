"""Jobs that nobody ended: counted up to their limit, listed, and decided by a person before they are billed."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from hourbook.amending import say_word
from hourbook.database import read_session
from hourbook.importing import SlurmLog, import_events, import_slurm
from hourbook.runaways import OpenAttempt, RunawayError, accept_runaways, open_attempts
from metering.amendments import Word
from tests.hourbook.month_stories import Operator, Run, codes

NOVEMBER = "2026-11"
HEADER = (
    "JobIDRaw|Submit|Start|End|State|ElapsedRaw|Suspended|AllocTRES|Account|User|Partition|QOS|Cluster|TimelimitRaw"
)
START = 1_793_491_200  # 2026-11-01T00:00Z


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    operator = Operator(tmp_path)
    operator.at("2026-12-01T10:00")
    operator.used(Run("j-0", "llm", "2026-11-03T08:00", core_hours=1))
    return operator


def told(operator: Operator, job: int, elapsed: int, state: str = "RUNNING", limit: int | str = 60) -> None:
    """Let a row of the log arrive: a job on four cores whose limit is an hour."""
    end = "Unknown" if state == "RUNNING" else START + elapsed
    row = f"{job}|{START}|{START}|{end}|{state}|{elapsed}|0|cpu=4,node=1|llm|lin|cpu|normal|hpc1|{limit}"
    file = operator.folder / f"log-{job}-{elapsed}-{state}.psv"
    file.write_text(f"{HEADER}\n{row}\n", encoding="utf-8")
    import_slurm(operator.home, [file], SlurmLog("hpc1"))


def listed(operator: Operator) -> list[OpenAttempt]:
    with read_session(operator.home.engine) as session:
        return open_attempts(operator.home, session)


def test_a_runaway_is_counted_up_to_its_limit_and_blocks_the_close_until_accepted(operator: Operator) -> None:
    told(operator, 7, 500 * 3600)
    (one,) = listed(operator)
    assert (one.kind, one.id, int(one.counted_until.timestamp()) - START) == ("runaway", f"7:{START}", 2 * 3600)
    assert int(one.stated_until.timestamp()) - START == 500 * 3600
    assert operator.balance("c-line").credit_used_minor == 10 + 2 * 4 * 10
    assert codes(operator.blocked(NOVEMBER)) == ["runaway"]
    accept_runaways(operator.home, (one.source, one.id), reason="looked at the node", by="lin")
    assert listed(operator)[0].waived == "lin: looked at the node"
    assert operator.blocked(NOVEMBER) == []


def test_a_runaway_that_ends_after_all_counts_as_it_ended(operator: Operator) -> None:
    told(operator, 7, 500 * 3600)
    told(operator, 7, 600 * 3600)
    told(operator, 7, 1800, "COMPLETED")
    assert listed(operator) == []
    assert operator.balance("c-line").credit_used_minor == 10 + 20
    assert operator.blocked(NOVEMBER) == []


def test_a_growing_runaway_counts_no_more_than_before(operator: Operator) -> None:
    told(operator, 7, 500 * 3600)
    before = operator.balance("c-line").credit_used_minor
    told(operator, 7, 600 * 3600)
    assert operator.balance("c-line").credit_used_minor == before


def test_all_of_a_cluster_are_accepted_at_once_and_only_what_there_is(operator: Operator) -> None:
    told(operator, 7, 500 * 3600)
    told(operator, 8, 500 * 3600)
    assert len(accept_runaways(operator.home, None, cluster="hpc1", reason="node lost", by="lin")) == 2
    with pytest.raises(RunawayError):
        accept_runaways(operator.home, None, cluster="hpc1", reason="node lost", by="lin")
    with pytest.raises(RunawayError):
        accept_runaways(operator.home, ("slurm:hpc1", "9:9"), reason="node lost", by="lin")


def test_a_running_job_of_which_nothing_was_heard_for_a_day_is_listed_and_blocks_nothing(operator: Operator) -> None:
    told(operator, 7, 3600, limit="UNLIMITED")
    assert listed(operator) == []
    operator.at("2026-12-02T11:00")
    assert [(one.kind, one.id) for one in listed(operator)] == [("stale", f"7:{START}")]
    assert operator.blocked(NOVEMBER) == []


def test_the_grace_is_a_setting_of_the_cluster(operator: Operator) -> None:
    operator.apply('[[clusters]]\nname = "hpc1"\npartitions = ["cpu"]\nrunaway_grace_seconds = 0\n')
    told(operator, 7, 500 * 3600)
    assert int(listed(operator)[0].counted_until.timestamp()) - START == 3600


def grace(operator: Operator, seconds: int) -> None:
    operator.apply(f'[[clusters]]\nname = "hpc1"\npartitions = ["cpu"]\nrunaway_grace_seconds = {seconds}\n')


def reported(operator: Operator, revision: int) -> None:
    """Let an event tell of a job that ran for a fortnight although its limit is an hour."""
    event = Run("j-9", "llm", "2026-11-03T08:00", core_hours=4, revision=revision).event()
    del event["data"]["end"]
    event["data"] |= {"state": "running", "as_of": "2026-11-17T08:00:00+08:00", "time_limit_seconds": 3600}
    file = operator.folder / "reported.json"
    file.write_bytes(orjson.dumps([event]))
    import_events(operator.home, [file])


def counted_hours(operator: Operator) -> float:
    (one,) = listed(operator)
    return (one.counted_until - one.start).total_seconds() / 3600


@pytest.mark.parametrize("seconds", [0, 7200])
def test_an_event_sent_again_after_the_grace_changed_is_a_duplicate_and_its_next_revision_takes_the_new_one(
    operator: Operator, seconds: int
) -> None:
    reported(operator, 1)
    grace(operator, seconds)
    reported(operator, 1)
    assert codes(operator.blocked(NOVEMBER)) == ["runaway"]
    assert counted_hours(operator) == 2
    reported(operator, 2)
    assert codes(operator.blocked(NOVEMBER)) == ["runaway"]
    assert counted_hours(operator) == 1 + seconds / 3600


@pytest.mark.parametrize("seconds", [0, 7200])
def test_a_log_read_again_after_the_grace_changed_changes_nothing_and_what_it_says_later_takes_the_new_one(
    operator: Operator, seconds: int
) -> None:
    told(operator, 7, 500 * 3600)
    grace(operator, seconds)
    told(operator, 7, 500 * 3600)
    assert counted_hours(operator) == 2
    assert operator.balance("c-line").credit_used_minor == 10 + 2 * 4 * 10
    told(operator, 7, 501 * 3600)
    assert counted_hours(operator) == 1 + seconds / 3600


def test_a_word_about_a_runaway_ends_it_and_its_revert_brings_it_back(operator: Operator) -> None:
    told(operator, 7, 500 * 3600)
    key = ("slurm:hpc1", f"7:{START}")
    say_word(operator.home, *key, Word("amend", "seen on the node", "lin", {"end": "2026-11-01T09:00:00+08:00"}))
    assert listed(operator) == []
    assert operator.balance("c-line").credit_used_minor == 10 + 40
    say_word(operator.home, *key, Word("revert", "no, it was another", "lin"))
    assert [one.kind for one in listed(operator)] == ["runaway"]
