"""Real logs with independent truth: two production clusters, our own Slurm, and XDMoD's fixtures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from metering.clusters import Cluster
from metering.collectors.slurm import read_sacct
from metering.events import USAGE_FACTS, Collected

pytestmark = pytest.mark.shared

HPC1 = Cluster(name="hpc1", timezone="Asia/Shanghai")
PHILLIPS = (
    "JobID,JobIDRaw,Cluster,Partition,QOS,Account,Group,GID,User,UID,Submit,Eligible,Start,End,Elapsed,ExitCode,State,"
    "NNodes,NCPUS,ReqCPUS,ReqMem,ReqTRES,AllocTRES,Timelimit,NodeList,JobName"
)
GRONINGEN = (
    "JobIDRaw,JobName,User,Partition,NodeList,NNodes,NCPUs,NTasks,State,Submit,Start,End,Timelimit,Elapsed,TotalCPU,"
    "CPUTime,UserCPU,SystemCPU,ReqMem,MaxRSS,MaxVMSize,ReqTRES,AllocTRES,TRESUsageInMax,TRESUsageInTot,"
    "TRESUsageOutTot,MaxDiskRead,MaxDiskWrite,MaxRSSNode,MaxRSSTask,MaxVMSizeNode,MaxVMSizeTask,MaxDiskReadNode,"
    "MaxDiskReadTask,MaxDiskWriteNode,MaxDiskWriteTask,Comment"
)

HELD = pl.col("end_second") - pl.col("start_second")


def core_seconds(events: pl.DataFrame) -> int:
    return int(events.select(((HELD - pl.col("suspended_seconds")) * pl.col("cpus")).sum()).item())


def card_seconds(events: pl.DataFrame) -> Fraction:
    total = 0
    for held, cards in events.select(HELD, "cards").iter_rows():
        total += held * sum(int(part.rpartition(":")[2]) for part in cards.split(";") if part)
    return Fraction(total, 1000)


def dump(shared_data: Path, name: str) -> Collected:
    return read_sacct((shared_data / "slurm/dumps" / name).read_bytes(), cluster=HPC1)


CLEAN = "D9_final_all/sacct-epoch-name-last.psv"


def test_the_clean_log_gives_its_known_seconds(shared_data: Path) -> None:
    clean = dump(shared_data, CLEAN)
    assert (clean.rows, clean.rejected, clean.no_usage) == (294, (), {"never_started": 4})
    assert core_seconds(clean.events) == 22_054
    assert card_seconds(clean.events) == 3_198 + 12 * 2  # cards keep the 12 s that job 60 stood suspended


def test_counting_resized_jobs_from_their_first_start_gives_another_figure(shared_data: Path) -> None:
    rows = (shared_data / "slurm/dumps" / CLEAN).read_text().split("\n")
    header, cells = rows[0].split("|"), [row.split("|") for row in rows[1:] if row]
    elapsed, cpus = header.index("ElapsedRaw"), header.index("NCPUS")
    assert sum(int(row[elapsed]) * int(row[cpus]) for row in cells) == 22_103


@pytest.mark.parametrize(
    ("folder", "rows", "broken"),
    [
        ("D1_early", 74, 6),
        ("D2_0500", 119, 6),
        ("D3_0500_sub", 84, 0),
        ("D4_0501", 145, 1),
        ("D5_0503", 180, 1),
        ("D6_0504", 277, 7),
        ("D7_0519", 181, 1),
        ("D7b_wide", 283, 7),
        ("D9_final_all", 294, 7),
        ("D9_final_hour04", 119, 6),
    ],
)
def test_every_row_of_every_dump_is_accounted_for(shared_data: Path, folder: str, rows: int, broken: int) -> None:
    collected = dump(shared_data, f"{folder}/sacct.psv")
    assert collected.rows == rows
    assert collected.events.height + len(collected.rejected) + sum(collected.no_usage.values()) == rows
    assert [found.code for found in collected.rejected] == ["broken_row"] * broken
    kept_by_the_clean_file = set(dump(shared_data, CLEAN).events["id"])
    assert {found.event_id for found in collected.rejected} <= kept_by_the_clean_file


def test_seven_rows_are_broken_over_fifteen_lines(shared_data: Path) -> None:
    broken = dump(shared_data, "D9_final_all/sacct.psv").rejected
    assert sum(found.raw.count(b"\n") + 1 for found in broken) == 15
    assert [(found.line, found.month) for found in broken] == [
        (line, "2026-11") for line in (7, 8, 21, 22, 23, 28, 208)
    ]
    missing = core_seconds(dump(shared_data, CLEAN).events) - core_seconds(
        dump(shared_data, "D9_final_all/sacct.psv").events
    )
    assert missing == 36


@pytest.mark.parametrize("ending", ["\ny", "", "\n||||y", "|y"])
def test_a_row_forged_into_a_name_of_the_real_log_is_not_billed(shared_data: Path, ending: str) -> None:
    path = shared_data / "slurm/dumps/D9_final_all/sacct.psv"
    lines = path.read_bytes().split(b"\n")
    forged = lines[1].replace(b"hpc1|1|1|1|", b"hpc1|666|666|666|", 1)
    at = next(number for number, line in enumerate(lines) if line.startswith(b"hpc1|250|250|"))
    cells = lines[at].split(b"|")
    cells[4] += b"\n" + forged + ending.encode()
    lines[at] = b"|".join(cells)
    collected = read_sacct(b"\n".join(lines), cluster=HPC1)
    naive = sum(line.count(b"|") == len(cells) - 1 and b"|666|666|" in line for line in b"\n".join(lines).split(b"\n"))
    assert naive == (ending.startswith("\n")), "counting columns line by line would bill it"
    assert not collected.events["id"].str.starts_with("666:").any()
    assert any(b"|666|666|" in found.raw for found in collected.rejected)
    assert collected.events.height == 282, "only the forging row itself is lost"


def test_the_latest_revisions_of_all_dumps_are_the_clean_log(shared_data: Path) -> None:
    names = [
        f"{folder.name}/sacct.psv" for folder in sorted((shared_data / "slurm/dumps").iterdir()) if folder.is_dir()
    ]
    assert len(names) == 10
    everything = pl.concat([dump(shared_data, name).events for name in (*names, CLEAN)])
    latest = everything.filter(pl.col("revision") == pl.col("revision").max().over("id"))
    facts = ["id", *USAGE_FACTS]
    clean = dump(shared_data, CLEAN).events.select(facts).sort("id")
    assert latest.select(facts).unique().sort("id").equals(clean)


def test_steps_are_no_usage(shared_data: Path) -> None:
    collected = dump(shared_data, "D9_final_all/sacct-with-steps.psv")
    assert collected.no_usage["step"] > 280
    assert core_seconds(collected.events) == 22_054 - 36


def test_leaving_out_duplicates_loses_requeued_attempts(shared_data: Path) -> None:
    without = dump(shared_data, "D9_final_all/sacct-epoch-name-last-without-duplicates.psv")
    assert core_seconds(without.events) == 22_054 - 838


def test_a_production_log_equals_what_xdmod_computed(shared_data: Path) -> None:
    payload = (shared_data / "xdmod/phillips.log.gz").read_bytes()
    utc = ZoneInfo("UTC")
    collected = read_sacct(payload, cluster=Cluster(name="phillips"), timezone=utc, columns=PHILLIPS.split(","))
    assert (collected.rows, collected.events.height, collected.rejected) == (4285, 4046, ())
    assert collected.no_usage == {"never_started": 239}
    assert round(Fraction(core_seconds(collected.events), 3600), 4) == Fraction("11767.9883")
    assert round(card_seconds(collected.events) / 3600, 4) == Fraction("506.9128")
    assert not collected.events["revision"].is_null().any()


def test_a_log_with_snowmen_between_its_fields_gives_its_known_hours(shared_data: Path) -> None:
    payload = (shared_data / "traces/groningen/hb-jobinfo_sacct.txt").read_bytes()
    collected = read_sacct(
        payload,
        cluster=Cluster(name="habrok", timezone="Europe/Amsterdam"),
        columns=GRONINGEN.split(","),
        delimiter="☃",
    )
    assert (collected.rows, collected.no_usage["step"], collected.rejected) == (242, 142, ())
    assert round(Fraction(core_seconds(collected.events), 3600)) == 121_009
    assert round(card_seconds(collected.events) / 3600, 1) == Fraction("220.4")


def test_card_partitions_find_the_jobs_whose_cards_groningen_did_not_record(shared_data: Path) -> None:
    payload = (shared_data / "traces/groningen/hb-jobinfo_sacct.txt").read_bytes()
    partitions = ("gpushort", "gpumedium", "gpulong")
    cluster = Cluster(name="habrok", timezone="Europe/Amsterdam", card_partitions=partitions)
    collected = read_sacct(payload, cluster=cluster, columns=GRONINGEN.split(","), delimiter="☃")
    assert [found.code for found in collected.rejected] == ["cards_missing"] * 7


@pytest.mark.parametrize(
    ("name", "cluster", "kept", "codes", "no_usage"),
    [
        ("accounting-logs", "ub-hpc", 4, [], {}),
        ("accounting-logs-with-job-arrays", "ub-hpc", 1, ["array_summary"] * 5, {}),
        ("non-ended-job-state", "phillips", 1, [], {"pending": 1}),
        ("unknown-job-state", "phillips", 0, ["unknown_state"] * 2, {}),
        ("utf8-multibyte-chars", "ub-hpc", 1, [], {}),
    ],
)
def test_xdmods_own_fixtures(
    shared_data: Path, name: str, cluster: str, kept: int, codes: list[str], no_usage: dict[str, int]
) -> None:
    payload = (shared_data / f"xdmod/unit-fixtures/slurm/input/{name}.log").read_bytes()
    collected = read_sacct(
        payload, cluster=Cluster(name=cluster), timezone=ZoneInfo("UTC"), columns=PHILLIPS.split(",")
    )
    assert collected.events.height == kept
    assert [found.code for found in collected.rejected] == codes
    assert collected.no_usage == no_usage
