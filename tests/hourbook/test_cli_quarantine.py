"""`quarantine`: what cannot be used is named, and read again once its cluster is described right."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from tests.hourbook.cli_stories import COLUMNS, START, Answer, Terminal, fresh, sacct_file, sacct_row

STRANGE = {"AllocTRES": "billing=8,cpu=8,gres/vpu=2,mem=8G,node=1"}
DAYS = ("--from", "2026-11-01", "--to", "2026-11-30")
VPUS = """
[[clusters]]
name = "hpc1"
cards = [{ gres = "vpu", model = "v9" }]
"""


def usage(terminal: Terminal) -> list[dict[str, str]]:
    return terminal.done("usage", *DAYS, "--by", "cluster", "--format", "csv").rows()


def quarantined(terminal: Terminal, *more: str) -> list[tuple[str, str, str]]:
    rows = terminal.done("quarantine", "list", "--format", "csv", *more).rows()
    return [(row["id"], row["code"], row["status"]) for row in rows]


def describe(terminal: Terminal, folder: Path, text: str = VPUS) -> None:
    file = folder / "clusters.toml"
    file.write_text(text, encoding="utf-8")
    terminal.done("apply", file)


def retry(terminal: Terminal) -> dict[str, str]:
    return terminal.done("quarantine", "retry", "--format", "csv").rows()[0]


def show(terminal: Terminal, entry: str) -> dict[str, str]:
    shown: dict[str, str] = terminal.done("quarantine", "show", entry, "--format", "json").json()[0]
    return shown


def test_rows_with_an_unknown_card_are_used_once_it_is_described(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    rows = [sacct_row(1), sacct_row(2, STRANGE), sacct_row(3, {**STRANGE, "JobName": "JobIDRaw"})]
    log = sacct_file(tmp_path / "monday" / "log.psv", rows)
    terminal.done("import", "slurm", log, "--cluster", "hpc1")
    assert [code for _, code, _ in quarantined(terminal)] == ["unknown_gres", "unknown_gres"]
    assert retry(terminal) == {"tried": "2", "resolved": "0", "still_open": "2"}

    describe(terminal, tmp_path)

    assert retry(terminal) == {"tried": "2", "resolved": "2", "still_open": "0"}
    assert quarantined(terminal) == []
    assert quarantined(terminal, "--all") == [
        ("Q-1", "unknown_gres", "resolved"),
        ("Q-2", "unknown_gres", "resolved"),
    ]
    [row] = usage(terminal)
    assert (row["core_hours"], row["card_hours"], row["jobs"]) == ("20.000000", "4.000000", "3")
    entry = show(terminal, "Q-2")
    assert entry["file"] == "monday/log.psv"
    assert entry["resolved by"] == "retry of Q-1 and 1 more (monday/log.psv)"
    assert retry(terminal) == {"tried": "0", "resolved": "0", "still_open": "0"}


def test_a_retried_row_keeps_its_line_in_the_file_as_evidence(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    rows = [*(sacct_row(job) for job in range(1, 6)), sacct_row(6, STRANGE)]
    terminal.done("import", "slurm", sacct_file(tmp_path / "log.psv", rows), "--cluster", "hpc1")
    describe(terminal, tmp_path)
    retry(terminal)
    assert int(show(terminal, "Q-1")["line"]) == 7
    assert evidence_of(terminal, "6") == 7


def evidence_of(terminal: Terminal, job: str) -> int:
    """Return the line that the event of a job names as its origin."""
    from metering.lake import EventLake

    events = EventLake(terminal.home / "lake").scan().collect().to_dicts()
    [evidence] = [event["evidence"] for event in events if event["job"] == job]
    line: int = json.loads(evidence)["line"]
    return line


def test_times_of_a_retried_row_are_read_in_the_zone_of_its_file(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    local = {"Submit": "2026-11-02T00:00:00", "Start": "2026-11-02T00:00:00", "End": "2026-11-02T00:30:00"}
    log = sacct_file(tmp_path / "log.psv", [sacct_row(1, {**STRANGE, **local})], header="")
    named = COLUMNS.replace("|", ",")
    terminal.done("import", "slurm", log, "--cluster", "hpc1", "--timezone", "UTC", "--columns", named)
    describe(terminal, tmp_path)
    assert retry(terminal)["resolved"] == "1"
    hours = terminal.done("usage", *DAYS, "--by", "hour", "--timezone", "UTC", "--format", "csv").rows()
    assert [(row["hour"], row["jobs"]) for row in hours] == [("2026-11-02T00:00+00:00", "1")]


def test_broken_rows_stay_however_the_cluster_is_described(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    columns = "JobIDRaw|Cluster|JobName|" + COLUMNS.removeprefix("JobIDRaw|Cluster|").removesuffix("|JobName")
    forged = f"2|hpc1|x\n9|hpc1|forged|cpu|normal|grp|alice|{START}|{START}|{START + 9}|9|COMPLETED|1|4|cpu=4,node=1"
    log = sacct_file(tmp_path / "log.psv", [forged], header=columns)
    terminal.done("import", "slurm", log, "--cluster", "hpc1")
    describe(terminal, tmp_path)
    assert retry(terminal) == {"tried": "0", "resolved": "0", "still_open": "1"}
    assert quarantined(terminal) == [("Q-1", "broken_row", "open")]
    assert usage(terminal) == []


def test_a_row_that_is_still_wrong_stays_while_its_neighbour_is_resolved(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    odd = sacct_row(1, {"State": "LEVITATING"})
    log = sacct_file(tmp_path / "log.psv", [odd, sacct_row(2, STRANGE), sacct_row(3, {"Cluster": "hpc9"})])
    terminal.done("import", "slurm", log, "--cluster", "hpc1")
    describe(terminal, tmp_path)
    assert retry(terminal) == {"tried": "3", "resolved": "1", "still_open": "2"}
    left = [("Q-1", "unknown_state", "open"), ("Q-3", "foreign_cluster", "open")]
    assert quarantined(terminal) == left
    assert usage(terminal)[0]["jobs"] == "1"


def event(number: int, cards: object) -> str:
    resources = {"cpus": 8, "nodes": 1, "cards": cards}
    names = {"cluster": "hpc1", "partition": "gpu", "account": "grp", "user": "alice", "state": "COMPLETED"}
    times = {"start": "2026-11-03T00:00:00Z", "end": "2026-11-03T01:00:00Z"}
    envelope = {"specversion": "1.0", "type": "hourbook.usage.v1", "source": "agent", "id": f"job-{number}"}
    return json.dumps({**envelope, "data": {**names, **times, "resources": resources}})


def test_events_are_read_again_too_and_those_of_broken_form_stay(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    file = tmp_path / "usage.jsonl"
    late = event(2, {}).replace("2026-11-03", "2026-12-24")
    file.write_text("\n".join([event(1, {"a100": 1}), late, "{no json"]), encoding="utf-8")
    answer: Answer = terminal.done("import", "events", file)
    assert "cluster hpc1 is not described yet" in answer.err
    assert [code for _, code, _ in quarantined(terminal)] == ["future_time", "not_json"]
    assert retry(terminal) == {"tried": "1", "resolved": "0", "still_open": "2"}
    [row] = usage(terminal)
    assert (row["core_hours"], row["card_hours"]) == ("8.000000", "1.000000")


def test_a_packed_file_of_events_is_read_and_a_damaged_one_is_refused_whole(tmp_path: Path) -> None:
    terminal, file = fresh(tmp_path), tmp_path / "usage.jsonl.gz"
    packed = gzip.compress("\n".join([event(1, {}), event(2, {})]).encode())
    file.write_bytes(packed[:-20])
    damaged = terminal("import", "events", file)
    assert (damaged.code, "transfer it again" in " ".join(damaged.err.split())) == (1, True)
    file.write_bytes(packed)
    [row] = terminal.done("import", "events", file, "--format", "csv").rows()
    assert (row["rows"], row["kept"]) == ("2", "2")
    assert quarantined(terminal) == []


def test_an_event_from_the_future_is_used_when_its_time_has_come(tmp_path: Path) -> None:
    from dataclasses import replace
    from datetime import UTC, datetime

    from hourbook.database import open_home
    from hourbook.retrying import retry_quarantine

    terminal = fresh(tmp_path)
    file = tmp_path / "usage.jsonl"
    file.write_text(event(1, {}).replace("2026-11-03", "2026-12-24"), encoding="utf-8")
    terminal.done("import", "events", file)
    home = replace(open_home(terminal.home), fixed_clock=datetime(2026, 12, 25, tzinfo=UTC))
    done = retry_quarantine(home)
    home.close()
    assert (done.tried, done.resolved, done.left) == (1, 1, 0)
    [row] = terminal.done("usage", "--from", "2026-12-24", "--to", "2026-12-24", "--format", "csv").rows()
    assert row["core_hours"] == "8.000000"
