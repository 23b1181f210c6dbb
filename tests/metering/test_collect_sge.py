"""Accounting of Grid Engine, in seconds and in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metering.clusters import Cluster
from metering.collectors.sge import SgeOptions, read_sge
from metering.events import Collected

from .collecting import hours_in_all, only, quantities, refusal, statuses

HPC = Cluster(name="hpc")
START = 1_795_276_800
NAMES = (
    *("qname", "hostname", "group", "owner", "job_name", "job_number", "account", "priority", "submission"),
    *("start", "end", "failed", "exit_status", "wallclock", "utime", "stime", "maxrss", "ixrss", "ismrss"),
    *("idrss", "isrss", "minflt", "majflt", "nswap", "inblock", "oublock", "msgsnd", "msgrcv", "nsignals"),
    *("nvcsw", "nivcsw", "project", "department", "granted_pe", "slots", "task_number", "cpu", "mem", "io"),
    *("category", "iow", "pe_taskid", "maxvmem", "arid", "ar_submitted"),
)


def record(**stated: object) -> bytes:
    """Return one line of a job of an hour on four slots of one host, but for what is stated."""
    ordinary: dict[str, object] = {
        **dict.fromkeys(NAMES, 0),
        "qname": "all.q",
        "hostname": "n1",
        "group": "g",
        "owner": "li",
        "job_name": "relax",
        "job_number": 17,
        "account": "sge",
        "submission": START - 60,
        "start": START,
        "end": START + 3600,
        "project": "NONE",
        "department": "phys",
        "granted_pe": "mpi",
        "slots": 4,
        "category": "-pe mpi 4",
        "pe_taskid": "NONE",
    }
    return ":".join(str({**ordinary, **stated}[name]) for name in NAMES).encode() + b"\n"


def read(*records: bytes, cluster: Cluster = HPC) -> Collected:
    collected = read_sge(b"".join(records), cluster=cluster)
    assert collected.rows == len(records)
    return collected


@pytest.mark.shared
@pytest.mark.parametrize("engine", ["sge", "uge"])
def test_xdmods_fixtures_are_read_as_xdmod_reads_them(shared_data: Path, engine: str) -> None:
    folder = shared_data / "xdmod/unit-fixtures" / engine
    theirs = json.loads((folder / "output/accounting-logs.json").read_text())
    collected = read_sge((folder / "input/accounting-logs.log").read_bytes(), cluster=HPC)
    assert (collected.rows, collected.rejected) == (2, ())
    for event, other in zip(collected.events.iter_rows(named=True), theirs, strict=True):
        assert (event["start_second"], event["end_second"]) == (int(other["start_time"]), int(other["end_time"]))
        assert (event["job"], event["cpus"]) == (other["job_number"], int(other["slots"]))
        assert (event["user"], event["partition"]) == (other["owner"], other["qname"])
        cards = int(other.get("resource_list_gpu", 0))
        assert event["cards"] == (f"unknown:{cards}000" if cards else "")


@pytest.mark.shared
def test_the_same_job_told_twice_with_other_limits_counts_once(shared_data: Path) -> None:
    log = (shared_data / "xdmod/unit-fixtures/sge/input/accounting-logs.log").read_bytes()
    assert statuses(read_sge(log, cluster=HPC)) == {"kept": 1, "duplicate": 1}


def test_milliseconds_are_not_taken_for_seconds() -> None:
    in_seconds = only(read(record()))
    in_thousandths = only(
        read(record(submission=(START - 60) * 1000, start=START * 1000 + 875, end=(START + 3600) * 1000 + 193))
    )
    assert in_thousandths["id"] == in_seconds["id"]
    assert in_thousandths["end_second"] == in_seconds["end_second"]


def test_tasks_of_a_parallel_environment_repeat_their_job_and_are_not_added_to_it() -> None:
    tasks = [record(hostname=f"n{n}", pe_taskid=f"{n}.n{n}", slots=4) for n in (1, 2)]
    collected = read(record(), *tasks)
    assert collected.no_usage == {"step": 2}
    naive = 4 * (1 + len(tasks))
    assert quantities(collected)["cpu"] == 4 != naive


def test_tasks_of_an_array_are_attempts_of_their_own() -> None:
    collected = read(record(task_number=1), record(task_number=2))
    assert collected.events["job"].to_list() == ["17.1", "17.2"]
    assert hours_in_all(collected)["jobs"] == 2


def test_a_rescheduled_job_is_counted_each_time_it_ran() -> None:
    collected = read(record(failed=25, end=START + 60), record(start=START + 120))
    assert collected.events["state"].to_list() == ["REQUEUED", "COMPLETED"]
    assert quantities(collected)["wall"] * 3600 == 60 + 3480


def test_a_job_that_never_started_is_no_usage() -> None:
    assert read(record(start=0, end=0, failed=1)).no_usage == {"never_started": 1}


@pytest.mark.parametrize(
    ("category", "per_job", "per_slot"),
    [
        ("-l gpu=1,h_rt=60 -pe mpi 4", "unknown:1000", "unknown:4000"),
        ("-u li -l h_rt=60 -l ngpus=2", "unknown:2000", "unknown:8000"),
        ("-l gpumem=16G,h_vmem=4G", "", ""),
        ("-q gpu=1.q", "", ""),
    ],
)
def test_cards_are_counted_as_the_cluster_grants_them(category: str, per_job: str, per_slot: str) -> None:
    line = record(category=category)
    assert only(read(line))["cards"] == per_job
    assert only(read_sge(line, cluster=HPC, options=SgeOptions(cards_per="slot")))["cards"] == per_slot


def test_a_parallel_job_does_not_say_on_how_many_hosts_it_ran_and_the_import_says_so() -> None:
    collected = read(record())
    assert only(collected)["nodes"] == 0
    assert any("node-hours are 0" in note for note in collected.notes)
    assert only(read(record(granted_pe="NONE", slots=1)))["nodes"] == 1


def test_categories_may_hold_colons() -> None:
    assert only(read(record(category="-l h=n1:n2,gpu=1")))["cards"] == "unknown:1000"
    assert read(record(category="-l h=n1:n2", pe_taskid="1.n2")).no_usage == {"step": 1}


def test_comments_are_counted_as_header_lines() -> None:
    assert read(b"# Version: 8.1\n", record()).no_usage == {"header": 1}


@pytest.mark.parametrize(
    "line", [b"all.q:n1:g:li\n", record(start="soon"), record(slots="many"), record(job_number="x")]
)
def test_a_line_that_cannot_be_read_is_refused(line: bytes) -> None:
    assert refusal(read(line)).code == "broken_row"


def test_slots_beyond_all_machines_are_refused() -> None:
    assert refusal(read(record(slots=99_999_999_999))).code == "number_range"
    assert refusal(read(record(slots=10**21))).code == "broken_row"


def test_an_end_before_the_start_is_refused() -> None:
    refused = refusal(read(record(end=START - 1)))
    assert (refused.code, refused.event_id) == ("inconsistent_time", f"17:{START}")


def test_the_account_may_stand_in_another_field() -> None:
    options = SgeOptions(account_from="department")
    assert only(read_sge(record(), cluster=HPC, options=options))["account"] == "phys"
    assert only(read_sge(record(), cluster=HPC, options=SgeOptions(account_from="project")))["account"] == ""
