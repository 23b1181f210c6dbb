"""Real parsed logs field by field, and what scheduler logs are known to get readers wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from metering.clusters import Cluster
from metering.collectors.lsf import read_lsf
from metering.collectors.pbs import read_pbs
from metering.collectors.sge import read_sge

from .collecting import only, said
from .test_collect_lsf import record as lsf
from .test_collect_pbs import record as pbs

HPC = Cluster(name="hpc")
Row = Mapping[str, Any]
# What we say besides the usage -> what XDMoD's reading of the same record calls it.
PBS = {"group": "groupname", "account": "account", "jobname": "jobname", "ctime": "ctime", "exit_status": "exit_status"}
PBS_DURATIONS = {"walltime": "resources_used_walltime", "limit": "resource_list_walltime"}
LSF = {
    "submit": "submit_time",
    "project": "project_name",
    "app": "app",
    "job_name": "job_name",
    "status": "j_status",
    "exit_info": "exit_info",
    "processors": "num_processors",
}
SGE_NAMES = ("hostname", "job_name", "project", "department", "granted_pe", "failed", "exit_status", "ru_wallclock")
SGE = {
    **{name: name for name in SGE_NAMES},
    "category": "category",
    "group": "groupname",
    "submitted": "submission_time",
}


def fixtures(shared_data: Path, kind: str) -> tuple[bytes, list[Row]]:
    folder = shared_data / "xdmod/unit-fixtures" / kind
    parsed = json.loads((folder / "output/accounting-logs.json").read_text("utf-8"))
    return (folder / "input/accounting-logs.log").read_bytes(), list(parsed.values()) if isinstance(
        parsed, dict
    ) else parsed


def differing(ours: Row, theirs: Row, names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Fields that both know and read differently."""
    pairs = {one: (text(ours[one]), text(theirs.get(other))) for one, other in names.items()}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def text(value: object) -> str:
    return "" if value is None else str(value)


def seconds(clock: str) -> str:
    parts = [int(part) for part in clock.split(":")] if clock else []
    return str(sum(part * 60**at for at, part in enumerate(reversed(parts)))) if parts else ""


@pytest.mark.shared
def test_what_pbs_records_say_besides_is_what_xdmod_reads(shared_data: Path) -> None:
    log, theirs = fixtures(shared_data, "pbs")
    rows = {row["job_id"]: row for row in theirs}
    collected = read_pbs(log, cluster=HPC)
    for event in collected.events.iter_rows(named=True):
        evidence, other = said(event), rows[event["job"].partition(".")[0]]
        clocks = {name: seconds(text(evidence[name])) for name in PBS_DURATIONS}
        # Where a record does not say how long its job took, XDMoD takes what lies between its times.
        clocks["walltime"] = clocks["walltime"] or text(event["end_second"] - event["start_second"])
        assert differing({**evidence, **clocks}, other, {**PBS, **PBS_DURATIONS}) == {}
        hosts = {part.partition("/")[0] for part in text(evidence["exec_host"]).split("+") if part}
        assert hosts == {host for host in other.get("node_list", "").split(",") if host}
    assert collected.events.height == 8


@pytest.mark.shared
@pytest.mark.parametrize("number", [0, 1])
def test_what_lsf_records_say_besides_is_what_xdmod_reads(shared_data: Path, number: int) -> None:
    log, theirs = fixtures(shared_data, "lsf")
    event = only(read_lsf(log.splitlines()[number], cluster=HPC))
    evidence = said(event)
    assert differing(evidence, theirs[number], LSF) == {}
    assert {host.rpartition("*")[2] for host in text(evidence["hosts"]).split()} == set(
        theirs[number]["node_list"].split(",")
    )
    assert (event["job"], event["start_second"]) == (theirs[number]["job_id"], int(theirs[number]["start_time"]))
    if number == 0:
        # XDMoD has no names for what stands behind the usage of each host.
        assert evidence["effective"] == theirs[0]["unknown47"]
        held = int(theirs[0]["event_time"]) - int(theirs[0]["start_time"])
        assert event["suspended_seconds"] == held - int(theirs[0]["unknown57"])


@pytest.mark.shared
@pytest.mark.parametrize("kind", ["sge", "uge"])
def test_what_grid_engine_records_say_besides_is_what_xdmod_reads(shared_data: Path, kind: str) -> None:
    log, theirs = fixtures(shared_data, kind)
    collected = read_sge(log, cluster=HPC)
    for event, other in zip(collected.events.iter_rows(named=True), theirs, strict=True):
        assert differing(said(event), other, SGE) == {}


# PBS


@pytest.mark.parametrize(
    ("fields", "alone"),
    [
        ({"Resource_List__neednodes": "2:ppn=8#excl"}, True),
        ({"Resource_List__nodes": "n1:ppn=8#shared#excl"}, True),
        ({"Resource_List__place": "scatter:excl"}, True),
        ({"Resource_List__place": "exclhost"}, True),
        ({"Resource_List__place": "scatter:shared"}, False),
        ({"jobname": "#excl"}, False),
    ],
)
def test_whether_nodes_were_held_alone_stands_in_the_request(fields: dict[str, str], *, alone: bool) -> None:
    assert said(only(read_pbs(pbs(**fields), cluster=HPC)))["exclusive"] is alone


@pytest.mark.parametrize("job", ["123.srv", "123[4].srv", "123-4.srv", "123.srv.example.org"])
def test_every_form_of_a_jobs_number_stays_what_it_is(job: str) -> None:
    event = only(read_pbs(pbs(job=job), cluster=HPC))
    assert (event["job"], event["id"]) == (job, f"{job}:{event['start_second']}")


@pytest.mark.parametrize("walltime", ["3600", "01:00:00", "00:00:07", "garbage"])
def test_walltime_in_whichever_form_is_no_measure_of_what_was_held(walltime: str) -> None:
    event = only(read_pbs(pbs(resources_used__walltime=walltime, Resource_List__walltime=walltime), cluster=HPC))
    assert int(str(event["end_second"])) - int(str(event["start_second"])) == 3600


@pytest.mark.parametrize(
    "cards", ["Resource_List.nodes=1:ppn=8:gpus=2", "Resource_List.ngpus=2", "Resource_List.gpus=2"]
)
@pytest.mark.parametrize("also", ["", "Resource_List.ngpus=2", "Resource_List.neednodes=1:ppn=8:gpus=2"])
def test_cards_told_in_several_places_are_the_same_cards(cards: str, also: str) -> None:
    if cards.partition("=")[0] == also.partition("=")[0]:
        also = ""
    line = pbs().rstrip(b"\n") + f" {cards} {also}\n".encode()
    assert only(read_pbs(line, cluster=HPC))["cards"] == "unknown:2000"


# LSF


@pytest.mark.parametrize("asked", [0, 1, 40])
@pytest.mark.parametrize("hosts", [1, 2, 300])
def test_lists_of_hosts_of_any_length_leave_the_rest_in_its_place(asked: int, hosts: int) -> None:
    names = tuple(f"n{number}" for number in range(hosts))
    event = only(read_lsf(lsf(asked=str(asked), hosts=names, project="grp"), cluster=HPC))
    assert (event["account"], event["cpus"], event["nodes"], event["suspended_seconds"]) == ("grp", hosts, hosts, 0)


@pytest.mark.parametrize("command", ['echo ""', '"', "a  b", "#BSUB -q x ; \t 'y'", 'say ""hi"" "there"'])
def test_scripts_with_quotes_and_blanks_leave_the_rest_in_its_place(command: str) -> None:
    event = only(read_lsf(lsf(command=command, project="grp"), cluster=HPC))
    assert (event["account"], event["cpus"]) == ("grp", 2)
