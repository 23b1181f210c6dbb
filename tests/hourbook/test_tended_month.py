"""A month with gaps, a runaway and wrong events, tended by a person until it closes; on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from base.period import Period
from hourbook.amending import say_word
from hourbook.auditing import audit
from hourbook.completeness import state_hours, waive
from hourbook.database import read_session
from hourbook.event_history import event_history
from hourbook.importing import SlurmLog, import_slurm
from hourbook.runaways import accept_runaways
from metering.amendments import Word
from metering.completeness import Statement
from metering.statement_sums import checksum
from tests.homes import NewHome
from tests.hourbook.month_stories import NOON, Operator, Run, codes, lines_of

NOVEMBER, DECEMBER = "2026-11", "2026-12"
REPORTS = """
[[clusters]]
name = "hpc1"
timezone = "Asia/Shanghai"
partitions = ["cpu"]
reports = [{ every = "hour", effective_from = 2026-11-30 }, { every = "never", effective_from = 2026-12-01 }]
"""
HEADER = (
    "JobIDRaw|Submit|Start|End|State|ElapsedRaw|Suspended|AllocTRES|Account|User|Partition|QOS|Cluster|TimelimitRaw"
)
START = 1_793_491_200  # 2026-11-01T00:00Z
LAST_DAY = datetime(2026, 11, 30, tzinfo=UTC)


def statements(*, with_job: bool) -> list[Statement]:
    """What the sender saw of the last day: one job, which ended at half past four."""
    seen = [("stories", "j-1", 1)] if with_job else []
    return [
        Statement(
            cluster="hpc1",
            source="stories",
            hour=LAST_DAY + timedelta(hours=hour),
            events=len(seen) if hour == 4 else 0,
            checksum=checksum(seen if hour == 4 else []),
        )
        for hour in range(16)
    ]


@pytest.mark.slow
def test_a_month_is_tended_closed_corrected_and_told(new_home: NewHome, tmp_path: Path) -> None:
    operator = Operator(tmp_path / "story", made=new_home(tmp_path / "home", NOON))
    operator.at("2026-12-01T10:00")
    operator.apply(REPORTS)
    operator.used(Run("j-0", "llm", "2026-11-03T08:00", core_hours=10))
    log = tmp_path / "log.psv"
    log.write_text(f"{HEADER}\n7|{START}|{START}|Unknown|RUNNING|900000|0|cpu=4|llm|lin|cpu|normal|hpc1|60\n", "utf-8")
    import_slurm(operator.home, [log], SlurmLog("hpc1"))
    state_hours(operator.home, statements(with_job=True)[:15], "key 1")

    assert codes(operator.blocked(NOVEMBER)) == ["gap", "runaway"]
    operator.used(Run("j-1", "llm", "2026-11-30T11:30", core_hours=30))
    waive(operator.home, "hpc1", Period(LAST_DAY, LAST_DAY + timedelta(days=1)), reason="power cut", by="lin")
    accept_runaways(operator.home, ("slurm:hpc1", f"7:{START}"), reason="node lost", by="lin")
    operator.close(NOVEMBER)
    assert sum(line[4] for line in lines_of(operator.document(NOVEMBER, "c-line", "invoice"))) == 100 + 80 + 600

    for word in (Word("amend", "ticket", "lin", {"cpus": 10}), Word("revert", "was right", "wu")):
        say_word(operator.home, "stories", "j-1", word)
    adjusted = say_word(operator.home, "stories", "j-0", Word("amend", "half", "lin", {"cpus": 5}))
    assert adjusted.adjusts == (NOVEMBER,)
    operator.used(Run("j-2", "llm", "2026-12-01T08:00", core_hours=10))
    operator.at("2027-01-01T10:00")
    operator.close(DECEMBER)
    december = operator.document(DECEMBER, "c-line", "invoice")
    assert sorted((line[0], line[4]) for line in lines_of(december)) == [("Adjustment", -50), ("Usage", 200)]
    with read_session(operator.home.engine) as session:
        told = event_history(operator.home, session, "stories", "j-0")
        taken_back = event_history(operator.home, session, "stories", "j-1")
    assert [(one.charged_in, int(one.amount)) for one in told.billed] == [(NOVEMBER, 100), (DECEMBER, -50)]
    assert [one.status for one in taken_back.revisions] == ["kept", "reverted", "reverted"]
    assert [(one.charged_in, int(one.amount)) for one in taken_back.billed] == [(NOVEMBER, 600)]
    operator.render()
    assert operator.rebuilt_to_the_byte() == []
    assert audit(operator.home).findings == ()
