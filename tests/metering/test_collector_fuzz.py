"""Whatever a log holds, no collector fails: each row is an event, refused or no usage, in any order and repetition."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.clusters import Cluster
from metering.collectors.common import LogFileError
from metering.collectors.pieces import joined, pieces, shifted
from metering.collectors.registry import COLLECTORS
from metering.events import EVENT_SCHEMA, USAGE_FACTS, Collected
from metering.identity import mark

from .collecting import lake_rows
from .test_collect_kubernetes import container, node, pod
from .test_collect_lsf import record as lsf
from .test_collect_pbs import record as pbs
from .test_collect_sge import record as sge
from .test_collect_swf import HEADER as SWF_HEADER
from .test_collect_swf import line as swf

HPC = Cluster(name="hpc", timezone="Asia/Shanghai", card_partitions=("gpu",))
EXAMPLES = 12
START = 1_795_276_800
MAPPING = """
id = ["job"]
time_format = "epoch"
[fields]
start = "begin"
end = "end"
as_of = "now"
cpus = "cores"
partition = "queue"
[[fields.cards]]
count = "gpus"
"""
CSV_HEADER = b"job,begin,end,now,cores,queue,gpus\n"


@dataclass(frozen=True)
class Kind:
    """A kind of log: what stands in front, and lines of every sort."""

    name: str
    lines: Sequence[bytes]
    head: bytes = b""
    options: str = ""

    def read(self, body: bytes) -> Collected:
        reader = COLLECTORS[self.name]
        return reader.read(body, cluster=HPC, options=reader.parse_options(self.options) if self.options else None)


def csv(*cells: object) -> bytes:
    return ",".join(str(cell) for cell in cells).encode() + b"\n"


KINDS = [
    Kind(
        "pbs",
        [
            pbs(),
            pbs(end=START + 600),
            pbs("R", end=START + 600),
            pbs("Q"),
            pbs(start=0),
            pbs(exec_host="n1/0-3,7+n2/0*8", Resource_List__nodes="2:ppn=8:gpus=1#excl"),
            pbs(Resource_List__ngpus=2, Resource_List__nodes="1:gpus=1"),
            pbs(job="9[].srv", exec_host=None),
            pbs(queue="gpu"),
            pbs(account="two words", jobname="a=b c"),
            pbs(end=None),
            pbs(user="li").replace(b"li", b"\xff\xfe"),
            b"rest of a record\n",
        ],
    ),
    Kind(
        "lsf",
        [
            lsf(),
            lsf(end=START + 60, run_time=60),
            lsf(hosts=("16*n1", "16*n2"), asked="3"),
            lsf(start=0, hosts=()),
            lsf(status="4"),
            lsf(effective="rusage[ngpus_physical=2.00:gmodel=A100]"),
            lsf(command='say "hi, \x01 there"'),
            b'"JOB_RESIZE" "10.1" 1 2\n',
            lsf()[:90] + b"\n",
            b'"JOB_FINISH" "10.1\n',
        ],
    ),
    Kind(
        "sge",
        [
            sge(),
            sge(end=START + 60),
            sge(start=0),
            sge(failed=25),
            sge(pe_taskid="1.n1"),
            sge(category="-l gpu=2,h_rt=3600:more"),
            sge(slots="x"),
            sge(qname="gpu"),
            sge(start=START * 1000, end=START * 1000 + 60_000, submission=START * 1000),
            b"# comment\n",
            b"a:b\n",
        ],
    ),
    Kind(
        "swf",
        [
            swf().encode(),
            swf(run=60).encode(),
            swf(number=16, wait=-1).encode(),
            swf(number=17, status=5, run=-1, wait=-1).encode(),
            swf(number=18, status=3).encode(),
            swf(number=19, allocated=-1).encode(),
            b"; remark\n",
            b"1 2 3\n",
        ],
        head=SWF_HEADER.encode(),
    ),
    Kind(
        "csv",
        [
            csv(1, START, START + 60, "", 4, "cpu", ""),
            csv(1, START, "", START + 30, 4, "cpu", ""),
            csv(2, START, START - 60, "", 4, "cpu", ""),
            csv(3, START, START + 60, "", 4, "gpu", 0),
            csv(4, START, START + 60, "", "many", "cpu", "0.5"),
            csv("", START, START + 60, "", 4, "cpu", ""),
            csv('"q, uoted"', START, START + 60, "", 4, "cpu", 2),
            csv("too", "few"),
        ],
        head=CSV_HEADER,
        options=MAPPING,
    ),
]
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def winners(collected: Collected) -> list[tuple[object, ...]]:
    """The facts of each event that counts."""
    marked = mark(lake_rows(collected)).filter(pl.col("status") == "kept")
    return sorted(marked.select("id", "revision", *USAGE_FACTS).iter_rows())


def lines_in(body: bytes, kind: Kind) -> int:
    """How many rows a body of the kind without line breaks in quotes has."""
    rows = [line for line in body.split(b"\n") if line.strip(b" \t\r\n\v\f")]
    return len(rows) - (kind.name == "csv") - sum(kind.name == "swf" and row.startswith(b";") for row in rows)


@by_kind
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_order_and_repetition_do_not_change_what_counts(kind: Kind, data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.sampled_from(kind.lines), min_size=1, max_size=12))
    shuffled = data.draw(st.permutations([*lines, *data.draw(st.lists(st.sampled_from(lines), max_size=5))]))
    one, other = (kind.read(kind.head + b"".join(some)) for some in (lines, shuffled))
    assert winners(one) == winners(other)
    for read, some in ((one, lines), (other, shuffled)):
        assert read.rows == lines_in(kind.head + b"".join(some), kind)


@by_kind
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_damaged_logs_are_refused_row_by_row_or_as_a_whole_and_never_fail(kind: Kind, data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.sampled_from(kind.lines), min_size=1, max_size=5))
    body = bytearray(kind.head + b"".join(lines))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body)))
        until = at + data.draw(st.integers(0, 12))
        body[at:until] = data.draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b'"', b"\n", b"\xff", b"=", b"9" * 30]))
        )
    check_damaged(kind, bytes(body))


@by_kind
@settings(max_examples=EXAMPLES, deadline=None)
@given(body=st.binary(max_size=300))
def test_bytes_that_are_no_log_at_all_never_fail(kind: Kind, body: bytes) -> None:
    check_damaged(kind, body)
    check_damaged(kind, kind.head + body)


def check_damaged(kind: Kind, body: bytes) -> None:
    try:
        collected = kind.read(body)
    except LogFileError:
        return  # a file that is refused as a whole says why
    assert collected.events.schema == EVENT_SCHEMA
    assert collected.events.null_count().sum_horizontal().item() == 0
    held = collected.events.select(
        (pl.col("end_second") >= pl.col("start_second")).all(), (pl.col("revision") < 2**50).all()
    )
    assert held.row(0) == (True, True)
    if b'"' not in body or kind.name != "csv":
        assert collected.rows == lines_in(body.removeprefix(b"\xef\xbb\xbf"), kind)
    for refused in collected.rejected:
        assert refused.raw in body
        assert refused.code


@by_kind
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_a_log_says_the_same_in_pieces_of_any_size(kind: Kind, data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.sampled_from(kind.lines), min_size=1, max_size=10))
    size = data.draw(st.integers(1, 2000))
    body = kind.head + b"".join(lines)
    reader = COLLECTORS[kind.name]
    cutting = reader.cutting_for(reader.parse_options(kind.options) if kind.options else None)
    assert cutting is not None
    cut = joined([shifted(kind.read(piece), line) for piece, line in pieces(body, cutting, size)])
    whole = kind.read(body)
    assert cut.events.equals(whole.events)
    assert (cut.rejected, dict(cut.no_usage), cut.rows) == (whole.rejected, dict(whole.no_usage), whole.rows)


# Pods

POD_LIKE = [
    pod(gpus=1),
    pod("Running", gpus=2, ended=None),
    pod("Pending", ended=None),
    pod(metadata={"uid": "u-2", "deletionTimestamp": "2026-11-22T00:00:00Z"}),
    pod(spec={"containers": [container(cpu="two")]}),
    node("n1", "A100"),
    {"type": "DELETED", "object": pod("Running", gpus=1, ended=None), "lastSeen": "2026-11-22T01:00:00Z"},
    {"type": "BOOKMARK", "object": {}},
    {"kind": "Service"},
    17,
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_dumps_with_anything_in_them_keep_their_pods_and_never_fail(data: st.DataObject) -> None:
    items = data.draw(st.lists(st.sampled_from(POD_LIKE), min_size=1, max_size=8))
    damaged = [_damaged(data, json.loads(json.dumps(item))) for item in items]
    kind = Kind("kubernetes", ())
    for some in (items, damaged):
        collected = kind.read(json.dumps({"items": some}).encode())
        assert collected.rows == len(some)
        assert (collected.events["revision"] < 2**50).all()
    assert winners(kind.read(json.dumps({"items": items}).encode())) == winners(
        kind.read(json.dumps({"items": items[::-1] + items}).encode())
    )


def _damaged(data: st.DataObject, item: object) -> object:
    """Put something else in the place of a part of a pod."""
    at = item
    while isinstance(at, dict) and at:
        name = data.draw(st.sampled_from(sorted(at)))
        if not isinstance(at[name], dict) or data.draw(st.booleans()):
            at[name] = data.draw(JSON)
            break
        at = at[name]
    return item


@settings(max_examples=EXAMPLES, deadline=None)
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_dump_never_fails(body: bytes) -> None:
    try:
        COLLECTORS["kubernetes"].read(body, cluster=HPC)
    except LogFileError:
        return
