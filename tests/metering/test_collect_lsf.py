"""Accounting of LSF: lsb.acct."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from metering.clusters import Cluster
from metering.collectors.lsf import LsfOptions, read_lsf
from metering.events import Collected

from .collecting import hours_in_all, only, quantities, refusal, said, statuses

HPC = Cluster(name="hpc", card_models={"a100": "a100"})
START = 1_795_276_800
HOUR = 3600


def record(
    *,
    hosts: tuple[str, ...] = ("n1", "n1"),
    start: int = START,
    end: int = START + HOUR,
    run_time: int | None = HOUR,
    effective: str = "select[type == local]",
    **stated: str,
) -> bytes:
    """Return one record of a job of an hour on two slots of one host, but for what is stated."""
    said = {
        "type": "JOB_FINISH",
        "job": "404",
        "user": "li",
        "queue": "regular",
        "asked": "0",
        "command": "run",
        "status": "64",
        "project": "grp",
        "index": "0",
        "exit_info": "0",
        "resized": str(start),
        "res_req": "",
        **stated,
    }
    head = [q(said["type"]), q("10.1"), end, said["job"], 1000, 33, 1, start - 60, 0, 0, start]
    head += [q(said["user"]), q(said["queue"]), q(said["res_req"]), *[q("")] * 2, q("login"), q("/cwd"), *[q("")] * 4]
    head += [said["asked"], *[q("asked")] * int(said["asked"]), len(hosts), *[q(host) for host in hosts]]
    tail: list[object] = [said["status"], 60.0, q("name"), q(said["command"]), *[-1] * 19, q(""), q(said["project"])]
    tail += [0, 1, q(""), q(""), said["index"], 0, 0, *[q("")] * 4, 0, q(""), said["exit_info"], q(""), -1, q("/fair")]
    tail += [q(""), q("app"), q(""), -1, q(""), q(""), 0, q(""), said["resized"], q(""), q(""), 0]
    usage: list[object] = [len(set(hosts)), *(part for host in sorted(set(hosts)) for part in (host, 1, 0, 2, 3, 0))]
    late: list[object] = []
    if run_time is not None:
        late = [43_200, 0, 99, q(effective), q(""), -1, q(""), -1, 0, q(""), 0, 0, q("out"), run_time, q("/sub")]
    return " ".join(str(part) for part in [*head, *tail, *usage, *late]).encode() + b"\n"


def q(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def read(*records: bytes, cluster: Cluster = HPC) -> Collected:
    collected = read_lsf(b"".join(records), cluster=cluster)
    assert collected.rows == len(records)
    return collected


@pytest.mark.shared
@pytest.mark.parametrize("number", [0, 1])
def test_xdmods_fixtures_are_read_as_xdmod_reads_them(shared_data: Path, number: int) -> None:
    folder = shared_data / "xdmod/unit-fixtures/lsf"
    line = (folder / "input/accounting-logs.log").read_bytes().splitlines()[number]
    theirs = json.loads((folder / "output/accounting-logs.json").read_text())[number]
    event = only(read_lsf(line, cluster=HPC))
    assert event["start_second"] == int(theirs["start_time"])
    assert event["end_second"] == int(theirs["event_time"])
    assert event["nodes"] == int(theirs["num_ex_hosts"])
    assert (event["user"], event["partition"], event["account"]) == ("anonuser", "regular", "anonproject")
    assert theirs["num_processors"] == "128"
    # The second record names 8 slots and claims 128 processors, which are those that were asked for at first.
    assert event["cpus"] == (128, 8)[number]
    assert "18338657682652659712" in theirs.values(), "a field beyond 64 bits does not disturb its neighbours"


@pytest.mark.shared
def test_a_script_with_quotes_in_it_is_one_field(shared_data: Path) -> None:
    line = (shared_data / "xdmod/unit-fixtures/lsf/input/accounting-logs.log").read_bytes().splitlines()[0]
    assert b'-R ""span[ptile=16]""' in line
    behind_hosts = 24 + 8
    naive = line.split(b" ")[behind_hosts + 24]
    assert naive != b'"anonproject"', "split at blanks, another field stands where the project should"
    assert only(read_lsf(line, cluster=HPC))["account"] == "anonproject"


@pytest.mark.shared
def test_multibyte_text_is_read_as_it_is(shared_data: Path) -> None:
    collected = read_lsf(
        (shared_data / "xdmod/unit-fixtures/lsf/input/utf8-multibyte-chars.log").read_bytes(), cluster=HPC
    )
    assert only(collected)["cpus"] == 128
    assert quantities(collected) == {
        "cpu": quantities(collected)["wall"] * 128,
        "node": quantities(collected)["wall"] * 8,
        "wall": quantities(collected)["wall"],
    }


def test_a_record_reads_the_same_as_with_the_csv_module() -> None:
    line = record(hosts=("16*n1", "16*n2"), command='say "hi" | tee "x y"').decode()
    (fields,) = csv.reader([line.strip()], delimiter=" ", doublequote=True)
    event = only(read(line.encode()))
    assert (fields[11], fields[12]) == (event["user"], event["partition"])
    assert fields[24:26] == ["16*n1", "16*n2"]
    assert event["cpus"] == 32


@pytest.mark.parametrize(
    ("hosts", "cpus", "nodes"),
    [(("n1",), 1, 1), (("n1", "n1", "n2"), 3, 2), (("16*n1", "16*n2"), 32, 2), (("4*n1", "n2", "4*n1"), 9, 2)],
)
def test_slots_and_hosts_are_counted_from_the_list_of_hosts(hosts: tuple[str, ...], cpus: int, nodes: int) -> None:
    event = only(read(record(hosts=hosts)))
    assert (event["cpus"], event["nodes"]) == (cpus, nodes)


@pytest.mark.parametrize("asked", ["0", "3", "17"])
def test_lists_of_any_length_do_not_move_what_stands_behind_them(asked: str) -> None:
    event = only(read(record(asked=asked, hosts=("n1",) * 9, project="grp", index="7")))
    assert (event["account"], event["cpus"], event["job"]) == ("grp", 9, "404[7]")


def test_suspended_time_comes_off_cpus_only() -> None:
    collected = read(record(run_time=HOUR - 600))
    assert only(collected)["suspended_seconds"] == 600
    held = quantities(collected)
    assert [held["cpu"] * 3600, held["wall"] * 3600] == [2 * 3000, 3600]


@pytest.mark.parametrize("run_time", [None, HOUR + 1, -1])
def test_a_run_time_that_is_not_there_or_not_of_this_attempt_takes_nothing_off(run_time: int | None) -> None:
    collected = read(record(run_time=run_time))
    assert only(collected)["suspended_seconds"] == 0
    assert bool(collected.notes) == (run_time is None)


@pytest.mark.parametrize(
    ("effective", "cards"),
    [
        ("select[ngpus>0] rusage[ngpus_physical=2.00]", "unknown:4000"),
        ("rusage[mem=10,ngpus_physical=1.00/task]", "unknown:3000"),
        ("rusage[ngpus_excl_p=1/host]", "unknown:2000"),
        ("rusage[ngpus_physical=3.00/job]", "unknown:3000"),
        ("rusage[ngpus_physical=1.00:gmodel=A100]", "a100:2000"),
        ("select[ngpus>0] span[ptile=2]", ""),
    ],
)
def test_cards_are_what_the_requirement_reserves_on_each_host(effective: str, cards: str) -> None:
    assert only(read(record(hosts=("n1", "n1", "n2"), effective=effective)))["cards"] == cards


def test_a_cluster_may_count_requests_of_cards_by_slot() -> None:
    line = record(hosts=("n1", "n1", "n2"), effective="rusage[ngpus_physical=1]")
    collected = read_lsf(line, cluster=HPC, options=LsfOptions(cards_per="slot"))
    assert only(collected)["cards"] == "unknown:3000"
    assert any("requirement" in note for note in collected.notes)


def test_a_job_without_a_card_in_a_card_queue_is_refused() -> None:
    assert refusal(read(record(queue="gpu"), cluster=Cluster(name="hpc", card_partitions=("gpu",)))).code == (
        "cards_missing"
    )


def test_slots_that_bind_several_cores_hold_them_all() -> None:
    assert only(read(record(hosts=("n1", "n2"), effective="rusage[mem=1] affinity[core(4)*1]")))["cpus"] == 8


def test_a_job_that_was_never_dispatched_is_no_usage() -> None:
    assert read(record(start=0, hosts=())).no_usage == {"never_started": 1}


def test_each_run_of_a_requeued_job_is_an_attempt() -> None:
    first = record(end=START + 600, run_time=600, status="32", exit_info="11")
    collected = read(first, record(start=START + 900))
    assert collected.events["state"].to_list() == ["REQUEUED", "COMPLETED"]
    assert hours_in_all(collected)["jobs"] == 2
    assert statuses(collected, read(first)) == {"kept": 2, "duplicate": 1}


def test_numbers_come_round_again() -> None:
    assert statuses(read(record()), read(record(start=START + 40 * 86_400, end=START + 40 * 86_400 + 60))) == {
        "kept": 2
    }


@pytest.mark.parametrize(
    ("stated", "state"),
    [
        ({"status": "64"}, "COMPLETED"),
        ({"status": "192"}, "COMPLETED"),
        ({"status": "32"}, "FAILED"),
        ({"status": "32", "exit_info": "5"}, "TIMEOUT"),
        ({"status": "32", "exit_info": "14"}, "CANCELLED"),
    ],
)
def test_the_state_tells_how_it_ended(stated: dict[str, str], state: str) -> None:
    start = {"start": START}
    assert only(read(record(**stated, **start)))["state"] == state  # type: ignore[arg-type]


def test_a_status_nobody_knows_is_refused() -> None:
    assert refusal(read(record(status="4"))).code == "unknown_state"


def test_a_resized_job_waits_for_a_person() -> None:
    refused = refusal(read(record(resized=str(START + 60))))
    assert (refused.code, refused.event_id) == ("resized_job", f"404:{START}")


@pytest.mark.parametrize("cut", [30, 120, 400])
def test_a_record_that_is_cut_short_is_refused_whole(cut: int) -> None:
    line = record(command="x" * 400)
    short = line[:cut] + b"\n"
    refused = refusal(read(short))
    assert (refused.code, refused.raw) == ("broken_row", short[:-1])


def test_other_records_are_counted_or_refused() -> None:
    assert read(b'"EVENT_ADRSV_FINISH" "10.1" 1 2\n', b'"JOB_RESIZE" "10.1" 1 2\n').no_usage == {
        "reservation": 1,
        "resize": 1,
    }
    assert refusal(read(b'"JOB_NEW" "10.1" 1 2\n')).code == "unknown_type"


def test_evidence_keeps_what_was_asked_for() -> None:
    assert said(only(read(record())))["processors"] == 1
