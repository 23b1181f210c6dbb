"""All collectors, as the command line finds them."""

from __future__ import annotations

import gzip
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.clusters import Cluster
from metering.collectors.common import LogFileError
from metering.collectors.registry import COLLECTORS, OptionsError, collector
from metering.collectors.slurm_layout import SacctFileError
from metering.collectors.swf import SwfOptions
from metering.events import Collected

from .collecting import quantities, statuses

HPC = Cluster(name="hpc", timezone="UTC")
MAPPING = """
id = ["job"]
[fields]
start = "start"
duration = "seconds"
cpus = "cpus"
[[fields.cards]]
count = "cards"
"""
PODS = (
    b'{"items": [{"kind": "Pod", "metadata": {"name": "a", "uid": "u"}, '
    b'"spec": {"containers": [{"resources": {"limits": {"cpu": "2", "nvidia.com/gpu": "1"}}}]}, '
    b'"status": {"phase": "Succeeded", "startTime": "2026-11-21T16:00:00Z", '
    b'"containerStatuses": [{"state": {"terminated": {"finishedAt": "2026-11-21T17:00:00Z"}}}]}}]}'
)
POD_LIST = (
    b"name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
    b"p,2000,1,1,1000,,LS,Running,1795276740,1795280400,1795276800\n"
)
LSF = (
    b'"JOB_FINISH" "10.1" 1795280400 404 1 33 2 1795276740 0 0 1795276800 "li" "q" "" "" "" "h" "/" "" "" "" "" 0 1 '
    b'"2*n1" 64 60.0 "n" "c" -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 "" "grp" 0 2 "" "" 0 0 0 "" "" '
    b'"" "" 0 "" 0 "" -1 "/f" "" "a" "" -1 "" "" 0 "" 1795276800 "" "" 0 1 n1 1 0 2 3 0 9 0 9 '
    b'"rusage[ngpus_physical=1]" "" -1 "" -1 0 "" 0 0 "" 3600 "/"\n'
)
SACCT = (
    b"JobIDRaw|Submit|Start|End|ElapsedRaw|State|AllocTRES|NodeList|JobName\n"
    b"17|1795276740|1795276800|1795280400|3600|COMPLETED|cpu=2,gres/gpu=1,node=1|n1|relax\n"
)
# One job of an hour on two CPUs and one card, as each scheduler writes it; its format knows no cards where marked.
FILES = {
    "slurm": SACCT,
    "pbs": b"11/22/2026 01:00:00;E;17.srv;user=li queue=q ctime=1795276740 start=1795276800 exec_host=n1/0*2 "
    b"Resource_List.ngpus=1 end=1795280400 Exit_status=0\n",
    "lsf": LSF,
    "sge": b"q:n1:g:li:relax:17:acc:0:1795276740:1795276800:1795280400:" + b"0:" * 20 + b"NONE:d:mpi:2:0:0:0:0:"
    b"-l gpu=1:0.0:NONE:0.0:0:0\n",
    "swf": b"; UnixStartTime: 1795276740\n 17 0 60 3600 2 -1 -1 2 -1 -1 1 3 4 -1 -1 -1 -1 -1\n",
    "kubernetes": PODS,
    "kubernetes list": POD_LIST,
    "csv": b"job,start,seconds,cpus,cards\n17,2026-11-21T16:00:00,3600,2,1\n",
}
FILES["uge"] = FILES["sge"].replace(b"1795276740", b"1795276740000").replace(b"1795276800", b"1795276800875")
FILES["uge"] = FILES["uge"].replace(b"1795280400", b"1795280400193")
OPTIONS = {"csv": MAPPING}


def read(name: str, payload: bytes) -> Collected:
    """Read a file of FILES, or one made of it."""
    found = collector(name.partition(" ")[0])
    return found.read(payload, cluster=HPC, options=found.parse_options(OPTIONS.get(name, "")))


def test_every_collector_has_a_file_here() -> None:
    assert {name.partition(" ")[0] for name in FILES} == set(COLLECTORS)


@pytest.mark.parametrize("name", FILES)
def test_the_same_job_counts_the_same_whoever_scheduled_it(name: str) -> None:
    collected = read(name, FILES[name])
    assert (collected.events.height, collected.rejected) == (1, ())
    held = quantities(collected)
    assert (held["cpu"], held["wall"]) == (2, 1)  # type: ignore[comparison-overlap]
    assert held.get("card:unknown", 0) == (0 if name == "swf" else 1)
    assert collected.events["start_second"][0] == 1_795_276_800


@pytest.mark.parametrize("name", FILES)
def test_compressed_or_repeated_it_counts_once(name: str) -> None:
    assert statuses(read(name, FILES[name]), read(name, gzip.compress(FILES[name]))) == {"kept": 1, "duplicate": 1}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("payload", [b"", b"\n\n", b"\x1f\x8bnot gzip"])
def test_an_empty_or_broken_file_is_refused_as_a_whole(name: str, payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"empty|gzip"):
        read(name, payload)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_bytes_never_do_more_than_refuse_a_row_or_a_file(name: str, data: st.DataObject) -> None:
    payload = bytearray(FILES[name] * data.draw(st.integers(1, 2)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4) | st.sampled_from(DAMAGES))
    try:
        collected = read(name, bytes(payload))
    except (LogFileError, SacctFileError):
        return
    if name in LINE_BY_LINE and not payload.startswith(b"\x1f\x8b"):
        assert collected.rows == sum(bool(line.decode(errors="replace").strip()) for line in payload.split(b"\n"))
    for refused_row in collected.rejected:
        assert refused_row.code
        assert refused_row.message
    assert collected.events.filter(collected.events["end_second"] < collected.events["start_second"]).is_empty()


LINE_BY_LINE = ("pbs", "lsf", "sge", "uge")
DAMAGES = [b"\n", b'"', b";", b"99999999999999999999", b"\xff", b"\x00", b"-1", b"=", b"+", b"null", b"1e999", b"\r"]


def test_options_come_as_toml_or_as_keys_and_values() -> None:
    swf = collector("swf")
    assert swf.parse_options("submit_is_start = true") == SwfOptions(submit_is_start=True)
    assert swf.parse_options({"unix_start_time": "7"}) == SwfOptions(unix_start_time=7)


@pytest.mark.parametrize("given_options", ["no_such_key = 1", "submit_is_start = 'maybe'", "= 1"])
def test_options_that_are_not_taken_are_refused_by_name(given_options: str) -> None:
    with pytest.raises(OptionsError, match="swf"):
        collector("swf").parse_options(given_options)


def test_a_collector_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(OptionsError, match="pbs, lsf"):
        collector("condor")


def test_a_file_says_how_it_was_read() -> None:
    pbs = collector("pbs")
    options = pbs.parse_options({"account_from": "group"})
    collected = pbs.read(FILES["pbs"], cluster=HPC, timezone=ZoneInfo("Asia/Tokyo"), options=options)
    assert collected.reading == {
        "collector": "pbs",
        "cluster": "hpc",
        "timezone": "Asia/Tokyo",
        "options": {"account_from": "group"},
    }


def test_options_of_another_collector_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="PbsOptions"):
        collector("pbs").read(FILES["pbs"], cluster=HPC, options=SwfOptions())


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("pbs", "xdmod/unit-fixtures/pbs/input/accounting-logs.log"),
        ("sge", "xdmod/unit-fixtures/sge/input/accounting-logs.log"),
        ("uge", "xdmod/unit-fixtures/uge/input/accounting-logs.log"),
        ("lsf", "xdmod/unit-fixtures/lsf/input/accounting-logs.log"),
    ],
)
def test_the_order_of_a_logs_rows_changes_nothing(shared_data: Path, name: str, file: str) -> None:
    lines = [line for line in (shared_data / file).read_bytes().split(b"\n") if line]
    found = collector(name)
    forwards, backwards = (found.read(b"\n".join(rows), cluster=HPC) for rows in (lines, lines[::-1]))
    assert quantities(forwards) == quantities(backwards)
    one_by_one = [found.read(line, cluster=HPC) for line in lines]
    assert quantities(*one_by_one, forwards) == quantities(forwards)
    assert forwards.rows == sum(part.rows for part in one_by_one)


def test_the_refusal_of_a_file_is_a_value_error() -> None:
    assert issubclass(LogFileError, ValueError)
