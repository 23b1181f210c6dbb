"""The checksum of an hour: what a sender reckons with the standard library is what the lake reckons on columns."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.completeness import NO_EVENTS, Statement, arrived, check_hour
from metering.identity import AMENDED
from metering.statement_sums import checksum

HOUR = 1_793_491_200
Stated = tuple[str, str, int]
EVENTS = st.lists(
    st.tuples(st.text(max_size=20), st.text(max_size=30), st.integers(0, AMENDED - 1)),
    max_size=20,
    unique_by=lambda event: event[:2],
)


def rows(events: Sequence[Stated], end: int = HOUR + 1, *, ended: bool = True) -> pl.DataFrame:
    return pl.DataFrame(
        [(source, name, "hpc1", revision, ended, end) for source, name, revision in events],
        schema={
            "source": pl.String,
            "id": pl.String,
            "cluster": pl.String,
            "revision": pl.Int64,
            "ended": pl.Boolean,
            "end_second": pl.Int64,
        },
        orient="row",
    )


@given(EVENTS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_sender_and_lake_reckon_the_same_in_any_order(events: list[Stated], shuffle: random.Random) -> None:
    found = arrived(rows(events))
    shuffle.shuffle(events)
    for source in {source for source, _, _ in events}:
        own = [event for event in events if event[0] == source]
        here = found["hpc1", source, HOUR]
        assert (here.events, here.checksum) == (len(own), checksum(own))


def test_any_other_set_of_attempts_has_another_checksum() -> None:
    stated = [("s", f"job-{number}", number) for number in range(200)]
    others = [stated[:-1], [*stated, ("s", "job-200", 0)], [*stated[:-1], ("s", "job-199", 198)]]
    others.append([*stated[:-1], ("s", "job-1990", 199)])
    assert len({checksum(some) for some in (stated, *others)}) == len(others) + 1
    assert checksum([]) == NO_EVENTS


def test_running_attempts_repeats_and_the_operators_words_are_no_part_of_an_hour() -> None:
    told = [("s", "job-1", 7)]
    noise = [rows([("s", "job-2", 1)], ended=False), rows(told), rows([("s", "job-1", AMENDED + 1)])]
    here = arrived(pl.concat([rows(told), *noise]))["hpc1", "s", HOUR]
    assert (here.events, here.checksum) == (1, checksum(told))


def test_an_end_that_was_moved_to_another_hour_meets_both_statements() -> None:
    found = arrived(pl.concat([rows([("s", "job-1", 1)]), rows([("s", "job-1", 2)], HOUR + 3601)]))
    first, second = (("s", "job-1", 1),), (("s", "job-1", 2),)

    def state(hour: int, *events: Stated) -> str:
        return check_hour("hpc1", hour, {"s": (len(events), checksum(events))}, found, expected=()).state

    assert state(HOUR, *first) == "complete"  # as it was stated at first
    assert state(HOUR) == "quiet"  # as it was stated again
    assert state(HOUR + 3600, *second) == "complete"
    assert state(HOUR + 3600, *first) == "differs"


def test_the_end_of_an_hour_belongs_to_the_next() -> None:
    found = arrived(rows([("s", "job-1", 1)], HOUR + 3600))
    assert set(found) == {("hpc1", "s", HOUR + 3600)}


def test_the_few_lines_in_the_guide_reckon_the_same() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs/guides/operator.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "def checksum" in block)
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - our own page
    own = names["checksum"]
    assert callable(own)
    (statement,) = (Statement.model_validate_json(text) for text in re.findall(r'^{"cluster".*}$', guide, re.MULTILINE))
    ended = 2**40
    shown = [("slurm:hpc1", "4711:1795294603", 3600 + ended), ("slurm:hpc1", "4712:1795294700", 60 + ended)]
    assert (statement.events, statement.checksum) == (len(shown), own(shown))
    for events in ([], [("slurm:hpc1", "4711:1795294603", 3600 + 2**40)], [("s", "é" * 20, 0), ("t", "", 2**49)]):
        assert own(events) == checksum(events)
