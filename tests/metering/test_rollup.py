"""The rollup: integer quantities per span, against a count made row by row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.money import largest_remainder
from metering.plan import Measure, RollupPlan
from metering.rollup import ROLLUP_SCHEMA, combine, roll_up

LakeRows = Callable[..., pl.DataFrame]
Facts = dict[str, object]

SHANGHAI = RollupPlan(zones=("Asia/Shanghai",))
MIDNIGHT = 1_795_276_800  # 2026-11-22T00:00:00+08:00
HOUR = 3600
DAY = 24 * HOUR


def at(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def quantities(rollup: pl.DataFrame, resource: str) -> list[tuple[int, int]]:
    """Start and quantity of each span of one resource."""
    rows = rollup.filter(pl.col("resource") == resource).sort("span_start")
    return [(int(start.timestamp()), quantity) for start, quantity in rows.select("span_start", "quantity").iter_rows()]


def jobs(rollup: pl.DataFrame) -> list[tuple[int, int]]:
    rows = rollup.filter(pl.col("jobs") > 0).sort("span_start")
    return [(int(start.timestamp()), count) for start, count in rows.select("span_start", "jobs").iter_rows()]


def test_a_job_over_midnight_is_cut_there_and_ends_once(lake_rows_of: LakeRows) -> None:
    rollup = roll_up(
        lake_rows_of({"start_second": MIDNIGHT - 100, "end_second": MIDNIGHT + 50, "cpus": 4, "nodes": 2}), SHANGHAI
    )
    assert rollup.schema == ROLLUP_SCHEMA
    assert quantities(rollup, "cpu") == [(MIDNIGHT - DAY, 400), (MIDNIGHT, 200)]
    assert quantities(rollup, "node") == [(MIDNIGHT - DAY, 200), (MIDNIGHT, 100)]
    assert quantities(rollup, "wall") == [(MIDNIGHT - DAY, 100), (MIDNIGHT, 50)]
    assert jobs(rollup) == [(MIDNIGHT, 1)]
    assert rollup["jobs"].sum() == 1


def test_a_job_that_ends_at_midnight_used_the_day_before_and_ended_on_the_next(lake_rows_of: LakeRows) -> None:
    rollup = roll_up(lake_rows_of({"start_second": MIDNIGHT - 100, "end_second": MIDNIGHT}), SHANGHAI)
    assert quantities(rollup, "wall") == [(MIDNIGHT - DAY, 100), (MIDNIGHT, 0)]
    assert jobs(rollup) == [(MIDNIGHT, 1)]


def test_a_zero_second_job_is_counted_and_costs_nothing(lake_rows_of: LakeRows) -> None:
    rollup = roll_up(lake_rows_of({"end_second": MIDNIGHT}), SHANGHAI)
    assert rollup.select("resource", "quantity", "jobs").rows() == [("wall", 0, 1)]


def test_a_running_job_counts_so_far_and_is_no_ended_job(lake_rows_of: LakeRows) -> None:
    rollup = roll_up(lake_rows_of({"ended": False}), SHANGHAI)
    assert quantities(rollup, "cpu") == [(MIDNIGHT, 2400)]
    assert jobs(rollup) == []


def test_a_retraction_takes_the_usage_and_the_job_away(lake_rows_of: LakeRows) -> None:
    nothing = {"revision": 2, "cpus": 0, "nodes": 0, "memory_bytes": 0, "cards": "", "counters": ""}
    assert roll_up(lake_rows_of({}, nothing), SHANGHAI).is_empty()


def test_cards_are_counted_in_thousandths_by_model(lake_rows_of: LakeRows) -> None:
    rollup = roll_up(
        lake_rows_of(
            {"id": "1", "cards": "a100:2000;v100:500"}, {"id": "2", "cards": "a100:1000"}, {"id": "3", "cards": "x:y:1"}
        ),
        SHANGHAI,
    )
    assert quantities(rollup, "card:a100") == [(MIDNIGHT, 3000 * 600)]
    assert quantities(rollup, "card:v100") == [(MIDNIGHT, 500 * 600)]
    assert quantities(rollup, "card:x:y") == [(MIDNIGHT, 600)]


def test_suspended_seconds_come_off_cpu_alone_in_whole_seconds_earliest_first(lake_rows_of: LakeRows) -> None:
    # 100 s and 50 s; 10 s suspended: 6 2/3 and 3 1/3, so 7 and 3.
    rows = lake_rows_of(
        {
            "start_second": MIDNIGHT - 100,
            "end_second": MIDNIGHT + 50,
            "suspended_seconds": 10,
            "cpus": 4,
            "cards": "a100:1000",
        }
    )
    rollup = roll_up(rows, SHANGHAI)
    assert quantities(rollup, "cpu") == [(MIDNIGHT - DAY, 4 * 93), (MIDNIGHT, 4 * 47)]
    assert quantities(rollup, "node") == [(MIDNIGHT - DAY, 100), (MIDNIGHT, 50)]
    assert quantities(rollup, "card:a100") == [(MIDNIGHT - DAY, 100_000), (MIDNIGHT, 50_000)]


def test_a_counter_is_spread_over_the_spans_and_adds_up(lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of(
        {"start_second": MIDNIGHT - 100, "end_second": MIDNIGHT + 50, "counters": f"bytes:{2**60 + 1};licences:10"}
    )
    rollup = roll_up(rows, SHANGHAI)
    assert sum(quantity for _, quantity in quantities(rollup, "counter:bytes")) == 2**60 + 1
    assert quantities(rollup, "counter:licences") == [(MIDNIGHT - DAY, 7), (MIDNIGHT, 3)]


def test_a_measure_counts_only_what_it_is_for(lake_rows_of: LakeRows) -> None:
    plan = RollupPlan(
        zones=("Asia/Shanghai",),
        measures=(
            Measure(name="core_without_cards", quantity="cpu", when="no_cards"),
            Measure(name="gpu_node", quantity="node", when="cards", clusters=("hpc1",), partitions=("gpu",)),
        ),
    )
    rows = lake_rows_of(
        {"id": "1", "cpus": 4},
        {"id": "2", "cpus": 8, "cards": "a100:1000", "partition": "gpu"},
        {"id": "3", "cpus": 8, "cards": "a100:1000", "partition": "other"},
        {"id": "4", "cpus": 8, "cards": "a100:1000", "partition": "gpu", "cluster": "ai1"},
    )
    rollup = roll_up(rows, plan)
    assert quantities(rollup, "measure:core_without_cards") == [(MIDNIGHT, 2400)]
    assert quantities(rollup, "measure:gpu_node") == [(MIDNIGHT, 600)]


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 29, 23), (10, 25, 25), (6, 1, 24)])
def test_a_day_lasts_as_long_as_its_zone_says(lake_rows_of: LakeRows, month: int, day: int, hours: int) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    begin = int(datetime(2026, month, day, tzinfo=berlin).timestamp())
    rows = lake_rows_of({"start_second": begin - DAY, "end_second": begin + 3 * DAY, "cpus": 1})
    spans = dict(quantities(roll_up(rows, RollupPlan(zones=("Europe/Berlin",))), "cpu"))
    assert spans[begin] == hours * HOUR


def test_a_plan_of_hours_cuts_at_every_hour(lake_rows_of: LakeRows) -> None:
    rows = lake_rows_of({"start_second": MIDNIGHT - 10, "end_second": MIDNIGHT + 2 * HOUR + 5, "cpus": 1})
    rollup = roll_up(rows, RollupPlan(zones=("Asia/Shanghai",), hourly=True))
    starts = [MIDNIGHT - HOUR, MIDNIGHT, MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR]
    assert quantities(rollup, "cpu") == list(zip(starts, [10, HOUR, HOUR, 5], strict=True))


def test_spans_are_whole_between_neighbouring_cuts(lake_rows_of: LakeRows) -> None:
    rollup = roll_up(lake_rows_of({}), RollupPlan(zones=("Asia/Shanghai", "UTC")))
    assert rollup["span_start"].unique().to_list() == [at(MIDNIGHT)]
    assert rollup["span_end"].unique().to_list() == [at(MIDNIGHT + 8 * HOUR)]


def test_what_could_overflow_is_refused_not_wrapped(lake_rows_of: LakeRows) -> None:
    with pytest.raises(OverflowError, match=r"event '4711:1795276800' of 'slurm:hpc1'.* 1152921504606846976 CPUs"):
        roll_up(lake_rows_of({"cpus": 2**60}), SHANGHAI)
    with pytest.raises(OverflowError, match="cpu"):
        roll_up(lake_rows_of({"id": "1", "cpus": 2**52}, {"id": "2", "cpus": 2**52}), SHANGHAI)


# The oracle: plain Python, one attempt after the other.
ATTEMPT = st.fixed_dictionaries(
    {
        "id": st.sampled_from([str(number) for number in range(6)]),
        "revision": st.integers(0, 2),
        "start_second": st.integers(MIDNIGHT - 3 * HOUR, MIDNIGHT + 30 * HOUR),
        "seconds": st.one_of(st.just(0), st.integers(0, 3 * DAY)),
        "ended": st.booleans(),
        "suspended_seconds": st.integers(0, 5000),
        "cpus": st.integers(0, 9),
        "nodes": st.integers(0, 2),
        "cards": st.sampled_from(["", "a100:2000", "a100:333;v100:1000"]),
        "counters": st.sampled_from(["", "bytes:1000003", "bytes:7;licences:1"]),
        "account": st.sampled_from(["a", "b"]),
        "partition": st.sampled_from(["cpu", "gpu"]),
    }
)
PLANS = st.sampled_from(
    [
        SHANGHAI,
        RollupPlan(zones=("Asia/Shanghai", "Europe/Berlin", "UTC")),
        RollupPlan(zones=("UTC",), hourly=True),
        RollupPlan(
            zones=("America/New_York",),
            measures=(Measure(name="bare", quantity="cpu", when="no_cards", partitions=("cpu",)),),
        ),
    ]
)


def attempts(facts: list[Facts]) -> list[Facts]:
    return [{**fact, "end_second": _int(fact, "start_second") + _int(fact, "seconds")} for fact in facts]


def _int(fact: Facts, name: str) -> int:
    value = fact[name]
    assert isinstance(value, int)
    return value


def borders(plan: RollupPlan) -> list[int]:
    cuts: set[int] = set()
    for zone in plan.zones:
        for offset in range(-5, 10):
            day = datetime(2026, 11, 22) + timedelta(days=offset)  # noqa: DTZ001
            cuts.add(int(day.replace(tzinfo=ZoneInfo(zone)).timestamp()))
    if plan.hourly:
        cuts.update(range(MIDNIGHT - 100 * HOUR, MIDNIGHT + 200 * HOUR, HOUR))
    return sorted(cuts)


def named(text: str) -> dict[str, int]:
    return {part.rpartition(":")[0]: int(part.rpartition(":")[2]) for part in text.split(";") if part}


def counted(fact: Facts, plan: RollupPlan, cuts: list[int]) -> dict[tuple[object, ...], int]:
    """Quantities and jobs of one attempt by (account, partition, span start, resource)."""
    start, end, cpus = _int(fact, "start_second"), _int(fact, "end_second"), _int(fact, "cpus")
    spans = [(b, min(e, end) - max(b, start)) for b, e in pairwise(cuts) if b < end and e > start]
    lengths = [length for _, length in spans]
    paused = largest_remainder(min(_int(fact, "suspended_seconds"), end - start), lengths)
    pairs = {kind: named(str(fact[kind])) for kind in ("cards", "counters")}
    spread = {name: largest_remainder(total, lengths) if lengths else [] for name, total in pairs["counters"].items()}
    out: dict[tuple[object, ...], int] = {}
    who = (fact["account"], fact["partition"])
    for i, (begin, length) in enumerate(spans):
        cell = {"cpu": cpus * (length - paused[i]), "node": _int(fact, "nodes") * length, "wall": length}
        cell |= {f"card:{model}": thousandths * length for model, thousandths in pairs["cards"].items()}
        cell |= {f"counter:{name}": parts[i] for name, parts in spread.items()}
        for measure in plan.measures:
            if not pairs["cards"] and fact["partition"] in measure.partitions:
                cell[f"measure:{measure.name}"] = cell["cpu"]
        out |= {(*who, begin, resource): quantity for resource, quantity in cell.items() if quantity}
    if not spans:
        begin = max(cut for cut in cuts if cut <= start)
        out |= {(*who, begin, f"counter:{name}"): total for name, total in pairs["counters"].items()}
    if fact["ended"]:
        out[(*who, max(cut for cut in cuts if cut <= end), "jobs")] = 1
    return out


def oracle(facts: list[Facts], plan: RollupPlan) -> dict[tuple[object, ...], int]:
    best: dict[object, Facts] = {}
    for fact in facts:
        # These state their revision: the first recorded stays. Until a wrong start is struck, dates are judged apart.
        key = (fact["id"], _int(fact, "start_second") // DAY)
        if key not in best or _int(fact, "revision") > _int(best[key], "revision"):
            best[key] = fact
    totals: dict[tuple[object, ...], int] = defaultdict(int)
    cuts = borders(plan)
    for fact in best.values():
        if fact["cpus"] or fact["nodes"] or fact["cards"] or fact["counters"]:
            for cell, quantity in counted(fact, plan, cuts).items():
                totals[cell] += quantity
    return dict(totals)


def as_cells(rollup: pl.DataFrame) -> dict[tuple[object, ...], int]:
    cells: dict[tuple[object, ...], int] = {}
    for row in rollup.iter_rows(named=True):
        cell = (row["account"], row["partition"], int(row["span_start"].timestamp()))
        assert row["quantity"] or row["jobs"]
        for name, value in ((row["resource"], row["quantity"]), ("jobs", row["jobs"])):
            if value:
                cells[(*cell, name)] = cells.get((*cell, name), 0) + value
    return cells


@given(st.lists(ATTEMPT, max_size=8), PLANS)
@settings(max_examples=120, deadline=None)
def test_the_rollup_equals_a_count_made_row_by_row(
    lake_rows_of: LakeRows, facts: list[Facts], plan: RollupPlan
) -> None:
    told = attempts(facts)
    rows = lake_rows_of(*({**fact, "revision_derived": False} for fact in told))
    assert as_cells(roll_up(rows, plan)) == oracle(told, plan)


@given(st.lists(ATTEMPT, max_size=6, unique_by=lambda fact: fact["id"]), PLANS, PLANS)
@settings(max_examples=60, deadline=None)
def test_however_it_is_cut_the_totals_are_the_same(
    lake_rows_of: LakeRows, facts: list[Facts], one: RollupPlan, other: RollupPlan
) -> None:
    rows = lake_rows_of(*attempts(facts))

    def totals(plan: RollupPlan) -> list[tuple[object, ...]]:
        linear = roll_up(rows, plan).filter(~pl.col("resource").str.starts_with("measure:"))
        summed = linear.group_by("account", "resource").agg(pl.col("quantity", "jobs").sum())
        return summed.sort("account", "resource").rows()

    assert totals(one) == totals(other)


@given(st.lists(ATTEMPT, max_size=8, unique_by=lambda fact: fact["id"]), st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_partitions_rolled_up_apart_are_the_whole(lake_rows_of: LakeRows, facts: list[Facts], cut: int) -> None:
    rows = lake_rows_of(*attempts(facts))
    parts = [roll_up(part, SHANGHAI) for part in (rows.head(cut), rows.slice(cut))]
    assert as_cells(combine(parts)) == as_cells(roll_up(rows, SHANGHAI))
