"""Accounting logs of PBS Pro, OpenPBS and Torque."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from metering.clusters import CardGres, Cluster
from metering.collectors.common import LogFileError
from metering.collectors.pbs import PbsOptions, read_pbs
from metering.events import Collected

from .collecting import hours_in_all, only, quantities, refusal, said, statuses

HPC = Cluster(name="hpc")
START = 1_795_276_800
HOUR = 3600


def record(kind: str = "E", job: str = "17.srv", written: str = "11/22/2026 01:00:00", **fields: object) -> bytes:
    """Return one record of a job of an hour on one CPU, but for the fields given; None leaves a field out."""
    ordinary: dict[str, object] = {
        "user": "li",
        "group": "phys",
        "queue": "workq",
        "ctime": START - 60,
        "start": START,
        "exec_host": "n1/0",
        "end": START + HOUR,
        "Exit_status": 0,
    }
    stated = {**ordinary, **{name.replace("__", "."): value for name, value in fields.items()}}
    text = " ".join(f"{name}={value}" for name, value in stated.items() if value is not None)
    return f"{written};{kind};{job};{text}\n".encode()


def read(*records: bytes, cluster: Cluster = HPC) -> Collected:
    collected = read_pbs(b"".join(records), cluster=cluster)
    assert collected.rows == len(records)
    return collected


# Real records


@pytest.fixture
def fixture_log(shared_data: Path) -> bytes:
    return (shared_data / "xdmod/unit-fixtures/pbs/input/accounting-logs.log").read_bytes()


@pytest.mark.shared
def test_xdmods_fixtures_are_read_as_xdmod_reads_them_but_for_three_named_cases(
    fixture_log: bytes, shared_data: Path
) -> None:
    path = shared_data / "xdmod/unit-fixtures/pbs/output/accounting-logs.json"
    theirs = {row["job_id"]: row for row in json.loads(path.read_text()).values()}
    collected = read_pbs(fixture_log, cluster=HPC)
    assert collected.rows == 9
    differing = set()
    for event in collected.events.iter_rows(named=True):
        other = theirs[event["job"].partition(".")[0]]
        ours = {"cpus": event["cpus"], "nodes": event["nodes"], "gpus": thousandths(event["cards"]) // 1000}
        xdmod = {name: int(other.get(f"resources_used_{name}", 0)) for name in ours}
        assert (event["start_second"], event["end_second"]) == (int(other["start"]), int(other["end"]))
        assert (event["user"], event["partition"]) == (other["user"], other["queue"])
        assert event["account"] == other.get("account", "")
        differing |= {(event["job"], name) for name in ours if ours[name] != xdmod[name]}
    # XDMoD takes CPUs from exec_host alone: none where it is missing, two where an anonymised log has n/0*0.
    assert differing == {("7904", "cpus"), ("7904", "nodes"), ("3073070.[hostname_1]", "cpus")}
    # It also takes nodes without cards for the truth where another field asks for two, and a third for one.
    (refused,) = collected.rejected
    assert (refused.code, refused.event_id, refused.month) == ("cards_contradict", "10712:1588046363", "2020-04")
    assert theirs["10712"]["resources_used_gpus"] == 0


def thousandths(cards: str) -> int:
    return sum(int(part.rpartition(":")[2]) for part in cards.split(";") if part)


@pytest.mark.shared
def test_the_fixtures_hours_are_those_of_start_and_end_times_what_was_held(fixture_log: bytes) -> None:
    collected = read_pbs(fixture_log, cluster=HPC)
    held = {"6": 32, "2994": 65, "2995": 12, "6464684": 4, "7904": 28, "10711": 28, "3073070": 48}
    cards = {"7904": 1, "10711": 4, "3073070": 4}
    core_seconds = card_seconds = 0
    for line in fixture_log.decode().splitlines():
        fields = dict(word.split("=", 1) for word in line.split(";")[3].split(" ") if "=" in word)
        number = line.split(";")[2].split(".")[0]
        seconds = int(fields["end"]) - int(fields["start"])
        core_seconds += held.get(number, 0) * seconds
        card_seconds += cards.get(number, 0) * seconds
    total = hours_in_all(collected)
    assert total["core_hours"] == round(Decimal(core_seconds) / 3600, 6)
    assert total["card_hours"] == round(Decimal(card_seconds) / 3600, 6)


@pytest.mark.shared
def test_a_log_imported_twice_counts_once(fixture_log: bytes) -> None:
    collected = read_pbs(fixture_log, cluster=HPC)
    assert statuses(collected, collected) == {"kept": 8, "duplicate": 8}
    assert hours_in_all(collected, collected) == hours_in_all(collected)


# What was held


@pytest.mark.parametrize(
    ("exec_host", "cpus", "nodes"),
    [
        ("n1/0", 1, 1),
        ("n1/0+n1/1", 2, 1),
        ("n1/0+n2/0", 2, 2),
        ("n1/0-1,5,11", 4, 1),
        ("n1/0-3+n2/0-7", 12, 2),
        ("n1/0*8", 8, 1),
        ("n1/0*8+n2/0*8", 16, 2),
        ("n1/2*8+n1/3*8", 16, 1),
    ],
)
def test_every_way_to_write_hosts_is_counted(exec_host: str, cpus: int, nodes: int) -> None:
    event = only(read(record(exec_host=exec_host)))
    assert (event["cpus"], event["nodes"]) == (cpus, nodes)


def test_splitting_at_plus_and_counting_would_be_wrong() -> None:
    naive = "n1/0*8+n2/0-3".count("+") + 1
    assert only(read(record(exec_host="n1/0*8+n2/0-3")))["cpus"] == 12 != naive


@pytest.mark.parametrize("exec_host", ["n1", "n1/a", "n1/5-3", "n1/0*", "/0"])
def test_hosts_that_cannot_be_read_are_refused(exec_host: str) -> None:
    assert refusal(read(record(exec_host=exec_host))).code == "bad_exec_host"


def test_virtual_nodes_say_what_was_given_not_what_was_asked_for() -> None:
    event = only(
        read(
            record(
                exec_host="n1/0*0",
                exec_vnode="(n1[1]:mem=190000128kb:ngpus=2:ncpus=24+n1[0]:ngpus=2:ncpus=24)",
                Resource_List__ncpus=1,
                Resource_List__ngpus=4,
                Resource_List__mem="185547mb",
            )
        )
    )
    assert (event["cpus"], event["nodes"], event["cards"]) == (48, 1, "unknown:4000")
    assert event["memory_bytes"] == 190_000_128 * 1024


@pytest.mark.parametrize(
    "fields",
    [
        {"Resource_List__nodes": "1:ppn=28:gpus=2:default"},
        {"Resource_List__nodes": "2:ppn=8:gpus=1"},
        {"Resource_List__neednodes": "n1:ppn=8:gpus=1+n2:ppn=8:gpus=1#excl"},
        {"Resource_List__nodect": "1:ppn=24:gpu=2:reqmem=128849018880:gpu"},
        {"Resource_List__gpu": 2},
        {"Resource_List__gpus": 2},
        {"Resource_List__ngpus": 2},
        {"Resource_List__select": "2:ncpus=8:ngpus=1"},
        {"exec_gpus": "n1-gpu/0+n1-gpu/1"},
        {"Resource_List__ngpus": 2, "Resource_List__select": "1:ncpus=8:ngpus=2", "exec_vnode": "(n1:ncpus=8:ngpus=2)"},
    ],
)
def test_cards_are_found_wherever_they_stand_and_once(fields: dict[str, Any]) -> None:
    assert only(read(record(**fields)))["cards"] == "unknown:2000"


def test_cards_that_are_no_gpus_count_as_the_cluster_says() -> None:
    cluster = Cluster(name="hpc", cards=(CardGres(gres="dcu", model="k100"),))
    assert only(read(record(Resource_List__ndcus=4), cluster=cluster))["cards"] == "k100:4000"


@pytest.mark.parametrize(
    "fields",
    [
        {"Resource_List__nodes": "1:ppn=8:gpus=2:K80"},
        {"Resource_List__select": "1:ncpus=8:ngpus=2:gpu_type=k80"},
        {"Resource_List__ngpus": 2, "exec_vnode": "(n1:ncpus=8:ngpus=2:gpu_model=K80)"},
    ],
)
def test_the_model_is_taken_from_the_request(fields: dict[str, Any]) -> None:
    cluster = Cluster(name="hpc", card_models={"k80": "tesla-k80"})
    assert only(read(record(**fields), cluster=cluster))["cards"] == "tesla-k80:2000"


def test_statements_of_cards_that_differ_are_refused_not_picked_from() -> None:
    refused = refusal(read(record(Resource_List__ngpus=2, Resource_List__nodes="1:gpus=1")))
    assert refused.code == "cards_contradict"
    assert "1000" in refused.message
    assert "2000" in refused.message


def test_a_job_without_a_card_in_a_card_queue_is_refused() -> None:
    cluster = Cluster(name="hpc", card_partitions=("gpu",))
    assert refusal(read(record(queue="gpu"), cluster=cluster)).code == "cards_missing"


def test_a_record_without_hosts_holds_what_was_asked_for_and_the_import_says_so() -> None:
    collected = read(record(exec_host=None, Resource_List__nodes="2:ppn=14"))
    assert (only(collected)["cpus"], only(collected)["nodes"]) == (28, 2)
    assert any("1 record(s) name no host" in note for note in collected.notes)
    assert refusal(read(record(exec_host=None))).code == "cpus_missing"


# When it ran


def test_the_time_in_front_is_not_the_end() -> None:
    event = only(read(record(written="01/01/2030 00:00:00")))
    assert (event["start_second"], event["end_second"]) == (START, START + HOUR)


def test_used_walltime_is_not_what_is_billed() -> None:
    event = only(read(record(resources_used__walltime="00:00:00")))
    assert event["end_second"] == START + HOUR


def test_a_record_without_an_end_needs_the_zone_of_the_time_in_front() -> None:
    ended_at_noon = record(end=None, written="11/22/2026 01:00:00")
    assert refusal(read(ended_at_noon)).code == "naive_time"
    event = only(read(ended_at_noon, cluster=Cluster(name="hpc", timezone="Asia/Shanghai")))
    assert event["end_second"] == START + HOUR
    # In Tokyo the clock shows 01:00 an hour before it does in Shanghai.
    event = only(read_pbs(ended_at_noon, cluster=HPC, timezone=ZoneInfo("Asia/Tokyo")))
    assert event["end_second"] == START


@pytest.mark.parametrize("written", ["10/25/2026 02:30:00", "03/29/2026 02:30:00"])
def test_a_time_that_the_clock_showed_twice_or_never_is_refused(written: str) -> None:
    berlin = Cluster(name="hpc", timezone="Europe/Berlin")
    assert refusal(read(record(end=None, start=1, written=written), cluster=berlin)).code == "ambiguous_time"


def test_an_end_before_the_start_is_refused_and_a_job_that_never_started_is_none() -> None:
    assert refusal(read(record(end=START - 1))).code == "inconsistent_time"
    assert refusal(read(record(start="soon"))).code == "bad_time"
    assert read(record(start=0)).no_usage == {"never_started": 1}


# Attempts


def test_a_rerun_and_its_end_record_are_one_attempt_and_the_next_another() -> None:
    first = record("R", end=START + 600), record("E", end=START + 600, Exit_status=271)
    second = record("E", start=START + 700, end=START + 1300)
    collected = read(*first, second)
    assert set(collected.events["id"]) == {f"17.srv:{START}", f"17.srv:{START + 700}"}
    assert statuses(collected) == {"kept": 2, "superseded": 1}
    assert quantities(collected)["wall"] * 3600 == 1200


def test_a_rerun_alone_is_usage_and_one_without_times_is_none() -> None:
    assert only(read(record("R", end=START + 600)))["state"] == "REQUEUED"
    assert read(record("R", start=None, end=None)).no_usage == {"rerun": 1}


def test_pairs_count_the_same_in_either_order() -> None:
    rerun, end = record("R", end=START + 600), record("E", end=START + 600)
    assert hours_in_all(read(rerun), read(end)) == hours_in_all(read(end), read(rerun)) == hours_in_all(read(end))


def test_one_number_given_again_years_later_is_another_job() -> None:
    later = START + 5 * 365 * 86_400
    assert statuses(read(record()), read(record(start=later, end=later + HOUR))) == {"kept": 2}


def test_subjobs_count_each_and_their_array_never() -> None:
    collected = read(
        record(job="123[1].srv"),
        record(job="123[2].srv"),
        record(job="123[].srv", exec_host=None),
        record("Q", "123[].srv"),
    )
    assert collected.no_usage == {"array_summary": 1, "queued": 1}
    assert hours_in_all(collected)["jobs"] == 2
    assert refusal(read(record(job="123[].srv"))).code == "array_summary"


def test_other_records_are_counted_by_what_they_tell() -> None:
    kinds = "QSDALTz"
    collected = read(*(record(kind) for kind in kinds))
    reasons = ("queued", "started", "deleted", "aborted", "licence", "restarted", "suspended")
    assert collected.no_usage == dict.fromkeys(reasons, 1)
    assert any("suspended" in note for note in collected.notes)


def test_a_job_that_gave_nodes_back_waits_for_a_person() -> None:
    collected = read(record("u"), record("e"), record("E"))
    assert [refused.code for refused in collected.rejected] == ["released_nodes"] * 2
    assert {refused.event_id for refused in collected.rejected} == {""}, "or its end record would settle them"


def test_a_record_type_nobody_knows_is_refused() -> None:
    assert refusal(read(record("X"))).code == "unknown_type"


# Broken and forged records


def test_values_may_hold_blanks() -> None:
    event = only(read(record(account="two words", jobname="a b c")))
    assert (event["account"], event["cpus"]) == ("two words", 1)
    assert said(event)["jobname"] == "a b c"


def test_splitting_at_blanks_would_lose_the_account() -> None:
    line = record(account='"my big grant"').decode()
    assert dict(word.split("=", 1) for word in line.split(" ") if "=" in word)["account"] == '"my'
    assert only(read(line.encode()))["account"] == "my big grant"


@pytest.mark.parametrize("forged", ["x end=1795276801", "x exec_host=n9/0"])
def test_an_account_that_forges_a_field_is_refused(forged: str) -> None:
    assert refusal(read(record(account=forged))).code == "repeated_field"


def test_what_stands_in_quotes_is_no_field() -> None:
    event = only(read(record(account='"x end=1795276801"')))
    assert (event["account"], event["end_second"]) == ("x end=1795276801", START + HOUR)


@pytest.mark.parametrize("line", [b"11/22/2026 01:00:00;E;17.srv\n", b"rest\n", b"22.11.2026;E;1;user=li\n"])
def test_a_line_that_is_no_record_is_kept_whole_in_quarantine(line: bytes) -> None:
    refused = refusal(read(line))
    assert (refused.code, refused.raw, refused.line) == ("broken_row", line.rstrip(b"\n"), 1)


def test_names_that_are_no_utf8_are_refused() -> None:
    assert refusal(read(record(user="li").replace(b"user=li", b"user=l\xff"))).code == "invalid_bytes"


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(LogFileError, match="empty"):
        read_pbs(b"\n", cluster=HPC)


def test_the_account_may_stand_in_another_field() -> None:
    line = record(project="_pbs_project_default", account="grp")
    assert only(read_pbs(line, cluster=HPC, options=PbsOptions(account_from="group")))["account"] == "phys"
    assert only(read_pbs(line, cluster=HPC, options=PbsOptions(account_from="project")))["account"] == ""


def test_the_state_tells_how_it_ended() -> None:
    states = [only(read(record(Exit_status=status)))["state"] for status in (0, 1, 271, -29, None)]
    assert states == ["COMPLETED", "FAILED", "FAILED", "TIMEOUT", "UNKNOWN"]
