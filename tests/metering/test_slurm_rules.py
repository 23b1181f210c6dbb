"""A row of sacct becomes usage, is no usage for a reason, or is refused with a code: never silently anything else."""

from __future__ import annotations

import json
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from metering.clusters import CardGres, Cluster
from metering.collectors.slurm import read_sacct
from metering.collectors.slurm_fields import FINAL_STATES, STATES
from metering.events import Collected, RejectedEvent

SUBMIT, START, END = 1_795_294_600, 1_795_294_603, 1_795_294_845
ENDED = 2**40
HPC1 = Cluster(name="hpc1", timezone="Asia/Shanghai")

ROW = {
    "JobID": "4711",
    "JobIDRaw": "4711",
    "Cluster": "hpc1",
    "DBIndex": "17",
    "Account": "grp_ml",
    "User": "sl_carol",
    "UID": "1003",
    "Partition": "gpu",
    "QOS": "normal",
    "State": "COMPLETED",
    "ExitCode": "0:0",
    "Submit": str(SUBMIT),
    "Start": str(START),
    "End": str(END),
    "ElapsedRaw": "242",
    "Suspended": "00:00:00",
    "NNodes": "1",
    "NCPUS": "4",
    "ReqTRES": "billing=1,cpu=1,mem=1000M,node=1",
    "AllocTRES": "billing=4,cpu=4,mem=4000M,node=1",
    "NodeList": "gn01",
    "Timelimit": "1-00:10:00",
    "JobName": "train",
}


def log(*rows: dict[str, str], without: tuple[str, ...] = ()) -> bytes:
    """Write rows, each the usual one with some cells changed, as sacct does."""
    columns = [column for column in ROW if column not in without]
    lines = [columns] + [[(ROW | row)[column] for column in columns] for row in rows]
    return "".join("|".join(line) + "\n" for line in lines).encode()


def read(*rows: dict[str, str], cluster: Cluster = HPC1, without: tuple[str, ...] = ()) -> Collected:
    collected = read_sacct(log(*rows, without=without), cluster=cluster)
    assert collected.rows == len(rows), "every row is in exactly one of the three"
    return collected


def event(*cluster: Cluster, **cells: str) -> dict[str, Any]:
    collected = read(cells, cluster=cluster[0] if cluster else HPC1)
    assert collected.rejected == ()
    return collected.events.row(0, named=True)


def refused(*cluster: Cluster, **cells: str) -> RejectedEvent:
    collected = read(cells, cluster=cluster[0] if cluster else HPC1)
    assert collected.events.is_empty()
    return collected.rejected[0]


def test_a_finished_job_is_one_event_with_all_its_facts() -> None:
    found = event()
    evidence = json.loads(found.pop("evidence"))
    assert found == {
        "source": "slurm:hpc1",
        "id": f"4711:{SUBMIT}",
        "revision": 242 + ENDED,
        "revision_derived": True,
        "cluster": "hpc1",
        "partition": "gpu",
        "qos": "normal",
        "account": "grp_ml",
        "user": "sl_carol",
        "job": "4711",
        "state": "COMPLETED",
        "start_second": START,
        "end_second": END,
        "ended": True,
        "suspended_seconds": 0,
        "cpus": 4,
        "nodes": 1,
        "memory_bytes": 4000 * 2**20,
        "cards": "",
        "counters": "",
    }
    assert evidence["db_index"] == 17
    assert evidence["uid"] == 1003
    assert evidence["time_limit_seconds"] == 87_000
    assert evidence["line"] == 2


def test_what_was_allocated_counts_not_what_was_requested() -> None:
    assert event()["cpus"] == 4  # ReqTRES says 1
    assert event(NCPUS="9")["cpus"] == 4  # AllocTRES is the allocation
    assert event(AllocTRES="", NCPUS="9", NNodes="3")["cpus"] == 9  # an older log without it
    assert event(AllocTRES="", NCPUS="9", NNodes="3")["nodes"] == 3


def test_a_running_job_counts_as_far_as_its_row_states() -> None:
    found = event(State="RUNNING", End="Unknown", ElapsedRaw="100")
    assert (found["end_second"], found["ended"], found["revision"]) == (START + 100, False, 100)


def test_a_suspended_job_grows_by_its_suspension_and_keeps_its_elapsed_time() -> None:
    earlier = event(State="SUSPENDED", End="Unknown", ElapsedRaw="39", Suspended="00:00:10")
    later = event(State="SUSPENDED", End="Unknown", ElapsedRaw="39", Suspended="00:02:07")
    assert (earlier["revision"], later["revision"]) == (49, 166)
    assert (later["end_second"], later["suspended_seconds"]) == (START + 166, 127)


def test_a_repaired_runaway_that_ended_at_once_beats_the_row_that_ran() -> None:
    running = event(State="RUNNING", End="Unknown", ElapsedRaw="801")
    repaired = event(State="FAILED", End=str(START), ElapsedRaw="0")
    assert repaired["revision"] > running["revision"]
    assert repaired["end_second"] == repaired["start_second"]


def test_a_resized_job_counts_from_the_resize_not_from_its_first_start() -> None:
    found = event(Submit=str(START + 200), ElapsedRaw="242")
    assert (found["start_second"], found["end_second"]) == (START + 200, END)
    assert found["id"] == f"4711:{START + 200}"
    assert found["revision"] == 242 + ENDED
    naive = 4 * 242  # NCPUS × ElapsedRaw bills the time before the resize again
    assert (found["end_second"] - found["start_second"]) * found["cpus"] == 168 != naive


def test_a_resized_job_that_runs_on_ends_where_its_row_states() -> None:
    found = event(Submit=str(START + 200), State="RUNNING", End="Unknown", ElapsedRaw="210")
    assert (found["start_second"], found["end_second"]) == (START + 200, START + 210)


def test_suspended_time_that_an_older_log_leaves_out_follows_from_its_elapsed_time() -> None:
    stated = event(ElapsedRaw="200", Suspended="00:00:42")
    derived = read({"ElapsedRaw": "200"}, without=("Suspended",)).events.row(0, named=True)
    assert derived["suspended_seconds"] == stated["suspended_seconds"] == 42
    assert derived["revision"] == stated["revision"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("1-02:03:04", 93_784), ("02:03:04", 7384), ("03:04", 184), ("00:02:31.123", 151)]
)
def test_elapsed_time_may_be_text(text: str, seconds: int) -> None:
    payload = log({"ElapsedRaw": text, "State": "RUNNING", "End": "Unknown"}).replace(b"ElapsedRaw", b"Elapsed", 1)
    assert read_sacct(payload, cluster=HPC1).events["revision"].to_list() == [seconds]


@pytest.mark.parametrize("state", sorted(set(FINAL_STATES) - {"REVOKED"}))
def test_every_final_state_is_usage(state: str) -> None:
    assert event(State=state)["state"] == state


def test_the_state_is_its_first_word() -> None:
    assert event(State="CANCELLED by 423120")["state"] == "CANCELLED"


@pytest.mark.parametrize("state", ["FOO", "", "CANCELLED+", "COMPLETEDX"])
def test_an_unknown_state_is_refused_by_name(state: str) -> None:
    found = refused(State=state)
    assert found.code == "unknown_state"
    assert repr(state) in found.message
    assert (found.event_id, found.month) == (f"4711:{SUBMIT}", "2026-11")
    assert state not in STATES


@pytest.mark.parametrize(
    ("reason", "cells"),
    [
        ("never_started", {"State": "CANCELLED by 0", "Start": "None", "NodeList": "None assigned", "ElapsedRaw": "0"}),
        ("never_started", {"State": "CANCELLED", "End": str(START), "NodeList": "None assigned", "ElapsedRaw": "0"}),
        ("never_started", {"State": "CANCELLED", "NodeList": "None assigned"}),  # even with times and AllocTRES
        ("never_started", {"State": "TIMEOUT", "Start": "0", "NodeList": "", "ElapsedRaw": "0"}),
        ("never_started", {"State": "DEADLINE", "Start": "Unknown", "NodeList": "", "ElapsedRaw": "0"}),
        ("never_started", {"State": "FAILED", "End": str(START), "NodeList": "", "ElapsedRaw": "0"}),
        ("never_started", {"JobID": "9_[8-20%4]", "State": "CANCELLED", "Start": "None", "ElapsedRaw": "0"}),
        ("pending", {"State": "PENDING", "Start": "Unknown", "End": "Unknown", "NodeList": "None assigned"}),
        ("pending", {"JobID": "9_[1-3]", "State": "PENDING", "Start": "Unknown", "End": "Unknown"}),
        ("step", {"JobID": "4711.batch", "JobIDRaw": "4711.batch"}),
        ("step", {"JobID": "4711_3.0", "JobIDRaw": "4720.0"}),
        ("revoked", {"State": "REVOKED"}),
    ],
)
def test_rows_without_usage_are_counted_by_reason(reason: str, cells: dict[str, str]) -> None:
    collected = read(cells)
    assert collected.no_usage == {reason: 1}


def test_a_job_of_zero_seconds_on_a_node_is_a_job() -> None:
    found = event(State="FAILED", End=str(START), ElapsedRaw="0")
    assert found["start_second"] == found["end_second"]
    assert (found["cpus"], found["ended"]) == (4, True)


def test_steps_would_double_the_usage() -> None:
    rows: list[dict[str, str]] = [{}, {"JobID": "4711.batch", "JobIDRaw": "4711.batch"}]
    collected = read(*rows)
    assert collected.events["cpus"].sum() == 4
    assert sum(int(ROW["NCPUS"]) for _ in rows) == 8


def test_each_attempt_array_task_and_component_is_an_event_of_its_own() -> None:
    again = {"Submit": str(SUBMIT + 500), "Start": str(START + 500), "End": str(END + 500)}
    task = {"JobID": "4711_7", "JobIDRaw": "4718"}
    component = {"JobID": "4711+1", "JobIDRaw": "4712"}
    collected = read({"State": "REQUEUED"}, again, task, component)
    assert collected.events["id"].to_list() == [
        f"4711:{SUBMIT}",
        f"4711:{SUBMIT + 500}",
        f"4718:{SUBMIT}",
        f"4712:{SUBMIT}",
    ]
    assert collected.events["job"].to_list() == ["4711", "4711", "4711_7", "4711+1"]


@pytest.mark.parametrize(
    ("code", "cells"),
    [
        ("array_summary", {"JobID": "4711_[1-3]"}),
        ("broken_row", {"JobIDRaw": "train"}),
        ("broken_row", {"JobIDRaw": ""}),
        ("bad_time", {"Start": "yesterday"}),
        ("bad_time", {"Submit": "Unknown"}),
        ("bad_time", {"End": "999999999999999"}),
        ("bad_duration", {"ElapsedRaw": "INVALID"}),
        ("bad_duration", {"Suspended": "a while"}),
        ("missing_start", {"Start": "Unknown", "State": "RUNNING", "End": "Unknown"}),
        ("missing_start", {"Start": "Unknown"}),
        ("missing_end", {"End": "Unknown"}),
        ("missing_end", {"State": "REQUEUED", "End": "Unknown"}),
        ("inconsistent_time", {"End": str(START - 1)}),
        ("inconsistent_time", {"Suspended": "243"}),
        ("inconsistent_time", {"Submit": str(END + 1)}),
        ("inconsistent_state", {"State": "PENDING"}),
        ("cpus_missing", {"AllocTRES": "", "NCPUS": ""}),
        ("bad_tres", {"AllocTRES": "cpu=many"}),
        ("cards_contradict", {"AllocTRES": "cpu=4,gres/gpu:a100=3,gres/gpu=2"}),
        ("unknown_gres", {"AllocTRES": "cpu=4,gres/fpga=1"}),
    ],
)
def test_a_row_that_cannot_be_true_is_refused(code: str, cells: dict[str, str]) -> None:
    found = refused(**cells)
    assert found.code == code
    assert found.line == 2
    assert found.raw == log(cells).split(b"\n")[1]
    assert found.source == "slurm:hpc1"


def test_another_clusters_row_is_refused_by_name() -> None:
    found = refused(Cluster="ai2")
    assert found.code == "foreign_cluster"
    assert "--cluster ai2" in found.message
    # Imported where it belongs, the kept row resolves this one.
    assert (found.source, found.event_id) == ("slurm:ai2", f"4711:{SUBMIT}")


def test_a_job_in_a_card_partition_without_cards_is_refused() -> None:
    cluster = Cluster(name="hpc1", card_partitions=("gpu",))
    found = refused(cluster)
    assert (found.code, "AccountingStorageTRES" in found.message) == ("cards_missing", True)
    assert event(cluster, AllocTRES="cpu=4,gres/gpu=1")["cards"] == "unknown:1000"
    assert event(cluster, Partition="cpu")["cards"] == ""


def test_cards_count_by_the_rules_when_the_attempt_started() -> None:
    card = CardGres(gres="mlu", model="mlu370", effective_from=date(2026, 11, 22))
    cluster = Cluster(name="hpc1", timezone="Asia/Shanghai", cards=(card,))
    midnight = 1_795_276_800  # of 22 November in Shanghai
    after = {"Start": str(midnight), "Submit": str(midnight), "End": str(midnight + 242)}
    before = {"Start": str(midnight - 1), "Submit": str(midnight - 1), "End": str(midnight + 241)}
    assert event(cluster, AllocTRES="cpu=4,gres/mlu=1", **after)["cards"] == "mlu370:1000"
    assert refused(cluster, AllocTRES="cpu=4,gres/mlu=1", **before).code == "unknown_gres"


def test_the_account_is_written_in_lower_case() -> None:
    assert event(Account="GRP_ML")["account"] == "grp_ml"


def test_naive_times_are_read_in_the_declared_zone() -> None:
    naive = {"Submit": "2026-11-22T04:56:40", "Start": "2026-11-22T04:56:43", "End": "2026-11-22T05:00:45"}
    assert event(**naive)["id"] == f"4711:{SUBMIT}"
    assert event(**naive)["end_second"] == END
    in_utc = read_sacct(log(naive), cluster=HPC1, timezone=ZoneInfo("UTC")).events
    assert in_utc["start_second"].to_list() == [START + 8 * 3600]


def test_times_that_state_their_offset_need_no_zone() -> None:
    stated = {"Submit": "2026-11-22T04:56:40+0800", "Start": "2026-11-21T20:56:43+00:00"}
    assert event(Cluster(name="hpc1"), **stated)["start_second"] == START


@pytest.mark.parametrize("clock", ["2026-11-01T01:30:00", "2026-03-08T02:30:00"])
def test_a_time_that_the_clock_showed_twice_or_never_is_refused(clock: str) -> None:
    new_york = Cluster(name="hpc1", timezone="America/New_York")
    found = refused(new_york, End=clock)
    assert (found.code, "SLURM_TIME_FORMAT=%s" in found.message) == ("ambiguous_time", True)


def test_usage_in_two_months_is_of_no_single_month_and_blocks_each_close() -> None:
    first = 1_793_491_200  # 1 November 2026, 00:00 UTC
    times = {"Submit": str(first - 200), "Start": str(first - 200), "End": str(first + 42)}
    assert refused(State="FOO", **times).month == ""
    assert refused(State="FOO", **(times | {"Start": str(first)})).month == "2026-11"


@pytest.mark.parametrize(
    ("column", "text", "seconds"),
    [
        ("Timelimit", "1-00:10:00", 87_000),
        ("Timelimit", "00:05:00", 300),
        ("Timelimit", "UNLIMITED", None),
        ("Timelimit", "Partition_Limit", None),
        ("Timelimit", "", None),
        ("TimelimitRaw", "5", 300),  # minutes
        ("TimelimitRaw", "UNLIMITED", None),
        ("TimelimitRaw", "Partition_Limit", None),
    ],
)
def test_the_time_limit_stands_in_the_evidence_in_seconds(column: str, text: str, seconds: int | None) -> None:
    columns = [name for name in ROW if name != "Timelimit"] + [column]
    lines = ["|".join(columns), "|".join((ROW | {column: text})[name] for name in columns)]
    collected = read_sacct("\n".join(lines).encode(), cluster=HPC1)
    assert json.loads(collected.events["evidence"][0])["time_limit_seconds"] == seconds


def test_a_refused_row_of_a_running_job_is_one_of_many_and_that_of_an_ended_one_is_the_last() -> None:
    assert refused(AllocTRES="cpu=4,gres/fpga=1", State="RUNNING", End="Unknown").provisional
    assert not refused(AllocTRES="cpu=4,gres/fpga=1").provisional
