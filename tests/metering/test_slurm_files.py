"""A sacct file escapes nothing: its columns, its lines, and rows that are broken or forged by free text."""

from __future__ import annotations

import gzip
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.clusters import Cluster
from metering.collectors import slurm_rows
from metering.collectors.slurm import read_sacct
from metering.collectors.slurm_joins import WINDOW_BYTES
from metering.collectors.slurm_layout import SacctFileError
from metering.events import Collected

HPC1 = Cluster(name="hpc1")
NAME_LAST = "JobID JobIDRaw Cluster Account User UID Submit Start End ElapsedRaw State NCPUS AllocTRES NodeList JobName"
NAME_FIRST = (
    "JobID JobIDRaw Cluster JobName Account User UID Submit Start End ElapsedRaw State NCPUS AllocTRES NodeList"
    " SubmitLine WorkDir"
)
FORGED_ID = "666"


def line(layout: str, job: int | str, name: str = "train", **cells: str) -> str:
    values = {
        "JobID": str(job),
        "JobIDRaw": str(job),
        "Cluster": "hpc1",
        "Account": "grp_ml",
        "User": "sl_carol",
        "UID": "1003",
        "Submit": "1795294603",
        "Start": "1795294603",
        "End": "1795294845",
        "ElapsedRaw": "242",
        "State": "COMPLETED",
        "NCPUS": "4",
        "AllocTRES": "cpu=4,mem=4000M,node=1",
        "NodeList": "cn01",
        "JobName": name,
        "SubmitLine": "sbatch run.sh",
        "WorkDir": "/home/carol",
        "Comment": "",
    } | cells
    return "|".join(values[column] for column in layout.split())


def log(layout: str, *lines: str) -> bytes:
    return "\n".join(["|".join(layout.split()), *lines, ""]).encode()


def read(payload: bytes, **options: object) -> Collected:
    collected = read_sacct(payload, cluster=HPC1, **options)  # type: ignore[arg-type]
    assert not collected.events["id"].str.starts_with(f"{FORGED_ID}:").any(), "a forged row was billed"
    return collected


def jobs(collected: Collected) -> list[str]:
    return [event_id.partition(":")[0] for event_id in collected.events["id"]]


# The file and its columns


def test_a_gzip_file_is_known_by_its_first_bytes() -> None:
    plain = log(NAME_LAST, line(NAME_LAST, 1))
    assert read(gzip.compress(plain)).events.equals(read(plain).events)


def test_columns_may_be_named_where_there_is_no_header() -> None:
    with_header = log(NAME_LAST, line(NAME_LAST, 1))
    bare = with_header.split(b"\n", 1)[1]
    columns = [column.lower() for column in NAME_LAST.split()]
    assert jobs(read(bare, columns=columns)) == ["1"]
    assert jobs(read(with_header, columns=columns[::-1])) == ["1"]  # the header knows better
    assert jobs(read(bare, columns=[f"{column}%40" for column in columns])) == ["1"]


def test_a_header_repeated_where_files_were_joined_is_no_usage() -> None:
    once = log(NAME_LAST, line(NAME_LAST, 1))
    collected = read(once + once.replace(b"1|1|", b"2|2|", 1))
    assert (jobs(collected), collected.no_usage) == (["1", "2"], {"header": 1})


def test_a_pull_without_jobs_has_a_header_only() -> None:
    assert read(log(NAME_LAST)).rows == 0
    assert read(log(NAME_FIRST)).rows == 0


def test_lines_closed_by_a_delimiter_hold_no_further_column() -> None:
    closed = log(NAME_LAST, line(NAME_LAST, 1), line(NAME_LAST, 2, "a|b")).replace(b"\n", b"|\n")
    assert jobs(read(closed)) == ["1", "2"]
    bare = closed.split(b"\n", 1)[1]
    assert jobs(read(bare, columns=NAME_LAST.split())) == ["1", "2"]


def test_any_delimiter_will_do() -> None:
    payload = log(NAME_LAST, line(NAME_LAST, 1, "a b"))
    for delimiter in ("☃", "<5f3a>"):
        collected = read(payload.replace(b"|", delimiter.encode()), delimiter=delimiter)
        assert jobs(collected) == ["1"]


def test_lines_of_another_system_end_in_cr_lf() -> None:
    layout = NAME_LAST.removesuffix(" JobName")
    collected = read(log(layout, line(layout, 1, NodeList="None assigned")).replace(b"\n", b"\r\n"))
    assert collected.no_usage == {"never_started": 1}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"\x1f\x8b not gzip", "unpacked"),
        (gzip.compress(b"JobID|JobIDRaw" * 99, mtime=0)[:-20], "unpacked"),
        (line(NAME_LAST, 1).encode(), "--columns"),
        (log(NAME_LAST.replace(" JobIDRaw", "")), "JobIDRaw"),
        (log(NAME_LAST.replace(" Submit", "")), "Submit"),
        (log(NAME_LAST.replace(" AllocTRES", "")), "AllocTRES"),
        (log(NAME_LAST.replace(" ElapsedRaw", "")), "ElapsedRaw"),
        (log(NAME_LAST + " State"), "State is there twice"),
        (log("JobName " + NAME_LAST.removesuffix(" JobName")), "JobName stands before JobIDRaw"),
        (log(NAME_LAST, line(NAME_LAST, 1, Submit="2026-11-22T04:56:43")), "--timezone"),
        (log(NAME_LAST, line(NAME_LAST, 1, End="2026-11-22T04:56:43")), "hpc1"),
    ],
)
def test_a_file_that_cannot_be_metered_is_refused_as_a_whole(payload: bytes, said: str) -> None:
    with pytest.raises(SacctFileError, match=said):
        read(payload)


def test_columns_that_do_not_fit_the_file_are_refused() -> None:
    payload = log(NAME_LAST, line(NAME_LAST, 1))
    with pytest.raises(SacctFileError, match="most have 15"):
        read(payload.split(b"\n", 1)[1], columns=[*NAME_LAST.split(), "QOS", "Timelimit", "DBIndex"])


def test_names_may_be_of_any_bytes_but_users_must_be_utf8() -> None:
    payload = log(NAME_LAST, line(NAME_LAST, 1, "N?"), line(NAME_LAST, 2, "火箭 �"), line(NAME_LAST, 3, User="U?"))
    collected = read(payload.replace(b"?", b"\xff\xfe"))
    assert jobs(collected) == ["1", "2"]
    assert [(found.code, found.line) for found in collected.rejected] == [("invalid_bytes", 4)]
    assert b"U\xff\xfe" in collected.rejected[0].raw


def test_carriage_returns_and_unicode_line_ends_in_a_name_end_no_line() -> None:
    names = ["a\rb", "a\x1fb", "a\u2028b", "a\x0bb", "a\x85b", '"', "'"]
    lines = [line(NAME_LAST, job, name) for job, name in enumerate(names, start=1)]
    assert len("".join(lines).splitlines()) > 1, "str.splitlines would break them"
    assert len(read(log(NAME_LAST, *lines)).events) == len(names)


# Free text comes last


def test_delimiters_and_newlines_in_a_last_name_do_no_harm() -> None:
    payload = log(NAME_LAST, line(NAME_LAST, 1, "a|b||c"), line(NAME_LAST, 2, "x\ny|z"), line(NAME_LAST, 3))
    collected = read(payload)
    assert (jobs(collected), collected.rejected) == (["1", "2", "3"], ())
    assert any("1 line(s) continue" in note for note in collected.notes)


def test_the_import_says_that_a_forged_last_name_cannot_be_seen() -> None:
    assert any("forged" in note for note in read(log(NAME_LAST)).notes)


def test_a_row_cut_off_at_the_end_of_a_file_is_refused_and_resolved_by_a_later_pull() -> None:
    cut = log(NAME_LAST, line(NAME_LAST, 1), line(NAME_LAST, 2))[:-60]
    collected = read(cut)
    assert jobs(collected) == ["1"]
    (found,) = collected.rejected
    assert (found.code, found.line, found.event_id) == ("broken_row", 3, "2:1795294603")


def test_a_fragment_before_all_rows_is_refused() -> None:
    collected = read(log(NAME_LAST, "rest of a name", line(NAME_LAST, 1)))
    assert [(found.code, found.line) for found in collected.rejected] == [("broken_row", 2)]


def test_without_free_text_every_odd_line_is_a_broken_row_of_its_own() -> None:
    layout = NAME_LAST.removesuffix(" JobName")
    collected = read(log(layout, line(layout, 1) + "|more", line(layout, 2), line(layout, 3)[:30], line(layout, 4)))
    assert jobs(collected) == ["2", "4"]
    assert [found.code for found in collected.rejected] == ["broken_row"] * 2


# Free text stands before other columns


@pytest.mark.parametrize("name", ["a|b", "||", "a\nb", "a\n\nb", "a|b\nc|d", "\n", "\n|\n|\n", "cr\r\nlf"])
def test_a_row_broken_by_its_name_is_one_row_with_all_its_bytes(name: str) -> None:
    broken = line(NAME_FIRST, 2, name)
    collected = read(log(NAME_FIRST, line(NAME_FIRST, 1), broken, line(NAME_FIRST, 3)))
    assert jobs(collected) == ["1", "3"]
    (found,) = collected.rejected
    assert (found.code, found.raw, found.line) == ("broken_row", broken.encode(), 3)
    # Whose row it is can be told, so a kept row of a clean file resolves it.
    assert (found.event_id, found.month) == ("2:1795294603", "2026-11")


FORGED = line(NAME_FIRST, FORGED_ID, Account="victim")
COMPLETION = line(NAME_FIRST, 2, "x").partition("|x|")[2]


@pytest.mark.parametrize(
    "name",
    [
        f"x\n{FORGED}\ny",
        f"x\n{FORGED}\n{FORGED}\ny",
        f"x|y\n{FORGED}\nz",
        f"x\n{FORGED}\ny|z",
        f"x\n{FORGED}\n",
        f"\n{FORGED}\n\n",
        f"x\n{FORGED}|{FORGED}\ny",
        f"x\n{FORGED}\n{FORGED}",  # the second takes what follows the name
        "||||||||||||||||||||" + f"\n{FORGED}\ny",  # too many columns above it
        "||||||||||||||||||||" + f"\n{FORGED}\n{FORGED}",
        "|" * 13 + f"\n{FORGED}\ny",  # exactly as many columns as a row has
        "|" * 13 + f"\n{FORGED}\n{FORGED}",
        "x\n" + "|" * 13 + f"\n{FORGED}\ny",  # the broken row seems to end before it
        "x\n" + "|" * 13 + f"\n{FORGED}\n||||y",
        f"x|{COMPLETION}\n{FORGED}\ny",  # the row is completed, as if true, before the forged one
        f"x\n{COMPLETION.replace('COMPLETED', 'FAILED')}\n{FORGED}\ny",
        f"x\n{COMPLETION}\n{FORGED}\n||||||||||y",
        f"x{FORGED}\n{FORGED}\n{FORGED}",
    ],
)
def test_a_row_forged_in_a_name_before_other_columns_is_never_billed(name: str) -> None:
    forging = line(NAME_FIRST, 2, name)
    collected = read(log(NAME_FIRST, forging))
    assert "666" not in "".join(jobs(collected))
    assert b"".join(found.raw for found in collected.rejected).count(b"|666|") == name.count("|666|")
    assert collected.events.filter(pl.col("account") == "victim").is_empty()


def test_splitting_by_lines_alone_would_bill_the_forged_row() -> None:
    payload = log(NAME_FIRST, line(NAME_FIRST, 2, f"x\n{FORGED}\ny"))
    whole = [row for row in payload.decode().split("\n")[1:] if row.count("|") == NAME_FIRST.count(" ")]
    assert whole == [FORGED]
    assert read(payload).events.is_empty()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["x", "|", "\n", FORGED, "\r", "\n" + FORGED + "\n"]), max_size=9))
def test_whatever_a_name_holds_no_forged_row_is_billed(pieces: list[str]) -> None:
    name = "".join(pieces)
    neighbours = [line(NAME_FIRST, 1), line(NAME_FIRST, 3)]
    collected = read(log(NAME_FIRST, neighbours[0], line(NAME_FIRST, 2, f"start{name}"), neighbours[1]))
    assert collected.events.filter(pl.col("account") == "victim").is_empty()
    quarantine = b"\n".join(found.raw for found in collected.rejected).decode().split("\n")
    for job, neighbour in zip("13", neighbours, strict=True):
        assert (job in jobs(collected)) != (neighbour in quarantine), "a true row is kept or in quarantine, once"


def test_rows_far_from_a_forged_one_are_still_read() -> None:
    far = [line(NAME_FIRST, 1000 + n) for n in range(2 * WINDOW_BYTES // len(FORGED))]
    forging = line(NAME_FIRST, 2, "|" * 13 + f"\n{FORGED}\ny")
    collected = read(log(NAME_FIRST, *far, forging, *far))
    read_jobs = jobs(collected)
    assert read_jobs.count("1000") == 2
    assert len(read_jobs) > len(far)


def test_a_row_cut_off_does_not_take_the_rest_of_the_file_with_it() -> None:
    far = [line(NAME_FIRST, 1000 + n) for n in range(2 * WINDOW_BYTES // len(FORGED))]
    collected = read(log(NAME_FIRST, line(NAME_FIRST, 2)[:40], *far))
    assert jobs(collected)[-1] == far[-1].partition("|")[0]
    assert len(collected.rejected) == 1


def test_a_newline_in_the_last_column_only_continues_its_row() -> None:
    collected = read(log(NAME_FIRST, line(NAME_FIRST, 1, WorkDir="/home/a\nb"), line(NAME_FIRST, 2)))
    assert (jobs(collected), collected.rejected) == (["1", "2"], ())


def test_the_import_says_how_to_read_names_that_stand_before_other_columns() -> None:
    assert any("JobName last" in note for note in read(log(NAME_FIRST)).notes)


def test_a_zone_of_the_file_wins_over_the_clusters() -> None:
    times = dict.fromkeys(("Submit", "Start", "End"), "2026-11-22T04:56:43")
    payload = log(NAME_LAST, line(NAME_LAST, 1, ElapsedRaw="0", **times))
    shanghai = Cluster(name="hpc1", timezone="Asia/Shanghai")
    own = read_sacct(payload, cluster=shanghai).events["start_second"].item()
    assert read_sacct(payload, cluster=shanghai, timezone=ZoneInfo("UTC")).events["start_second"].item() == own + 28_800


@pytest.mark.parametrize("layout", [NAME_LAST, NAME_FIRST, NAME_LAST.removesuffix(" JobName")])
@pytest.mark.parametrize("delimiter", ["|", "~d3l1m1t3r~"])
def test_a_large_file_says_the_same_read_piece_by_piece(
    layout: str, delimiter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["train", "two\nlines", "a|b\n\nc|d|e\nf", "\u4e2d\u6587", "x" * 300 + "\n" * 5]
    rows = [line(layout, job, names[job % len(names)], State="NEW" if job % 7 == 0 else "FAILED") for job in range(400)]
    payload = log(layout, *rows, line(layout, 999)[:40]).replace(b"|", delimiter.encode())
    whole = read_sacct(payload, cluster=HPC1, delimiter=delimiter)
    monkeypatch.setattr(slurm_rows, "PIECE_BYTES", 3000)
    found = read_sacct(payload, cluster=HPC1, delimiter=delimiter)
    assert found.events.equals(whole.events)  # the lines that they name, too
    assert (found.rejected, found.no_usage, found.reading) == (whole.rejected, whole.no_usage, whole.reading)
    assert found.notes == whole.notes


def test_a_row_of_any_pull_has_the_same_bytes_in_quarantine() -> None:
    payload = log(NAME_LAST, line(NAME_LAST, 1, "a|b", State="NEW"))
    (first, second) = (
        read(payload.replace(b"|", mark.encode()), delimiter=mark).rejected[0].raw
        for mark in ("~11111111~", "~22222222~")
    )
    assert first == second
    assert first.count(b"\x1f") >= NAME_LAST.count(" ")
