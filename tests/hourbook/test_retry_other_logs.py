"""Refused rows of any log are read again once the cluster is described: as their file was read, each as itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hourbook.applying import apply_files
from hourbook.database import create_home, read_session
from hourbook.importing import OtherLog, import_log
from hourbook.retrying import retry_quarantine
from hourbook.settings import Home, Settings
from metering import store as metering
from metering.collectors.registry import COLLECTORS
from metering.lake import EventLake
from tests.metering.test_collect_lsf import record as lsf
from tests.metering.test_collect_sge import record as sge

from .kube_stories import node, pod
from .log_stories import CLOCK, START, pbs

SINCE = datetime.fromtimestamp(START, UTC)
CSV = '"li, the\nfirst",2026-11-22T00:00:00+0800,3600,4,workq\n'
MAPPING = """
id = ["who"]
time_format = "%Y-%m-%dT%H:%M:%S%z"
[fields]
start = "begin"
duration = "long"
cpus = "cores"
partition = "queue"
"""
# Kind, what stands before the row, the row, options, the queue that it ran in, its id, and the line that it begins in.
LOGS = [
    ("pbs", "junk\n", pbs(17), "", "workq", f"17.srv:{START}", 2),
    ("lsf", '"broken\n\n', lsf().decode(), "", "regular", f"404:{START}", 3),
    ("sge", "# comment\n", sge().decode(), "", "all.q", f"17:{START}", 2),
    ("csv", "who,begin,long,cores,queue\n", CSV, MAPPING, "workq", "li, the\nfirst", 2),
]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = create_home(tmp_path / "home", CLOCK, settings=Settings(database_url=""))
    yield made
    made.close()


def describe(home: Home, text: str) -> None:
    file = home.path.parent / "cluster.toml"
    file.write_text(f'[[clusters]]\nname = "hpc2"\n{text}\n', encoding="utf-8")
    apply_files(home, [file])


def import_text(home: Home, kind: str, text: str, options: str = "") -> None:
    file = home.path.parent / "log"
    file.write_text(text, encoding="utf-8")
    reader = COLLECTORS[kind]
    said = reader.parse_options(options) if options else None
    import_log(home, [file], OtherLog(reader, "hpc2", options=said))


def known(home: Home) -> dict[str, dict[str, object]]:
    """What the lake knows of each event: what it held, and its evidence."""
    rows = EventLake(home.lake).scan().collect().select("id", "cpus", "cards", "start_second", "end_second", "evidence")
    return {row["id"]: {**row, "evidence": json.loads(row["evidence"])} for row in rows.iter_rows(named=True)}


def open_codes(home: Home) -> list[str]:
    with read_session(home.engine) as session:
        return sorted(entry.code for entry in metering.quarantine(session, status="open"))


@pytest.mark.parametrize(("kind", "before", "row", "options", "queue", "event", "line"), LOGS)
def test_a_row_that_was_refused_is_usable_when_the_cluster_is_described_rightly(
    home: Home, kind: str, before: str, row: str, options: str, queue: str, event: str, line: int
) -> None:
    describe(home, f'card_partitions = ["{queue}"]')
    import_text(home, kind, before + row, options)
    refused = open_codes(home).count("cards_missing")
    assert refused >= 1
    assert retry_quarantine(home).resolved == 0, "nothing was mended yet"
    describe(home, "card_partitions = []")
    assert retry_quarantine(home).resolved == refused
    found = known(home)[event]
    assert (found["start_second"], found["end_second"]) == (START, START + 3600)
    assert found["evidence"]["line"] == line  # type: ignore[index]
    assert set(open_codes(home)) <= {"broken_row"}
    import_text(home, kind, before + row, options)
    assert len(known(home)) == refused, "the file itself, imported again, says the same"
    assert set(open_codes(home)) <= {"broken_row"}


def test_a_record_without_an_end_is_read_when_the_zone_of_the_log_is_declared(home: Home) -> None:
    import_text(home, "pbs", pbs(1) + pbs(17).replace(f"end={START + 3600} ", ""))
    assert open_codes(home) == ["naive_time"]
    describe(home, 'timezone = "Asia/Shanghai"')
    assert retry_quarantine(home).resolved == 1
    assert known(home)[f"17.srv:{START}"]["end_second"] == START + 3600


def test_a_pod_with_an_unknown_resource_is_read_with_the_cards_of_its_node_when_it_is_described(home: Home) -> None:
    odd = pod("a", SINCE, ended=SINCE + timedelta(hours=1))
    odd["spec"]["containers"][0]["resources"]["limits"]["example.com/fpga"] = "1"
    well = pod("b", SINCE, ended=SINCE + timedelta(hours=1))
    import_text(home, "kubernetes", json.dumps({"items": [well, odd, node(product="A100")]}))
    assert open_codes(home) == ["unknown_gres"]
    describe(home, 'ignored_gres = ["example.com/fpga"]')
    assert retry_quarantine(home).resolved == 1
    found = known(home)
    assert (found["a"]["cards"], found["b"]["cards"]) == ("a100:1000", "a100:1000")
    assert found["a"]["evidence"]["line"] == 2  # type: ignore[index]


def test_a_list_of_pods_is_read_again_under_its_own_header(home: Home) -> None:
    header = (
        "name,num_gpu,gpu_milli,cpu_milli,memory_mib,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time"
    )
    describe(home, 'card_partitions = [""]')
    import_text(home, "kubernetes", f"{header}\np,0,0,1000,1,,LS,Succeeded,0,3600,0\n", f"unix_start_time = {START}")
    assert open_codes(home) == ["cards_missing"]
    describe(home, "card_partitions = []")
    assert retry_quarantine(home).resolved == 1
    assert known(home)[f"p:{START}"]["end_second"] == START + 3600


def test_equal_records_that_count_each_are_only_told_apart_in_their_file(home: Home) -> None:
    options = 'repeats = "counted"\n' + MAPPING
    text = "who,begin,long,cores,queue\n" + CSV + CSV
    describe(home, 'card_partitions = ["workq"]')
    import_text(home, "csv", text, options)
    describe(home, "card_partitions = []")
    assert retry_quarantine(home).resolved == 0
    import_text(home, "csv", text, options)
    assert known(home).keys() == {"li, the\nfirst", "li, the\nfirst:#2"}
    assert open_codes(home) == []
