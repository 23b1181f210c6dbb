"""Facts about events, told in any order, batches and number: what is rolled up follows the rule and nothing else."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hourbook import sealing, settling
from hourbook.database import read_session
from hourbook.rollups import Window, read_rollup
from metering import sealing as judging
from metering.identity import AMENDED, REVERTED, key_hash
from tests.homes import NewHome

from .lake_stories import DAY_22, MIDNIGHT, NOW, ONE_DAY, SHANGHAI, Site

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("new_home", ["sqlite"], indirect=True)]
thorough = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))

Facts = dict[str, object]
IDS = ("a", "b", "c")
MINUTE, DAY, YEAR = 60, 86_400, 365 * 86_400


@contextmanager
def a_site(new_home: NewHome, *, bits: int = 64, recent_dates: int = 4) -> Iterator[Site]:
    """A home whose key hashes have so few bits, and whose sealer looks at so many dates besides a batch's own."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "key_hash", partial(key_hash, bits=bits))
        patch.setattr(settling, "key_hash", partial(key_hash, bits=bits))
        patch.setattr(sealing, "RECENT_DATES", recent_dates)
        yield Site(new_home(Path(folder) / "home", NOW))


def told(site: Site, batches: Sequence[Sequence[Facts]], choose: Random) -> None:
    """Accept the batches one by one; sometimes seal, roll up and check starts between them."""
    for batch in batches:
        site.accept(*batch)
        if choose.random() < 0.4:
            site.seal()
        if choose.random() < 0.2:
            site.check_starts()
            site.roll_up()
    site.check_starts()
    site.roll_up()


def cut(rows: Sequence[Facts], choose: Random) -> list[list[Facts]]:
    """The rows in batches of one to three."""
    batches, rest = [], list(rows)
    while rest:
        size = choose.randint(1, 3)
        batches.append(rest[:size])
        rest = rest[size:]
    return batches


STARTS = st.sampled_from([MIDNIGHT, MIDNIGHT + MINUTE, MIDNIGHT + DAY, MIDNIGHT - YEAR, MIDNIGHT + YEAR])
ATTEMPT = st.tuples(st.sampled_from(IDS), STARTS, st.integers(1, 3))


@given(st.lists(ATTEMPT, min_size=1, max_size=10), st.randoms(use_true_random=False), st.integers(0, 64), st.booleans())
@thorough
def test_the_same_id_with_another_start_never_counts_twice(
    new_home: NewHome, attempts: list[tuple[str, int, int]], choose: Random, bits: int, near: bool
) -> None:
    rows: list[Facts] = [
        {"id": name, "start_second": start, "end_second": start + 10 * revision, "revision": revision}
        for name, start, revision in attempts
    ]
    first_start: dict[str, int] = {}
    longest: dict[str, int] = defaultdict(int)
    for name, start, revision in attempts:
        if first_start.setdefault(name, start) == start:
            longest[name] = max(longest[name], 10 * revision)
    with a_site(new_home, bits=bits, recent_dates=4 if near else 0) as site:
        told(site, cut(rows, choose), choose)
        assert site.all_cpu_seconds() == sum(longest.values())
        wrong = sum(start != first_start[name] for name, start, _ in attempts)
        assert site.account().quarantined == ({"start_changed": wrong} if wrong else {})
        site.home.close()


GROWN = st.tuples(st.sampled_from(IDS), st.integers(1, 5))


@given(st.lists(GROWN, min_size=1, max_size=10), st.randoms(use_true_random=False), st.integers(0, 64))
@thorough
def test_any_order_batching_and_repetition_of_the_same_facts_give_the_same_rollup(
    new_home: NewHome, facts: list[tuple[str, int]], choose: Random, bits: int
) -> None:
    rows: list[Facts] = [
        # Over midnight, so that one date gives rows for two days; the account may change from revision to revision.
        {
            "id": name,
            "start_second": MIDNIGHT - 20 * IDS.index(name),
            "end_second": MIDNIGHT + 10 * revision,
            "revision": revision,
            "account": f"grp_{revision % 2}",
            "cards": "a100:500" if name == "a" else "",
        }
        for name, revision in facts
    ]
    again = rows + [row for row in rows if choose.random() < 0.5]
    choose.shuffle(again)
    rollups = []
    for batches, hash_bits in (([rows], 64), (cut(again, choose), bits)):
        with a_site(new_home, bits=hash_bits) as site:
            told(site, batches, choose)
            rollups.append(rolled_up(site))
            assert site.account().statuses["kept"] == len({name for name, _ in facts})
            site.home.close()
    assert rollups[0].equals(rollups[1])


def rolled_up(site: Site) -> pl.DataFrame:
    with read_session(site.home.engine) as session:
        return read_rollup(session, site.lake, SHANGHAI, Window(DAY_22 - ONE_DAY, DAY_22 + ONE_DAY))


STEP = st.tuples(st.sampled_from(IDS[:2]), st.sampled_from(["source", "amend", "retract", "revert"]), st.integers(1, 4))


@given(st.lists(STEP, min_size=1, max_size=9), st.randoms(use_true_random=False))
@thorough
def test_words_in_any_interleaving_with_the_source_count_as_spoken(
    new_home: NewHome, steps: list[tuple[str, str, int]], choose: Random
) -> None:
    words: dict[str, int] = defaultdict(int)
    rows: list[Facts] = []
    for name, what, number in steps:
        if what == "source":
            rows.append({"id": name, "revision": number, "cpus": number})
            continue
        words[name] += 1
        amended: Facts = {"cpus": 10 + number}
        spoken = {"amend": amended, "retract": NOTHING, "revert": {**NOTHING, "state": REVERTED}}[what]
        word = {"id": name, "revision": AMENDED + words[name], "revision_derived": False, "evidence": '{"by":"ops"}'}
        rows.append({**word, **spoken})
    with a_site(new_home) as site:
        told(site, cut(rows, choose), choose)
        for seq in range(len(rows) + 1):
            assert site.all_cpu_seconds(as_of=seq) == 100 * cores_after(steps[:seq])
        assert site.quarantined() == []
        site.account()
        site.home.close()


NOTHING: Facts = {"cpus": 0, "nodes": 0, "end_second": MIDNIGHT, "state": "RETRACTED"}


def cores_after(steps: Sequence[tuple[str, str, int]]) -> int:
    """The rule in plain Python: the last word, unless it takes words back; else what the source says last."""
    cores = 0
    for name in IDS:
        own = [(what, number) for whose, what, number in steps if whose == name]
        said = [(what, number) for what, number in own if what != "source"]
        if said and said[-1][0] != "revert":
            cores += 10 + said[-1][1] if said[-1][0] == "amend" else 0
        else:
            cores += max((number for what, number in own if what == "source"), default=0)
    return cores
