"""Any CSV file of usage, by a mapping."""

from __future__ import annotations

import csv
import gzip
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from metering.clusters import Cluster
from metering.collectors.common import LogFileError
from metering.collectors.csv_mapping import CsvMapping, CsvMappingError
from metering.collectors.csv_reader import read_csv
from metering.events import Collected

from .collecting import UTC, hours_in_all, only, quantities, refusal, said, statuses

SITE = Cluster(name="site", timezone="UTC")

PHILLY = """
id = ["cluster", "timestamp", "num_gpus", "duration"]
time_format = "%Y-%m-%d %H:%M:%S"
repeats = "counted"
evidence = ["gpu_time"]
[fields]
start = "timestamp"
duration = "duration"
account = "cluster"
partition = { value = "gpu" }
[[fields.cards]]
count = "num_gpus"
"""
LSF = """
id = ["job_id", "start_time"]
evidence = ["exit_status", "resource_request"]
[fields]
start = "start_time"
end = "finish_time"
cpus = "num_cores"
nodes = "num_hosts"
memory_bytes = { column = "max_mem_gb", scale = 1073741824, rounding = "up" }
"""
MAPPING = """
id = ["job"]
[fields]
start = "start"
end = "end"
user = "who"
state = "state"
cpus = "cpus"
"""
HEADER = "job,who,start,end,state,cpus\n"
ROW = "17,li,2026-11-22T00:00:00,2026-11-22T01:00:00,done,4\n"


def read(text: str | bytes, mapping: str = MAPPING, cluster: Cluster = SITE) -> Collected:
    payload = text.encode() if isinstance(text, str) else text
    return read_csv(payload, cluster=cluster, options=CsvMapping.from_toml(mapping))


# Real files


@pytest.fixture
def philly(shared_data: Path) -> bytes:
    return (shared_data / "traces/philly/philly.csv.gz").read_bytes()


@pytest.mark.shared
def test_philly_gives_its_known_card_hours_with_equal_rows_counted_each(philly: bytes) -> None:
    collected = read(philly, PHILLY)
    assert (collected.rows, collected.rejected) == (82_247, ())
    assert round(hours_in_all(collected)["card_hours"]) == 978_078
    assert "65 record(s) repeat another" in collected.notes[0]
    stated = sum(Decimal(row["gpu_time"]) for row in csv.DictReader(lines_of(philly)))
    assert quantities(collected)["card:unknown"] * 3600 == Fraction(stated)


@pytest.mark.shared
def test_counted_once_equal_rows_are_65_fewer(philly: bytes) -> None:
    once = read(philly, PHILLY.replace("counted", "once"))
    assert statuses(once) == {"kept": 82_182, "duplicate": 65}
    distinct = {tuple(row.values()): row for row in csv.DictReader(lines_of(philly))}
    stated = sum(Decimal(row["gpu_time"]) for row in distinct.values())
    assert quantities(once)["card:unknown"] * 3600 == Fraction(stated)
    assert round(hours_in_all(once)["card_hours"]) == 978_072
    assert "65 record(s) repeat the identity" in once.notes[0]


def lines_of(payload: bytes) -> list[str]:
    return [line for line in gzip.decompress(payload).decode().splitlines() if line]


@pytest.mark.shared
@pytest.mark.parametrize("repeats", ["once", "counted"])
def test_philly_imported_twice_counts_once(philly: bytes, repeats: str) -> None:
    collected = read(philly, PHILLY.replace("counted", repeats))
    assert quantities(collected, collected) == quantities(collected)


@pytest.mark.shared
def test_jobs_exported_from_lsf_give_the_core_hours_of_their_run_times(shared_data: Path) -> None:
    payload = (shared_data / "traces/aws_hpc_cost_simulator_lsf_jobs.csv").read_bytes()
    collected = read(payload, LSF)
    rows = list(csv.DictReader(payload.decode().splitlines()))
    stated = sum(clock(row["run_time"]) * int(row["num_cores"]) for row in rows)
    assert (collected.rows, collected.rejected, len(rows)) == (87, (), 87)
    assert quantities(collected)["cpu"] == Fraction(stated, 3600)
    event = collected.events.row(0, named=True)
    assert event["memory_bytes"] == 2**21
    assert said(event)["resource_request"] == "select[type == any] order[r15s:pg] "


def clock(text: str) -> int:
    hours, minutes, seconds = (int(part) for part in text.rpartition(" ")[2].split(":"))
    return hours * 3600 + minutes * 60 + seconds


# What a mapping says


def test_a_record_is_read_as_mapped() -> None:
    event = only(read(HEADER + ROW))
    assert (event["source"], event["id"], event["user"], event["state"]) == ("csv:site", "17", "li", "DONE")
    assert (event["start_second"], event["end_second"], event["cpus"]) == (1_795_305_600, 1_795_309_200, 4)


def test_naive_times_need_a_zone() -> None:
    nowhere = Cluster(name="site")
    with pytest.raises(LogFileError, match="--timezone"):
        read(HEADER + ROW, cluster=nowhere)
    options = CsvMapping.from_toml(MAPPING)
    assert only(read_csv((HEADER + ROW).encode(), cluster=nowhere, timezone=UTC, options=options))
    shanghai = only(read(HEADER + ROW, cluster=Cluster(name="site", timezone="Asia/Shanghai")))
    assert shanghai["start_second"] == 1_795_305_600 - 8 * 3600


def test_times_with_an_offset_or_in_epochs_need_none() -> None:
    nowhere = Cluster(name="site")
    offset = ROW.replace("T00:00:00", "T08:00:00+0800").replace("T01:00:00", "T09:00:00+0800")
    epoch = ROW.replace("2026-11-22T00:00:00", "1795305600000").replace("2026-11-22T01:00:00", "1795309200000")
    first = only(read(HEADER + offset, 'time_format = "%Y-%m-%dT%H:%M:%S%z"' + MAPPING, nowhere))
    second = only(read(HEADER + epoch, 'time_format = "epoch_ms"' + MAPPING, nowhere))
    assert first["start_second"] == second["start_second"] == 1_795_305_600
    assert first["end_second"] == second["end_second"] == 1_795_309_200


def test_a_time_that_the_clock_showed_twice_is_refused() -> None:
    twice = ROW.replace("2026-11-22T01:00:00", "2026-10-25T02:30:00").replace("2026-11-22T00", "2026-10-25T00")
    refused = refusal(read(HEADER + twice, cluster=Cluster(name="site", timezone="Europe/Berlin")))
    assert refused.code == "ambiguous_time"


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("3600", 3600), ("66.0", 66), ("1:02:03", 3723), ("2-00:00:01", 172_801), ("1 day, 0:00:00", 86_400)],
)
def test_a_duration_may_stand_instead_of_the_end(duration: str, seconds: int) -> None:
    mapping = MAPPING.replace('end = "end"', 'duration = "end"')
    event = only(read(HEADER + f'17,li,2026-11-22T00:00:00,"{duration}",done,4\n', mapping))
    assert int(str(event["end_second"])) - 1_795_305_600 == seconds


def test_what_still_runs_counts_until_it_is_known_to() -> None:
    mapping = MAPPING + 'as_of = "seen"\n'
    header = HEADER.replace("\n", ",seen\n")
    running = read(header + "17,li,2026-11-22T00:00:00,,on,4,2026-11-22T00:30:00\n", mapping)
    assert (only(running)["ended"], quantities(running)["wall"]) == (False, Fraction(1, 2))
    ended = read(header + ROW.replace("\n", ",2026-11-22T01:30:00\n"), mapping)
    assert statuses(ended, running) == {"kept": 1, "superseded": 1}
    assert quantities(ended, running)["wall"] == 1
    assert refusal(read(HEADER + ROW.replace("2026-11-22T01:00:00", ""))).code == "missing_end"


def test_records_that_are_no_usage_are_counted_by_reason() -> None:
    mapping = 'no_usage = [{ column = "state", values = ["waiting", ""], reason = "pending" }]' + MAPPING
    collected = read(HEADER + ROW + "18,li,,,waiting,4\n19,li,,,,4\n", mapping)
    assert (collected.no_usage, collected.rows) == ({"pending": 2}, 3)


def test_cards_are_counted_by_model_and_in_parts() -> None:
    mapping = MAPPING + '[[fields.cards]]\ncount = "n"\nmodel = "kind"\nthousandths = "part"\n'
    header = HEADER.replace("\n", ",n,kind,part\n")
    rows = ROW.replace("\n", ",2,A100,\n") + ROW.replace("17", "18").replace("\n", ",1,,250\n")
    assert read(header + rows, mapping).events["cards"].to_list() == ["a100:2000", "unknown:250"]
    assert refusal(read(header + ROW.replace("\n", ",1,,0.5\n"), mapping)).code == "bad_cards"
    assert refusal(read(header + ROW.replace("\n", ",-1,,\n"), mapping)).code == "bad_cards"


def test_counters_are_whole_numbers_of_their_unit() -> None:
    mapping = MAPPING + 'counters.storage_byte_seconds = { column = "disk", scale = 1073741824 }\n'
    header = HEADER.replace("\n", ",disk\n")
    assert only(read(header + ROW.replace("\n", ",1.5\n"), mapping))["counters"] == "storage_byte_seconds:1610612736"
    assert only(read(header + ROW.replace("\n", ",\n"), mapping))["counters"] == ""
    assert refusal(read(header + ROW.replace("\n", ",1.0000000001\n"), mapping)).code == "bad_number"
    assert refusal(read(header + ROW.replace("\n", ",99999999999999999\n"), mapping)).code == "bad_number"


def test_large_numbers_are_counted_exactly() -> None:
    mapping = MAPPING.replace('cpus = "cpus"', 'memory_bytes = "cpus"')
    event = only(read(HEADER + ROW.replace(",4\n", ",9007199254740991\n"), mapping))
    assert event["memory_bytes"] == 2**53 - 1


def test_a_stated_revision_is_the_sources_own() -> None:
    mapping = MAPPING + 'revision = "rev"\n'
    header = HEADER.replace("\n", ",rev\n")
    first, second = (read(header + ROW.replace(",4\n", f",{cpus},{rev}\n"), mapping) for cpus, rev in ((4, 1), (2, 2)))
    assert not only(second)["revision_derived"]
    assert quantities(first, second)["cpu"] == quantities(second, first)["cpu"] == 2


def test_identities_made_of_several_columns_never_become_one() -> None:
    mapping = MAPPING.replace('id = ["job"]', 'id = ["job", "who"]')
    collected = read(HEADER + ROW.replace("17,li", "1:7,li") + ROW.replace("17,li", "1,7:li"), mapping)
    assert statuses(collected) == {"kept": 2}


def test_a_number_that_no_attempt_can_reach_is_refused_and_its_neighbours_are_still_summed() -> None:
    collected = read(HEADER + ROW + ROW.replace("17", "18").replace(",4\n", ",99999999999\n"))
    assert [refused.code for refused in collected.rejected] == ["number_range"]
    assert quantities(collected)["cpu"] == 4


# What is refused


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("17,li,2026-11-22T00:00:00\n", "broken_row"),
        ("17,li,2026-11-22T00:00:00,2026-11-22T01:00:00,done,4,5\n", "broken_row"),
        (ROW.replace("17", ""), "id_missing"),
        (ROW.replace("2026-11-22T00:00:00", "soon"), "bad_time"),
        (ROW.replace("2026-11-22T00:00:00", "-2026-11-22T00:00:00"), "bad_time"),
        (ROW.replace("2026-11-22T01", "2026-11-21T01"), "inconsistent_time"),
        (ROW.replace(",4\n", ",four\n"), "bad_number"),
        (ROW.replace(",4\n", ",4.5\n"), "bad_number"),
        (ROW.replace(",4\n", ",-4\n"), "bad_number"),
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_a_record_that_cannot_be_used_is_refused_with_its_bytes(row: str, code: str, quoted: bool) -> None:
    good = ROW.replace("17,li", '18,"li"' if quoted else "18,li")
    collected = read(HEADER + good + row)
    (refused,) = collected.rejected
    assert (refused.code, refused.raw, refused.line) == (code, row.rstrip("\n").encode(), 3)
    assert collected.events["id"].to_list() == ["18"], "its neighbour is kept"


def test_quoted_fields_may_hold_delimiters_quotes_and_newlines() -> None:
    collected = read(HEADER + ROW.replace("li", '"Li, ""Lei""\nX"') + ROW.replace("17", ""))
    assert collected.events["user"].to_list() == ['Li, "Lei"\nX']
    assert [refused.line for refused in collected.rejected] == [4], "lines are those of the file"


def test_a_quote_that_is_not_closed_refuses_the_file_instead_of_swallowing_it() -> None:
    with pytest.raises(LogFileError, match="no CSV"):
        read(HEADER + ROW.replace("li", '"li') + ROW)


def test_both_ways_to_read_give_the_same() -> None:
    plain = read(HEADER + ROW)
    quoted = read(HEADER.replace("job", '"job"') + ROW.replace("li", '"li"'))
    assert plain.events.equals(quoted.events)


def test_names_that_are_no_utf8_are_refused() -> None:
    assert refusal(read((HEADER + ROW).encode().replace(b"li,", b"l\xff,"))).code == "invalid_bytes"


@pytest.mark.parametrize(
    ("payload", "message"),
    [(b"", "empty"), (b"job,job\n1,2\n", "twice"), (b"a,b\n1,2\n", "no column cpus, end, job, start, state, who")],
)
def test_a_file_that_cannot_be_meant_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(LogFileError, match=message):
        read(payload)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('end = "end"', ""), "either the end or the duration"),
        (('cpus = "cpus"', 'cpu = "cpus"'), "fields.cpu"),
        (('cpus = "cpus"', 'cpus = { column = "a", value = "1" }'), "either a column or a value"),
        (('cpus = "cpus"', 'cpus = { column = "a", scale = 0 }'), "scale"),
        (('id = ["job"]', "id = []"), "id"),
        (('id = ["job"]', "id = "), "no TOML"),
    ],
)
def test_a_mapping_that_cannot_be_used_says_which_key(change: tuple[str, str], message: str) -> None:
    with pytest.raises(CsvMappingError, match=message):
        CsvMapping.from_toml(MAPPING.replace(*change))


def test_a_file_without_a_mapping_is_refused() -> None:
    with pytest.raises(LogFileError, match="mapping"):
        read_csv(b"a\n1\n", cluster=SITE)
