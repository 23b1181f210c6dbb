"""`sacct --json` of several versions says the same as `sacct -P`, event by event."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from metering.clusters import Cluster
from metering.collectors.slurm import read_sacct
from metering.collectors.slurm_json import read_sacct_json, read_slurm_file
from metering.collectors.slurm_layout import SacctFileError
from metering.events import Collected
from tests.metering.collecting import only, refusal, said

HPC1 = Cluster(name="hpc1", timezone="Asia/Shanghai")


def job(**changed: Any) -> dict[str, Any]:  # noqa: ANN401
    """A job as Slurm 22.05 writes it."""
    usual = {
        "account": "Physics",
        "allocation_nodes": 2,
        "array": {"job_id": 0, "task_id": None},
        "association": {"account": "physics", "cluster": "hpc1", "user": "alice"},
        "cluster": "hpc1",
        "time": {
            "elapsed": 500,
            "end": 1_795_294_757,
            "start": 1_795_294_157,
            "submission": 1_795_294_100,
            "suspended": 100,
            "limit": 5,
        },
        "exit_code": {"status": "SUCCESS", "return_code": 0},
        "het": {"job_id": 0, "job_offset": None},
        "job_id": 76,
        "name": "run",
        "nodes": "cn[02-03]",
        "partition": "gpu",
        "qos": "normal",
        "required": {"CPUs": 8, "memory": 1000},
        "state": {"current": "COMPLETED", "reason": "None"},
        "steps": [{"tres": {"allocated": [{"type": "cpu", "name": None, "id": 1, "count": 99}]}}],
        "tres": {
            "allocated": [
                {"type": "cpu", "name": None, "id": 1, "count": 8},
                {"type": "mem", "name": None, "id": 2, "count": 2000},
                {"type": "energy", "name": None, "id": 3, "count": None},
                {"type": "node", "name": None, "id": 4, "count": 2},
                {"type": "gres", "name": "gpu", "id": 1001, "count": 3},
                {"type": "gres", "name": "gpu:a100", "id": 1002, "count": 2},
            ]
        },
        "user": "alice",
    }
    return {**usual, **changed}


def number(value: int | None) -> dict[str, Any]:
    return {"set": value is not None, "infinite": False, "number": value or 0}


def as_of_23_11(one: dict[str, Any]) -> dict[str, Any]:
    """The same job as later versions write it: numbers that may not be set, states as lists."""
    state = one["state"]["current"]
    changed = {
        "state": {"current": [state], "reason": "None"},
        "array": {"job_id": one["array"]["job_id"], "task_id": number(one["array"]["task_id"]), "task": ""},
        "het": {"job_id": one["het"]["job_id"], "job_offset": number(one["het"]["job_offset"])},
        "exit_code": {"status": ["SUCCESS"], "return_code": number(0), "signal": {"id": number(None), "name": ""}},
        "time": {**one["time"], "limit": number(one["time"]["limit"])},
    }
    return {**one, **changed}


def as_numbers(one: dict[str, Any]) -> dict[str, Any]:
    """The same job with every time as a number that may not be set."""
    newer = as_of_23_11(one)
    times = {name: value if isinstance(value, dict) else number(value) for name, value in newer["time"].items()}
    return {**newer, "time": times}


VERSIONS = [pytest.param(dict, id="22.05"), pytest.param(as_of_23_11, id="23.11"), pytest.param(as_numbers, id="later")]


def read(*jobs: dict[str, Any]) -> Collected:
    return read_sacct_json(orjson.dumps({"meta": {}, "errors": [], "jobs": jobs}), cluster=HPC1)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_job_is_the_same_event_in_every_version(version: Any) -> None:  # noqa: ANN401
    event = only(read(version(job())))
    assert (event["source"], event["id"], event["revision"]) == ("slurm:hpc1", "76:1795294100", 600 + 2**40)
    assert (event["start_second"], event["end_second"], event["suspended_seconds"]) == (1795294157, 1795294757, 100)
    assert (event["cpus"], event["nodes"], event["memory_bytes"]) == (8, 2, 2000 * 2**20)
    assert (event["cards"], event["account"], event["job"]) == ("a100:2000;unknown:1000", "physics", "76")
    assert (said(event)["time_limit_seconds"], said(event)["job_name"]) == (300, "run")


@pytest.mark.parametrize("version", VERSIONS)
def test_tasks_and_components_are_told_by_their_leader(version: Any) -> None:  # noqa: ANN401
    task = only(read(version(job(array={"job_id": 70, "task_id": 0}))))
    component = only(read(version(job(het={"job_id": 75, "job_offset": 1}))))
    assert (task["job"], component["job"]) == ("70_0", "75+1")
    assert task["id"] == component["id"] == "76:1795294100"


def test_a_limit_that_is_not_set_or_infinite_is_none() -> None:
    for limit in (None, 0xFFFFFFFF, {"set": False, "infinite": True, "number": 0}):
        event = only(read(job(time={**job()["time"], "limit": limit})))
        assert said(event)["time_limit_seconds"] is None


@pytest.mark.parametrize(
    ("words", "state"),
    [(["CANCELLED"], "CANCELLED"), (["PENDING", "REQUEUED"], "REQUEUED"), (["RUNNING", "RESIZING"], "RESIZING")],
)
def test_of_several_words_the_one_counts_that_sacct_would_show(words: list[str], state: str) -> None:
    assert only(read(job(state={"current": words})))["state"] == state


def test_a_running_job_counts_as_far_as_it_states() -> None:
    times = {**job()["time"], "end": 0, "elapsed": 40, "suspended": 0}
    event = only(read(as_numbers(job(time=times, state={"current": "RUNNING"}))))
    assert (event["ended"], event["end_second"], event["revision"]) == (False, times["start"] + 40, 40)


def test_a_name_cannot_forge_a_row_or_shift_a_column() -> None:
    forged = "x\n77|77|hpc1|grp|bob|cpu|normal|1|1|9|8|0|4|1|cn1|cpu=4|COMPLETED|0:0|5|x".replace("|", "\x1f")
    collected = read(job(name=forged), job(job_id=78))
    assert (collected.rows, collected.events["id"].to_list()) == (2, ["76:1795294100", "78:1795294100"])
    assert collected.notes == ()


def test_a_job_that_never_ran_is_no_usage_and_one_of_another_cluster_is_refused() -> None:
    never = job(nodes="None assigned", state={"current": "CANCELLED"})
    assert read(never).no_usage == {"never_started": 1}
    assert refusal(read(job(cluster="other"))).code == "foreign_cluster"


@pytest.mark.parametrize(
    ("payload", "said_to_be"),
    [
        (b'{"jobs": [', "no JSON"),
        (b'{"meta": {}}', "no list of jobs"),
        (b"[]", "no list of jobs"),
        (b'{"jobs": [1]}', "no list of jobs"),
        (b'{"jobs": [], "errors": [{"description": "slurmdbd is down"}]}', "slurmdbd is down"),
    ],
)
def test_an_answer_that_is_not_whole_is_refused(payload: bytes, said_to_be: str) -> None:
    with pytest.raises(SacctFileError, match=said_to_be):
        read_sacct_json(payload, cluster=HPC1)


def test_a_file_is_read_as_what_it_is_packed_or_not() -> None:
    payload = orjson.dumps({"jobs": [job()]})
    text = b"JobIDRaw|Submit|Start|End|State|ElapsedRaw|AllocTRES\n76|1|2|3|COMPLETED|1|cpu=4,node=1\n"
    for body in (payload, text):
        for packed in (body, gzip.compress(body), b"\xef\xbb\xbf" + body):
            assert read_slurm_file(packed, cluster=HPC1).events.height == 1


@pytest.mark.shared
def test_real_json_says_what_the_text_of_the_same_rows_says(shared_data: Path) -> None:
    dumps = shared_data / "slurm" / "dumps"
    found = read_sacct_json((dumps / "D9_final_hour04" / "sacct.json").read_bytes(), cluster=HPC1)
    text = read_sacct((dumps / "D9_final_all" / "sacct-epoch-name-last.psv").read_bytes(), cluster=HPC1)
    assert (found.rows, found.events.height, dict(found.no_usage), found.rejected) == (
        119,
        118,
        {"never_started": 1},
        (),
    )
    columns = [name for name in found.events.columns if name != "evidence"]
    same = text.events.join(found.events, on=["source", "id"], how="semi").select(columns)
    assert found.events.select(columns).sort("id").equals(same.sort("id"))
    limits = [
        frame.select("id", pl.col("evidence").str.json_path_match("$.exit_code")).sort("id")
        for frame in (found.events, text.events.join(found.events, on="id", how="semi"))
    ]
    assert limits[0].height == limits[1].height
