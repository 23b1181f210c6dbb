"""`POST /v1/logs/slurm/{cluster}`: every row accounted for, durable before the answer, refused only as a whole."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from hourbook.accruing import accrue_open_months
from hourbook.api import logs
from hourbook.applying import apply_files
from hourbook.database import read_session
from hourbook.retrying import retry_quarantine
from hourbook.slurm_node.asking import header
from metering import store as metering
from tests.hourbook.served import FACTS, Served, content_of_database, served
from tests.slurm_node.login_node import row

END = 1_795_305_600
MARK = "~d3l1m1t3r~"


@pytest.fixture
def hourbook(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as one:
        yield one


def text(*rows: dict[str, str], mark: str = MARK) -> bytes:
    return header(mark) + b"".join(mark.join(one.values()).encode() + b"\n" for one in rows)


def post(hourbook: Served, body: bytes, cluster: str = "hpc1", kind: str = "text/plain", **asked: Any) -> Any:  # noqa: ANN401
    packed = body.startswith(b"\x1f\x8b")
    sent = {**hourbook.bearer("collector"), "Content-Type": kind, **({"Content-Encoding": "gzip"} if packed else {})}
    where = {"delimiter": MARK, **asked}
    return hourbook.client.post(f"/v1/logs/slurm/{cluster}", content=body, headers=sent, params=where)


def jobs(hourbook: Served) -> int:
    answer = hourbook.get("/v1/usage", "finance", **{"from": "2026-11-20", "to": "2026-11-23", "by": "account"})
    return sum(int(one["jobs"]) for one in answer.json()["rows"] if one["account"] == "grp")


def open_entries(hourbook: Served) -> list[metering.QuarantineRow]:
    with read_session(hourbook.home.engine) as session:
        found = metering.quarantine(session, status="open")
        session.expunge_all()
        return found


def test_every_row_is_accounted_for_and_in_the_inbox_when_it_is_acknowledged(hourbook: Served) -> None:
    rows = [
        row(1, END),
        row(2, END, State="CANCELLED", NodeList="None assigned", Start="Unknown", ElapsedRaw="0"),
        row(3, END, State="NEW_STATE"),
    ]
    answer = post(hourbook, gzip.compress(text(*rows)), rows=3)
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert (told["rows"], told["events"], told["no_usage"]) == (3, 1, {"never_started": 1})
    assert told["quarantined"] == {"unknown_state": 1}
    with read_session(hourbook.home.engine) as session:
        assert metering.inbox_batches(session)[-1].batch_seq == told["batch"]
    accrue_open_months(hourbook.home)
    assert jobs(hourbook) == 1


def test_the_same_rows_again_change_nothing(hourbook: Served) -> None:
    for mark in (MARK, "~another~~"):
        body = text(row(1, END), row(2, END, State="NEW_STATE"), mark=mark)
        assert post(hourbook, body, delimiter=mark).status_code == 202
    accrue_open_months(hourbook.home)
    assert jobs(hourbook) == 1
    assert len(open_entries(hourbook)) == 1  # although its delimiter was another each time


def test_a_quarantined_row_counts_once_the_cluster_is_described_as_it_is(hourbook: Served, tmp_path: Path) -> None:
    post(hourbook, text(row(1, END, AllocTRES="cpu=4,node=1,gres/fpga=2", JobName="a|b\nc")))
    assert [entry.code for entry in open_entries(hourbook)] == ["unknown_gres"]
    facts = tmp_path / "more.toml"
    facts.write_text(FACTS.replace('partitions = ["cpu"', 'ignored_gres = ["fpga"]\npartitions = ["cpu"'), "utf-8")
    apply_files(hourbook.home, [facts])
    assert retry_quarantine(hourbook.home).resolved == 1
    accrue_open_months(hourbook.home)
    assert (jobs(hourbook), open_entries(hourbook)) == (1, [])


def test_a_running_job_that_cannot_be_read_stands_in_quarantine_once_until_it_ends(hourbook: Served) -> None:
    for elapsed in ("100", "400", "700"):
        running = row(1, END, State="RUNNING", End="Unknown", ElapsedRaw=elapsed, AllocTRES="cpu=4,gres/fpga=2")
        assert post(hourbook, text(running)).json()["quarantined"] == {"unknown_gres": 1}
    assert len(open_entries(hourbook)) == 1
    post(hourbook, text(row(1, END, AllocTRES="cpu=4,gres/fpga=2")))
    assert len(open_entries(hourbook)) == 2


def test_json_of_sacct_is_taken_too(hourbook: Served) -> None:
    one = {"account": "grp", "cluster": "hpc1", "job_id": 9, "nodes": "cn1", "partition": "cpu", "user": "alice"}
    times = {"elapsed": 60, "start": END - 60, "end": END, "submission": END - 61, "suspended": 0, "limit": 5}
    held = {"allocated": [{"type": "cpu", "count": 4}, {"type": "node", "count": 1}]}
    body = orjson.dumps({"jobs": [{**one, "time": times, "tres": held, "state": {"current": ["COMPLETED"]}}]})
    told = post(hourbook, body, kind="application/json").json()
    assert (told["rows"], told["events"]) == (1, 1)


@pytest.mark.parametrize(
    ("body", "asked", "status", "said"),
    [
        (text(row(1, END)), {"rows": 2}, 422, "the sender counts 2 rows and 1 were read"),
        (b"no header\n", {}, 422, "the first line is no header"),
        (b"", {}, 422, "the file is empty"),
        (gzip.compress(text(row(1, END)))[:-9], {}, 400, "cut off"),
        (b"\x1f\x8b\x08 nothing", {}, 400, "cannot be unpacked"),
        (gzip.compress(bytes(logs.MAX_UNPACKED_BYTES + 1)), {}, 413, "when unpacked"),
        (bytes(logs.MAX_BYTES + 1), {}, 413, "longer than"),
        (b"{}", {"kind": "application/json"}, 422, "no list of jobs"),
        (text(row(1, END)), {"kind": "image/png"}, 415, "text/plain"),
        (text(row(1, END)), {"cluster": "hpc7"}, 404, "'hpc7' is not described"),
        (text(row(1, END)), {"delimiter": ""}, 422, "delimiter"),
    ],
)
def test_what_cannot_be_taken_is_refused_whole_and_changes_nothing(
    hourbook: Served, body: bytes, asked: dict[str, Any], status: int, said: str
) -> None:
    before = content_of_database(hourbook.home)
    answer = post(hourbook, body, **asked)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]
    assert content_of_database(hourbook.home) == before


def test_a_pull_in_which_nothing_happened_is_taken(hourbook: Served) -> None:
    told = post(hourbook, text(), rows=0).json()
    assert (told["rows"], told["events"]) == (0, 0)
