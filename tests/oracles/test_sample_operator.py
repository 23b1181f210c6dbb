"""The oracle against what the sample operator's generator says that it made: two independent counts of one workload."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from .price_oracle import PriceList, read_facts
from .usage_oracle import attempts, local_day, usage

OPERATOR = Path(__file__).resolve().parents[2] / "fixtures" / "operator"
TRUTH = json.loads((OPERATOR / "truth.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("cluster", ["ai1", "cpu2"])
def test_seconds_are_those_that_the_generator_made(cluster: str) -> None:
    zone, facts = ZoneInfo(TRUTH["timezone"]), PriceList(read_facts(OPERATOR / "facts"))
    runs = attempts(facts.clusters[cluster], sorted((OPERATOR / cluster).glob("*.gz")))
    total: dict[str, int] = defaultdict(int)
    by_day: dict[int, dict[str, int]] = defaultdict(lambda: {"cpu": 0, "card": 0})
    for use in usage(runs, [zone], []):
        day = local_day(use.day_start, zone)
        if f"{day:%Y-%m}" == TRUTH["month"]:
            kind = use.resource.split(":")[0]
            seconds = use.seconds // 1000 if kind == "card" else use.seconds
            total[use.resource] += seconds
            if kind in by_day[day.day]:
                by_day[day.day][kind] += seconds
    truth = TRUTH["clusters"][cluster]
    assert dict(total) == truth["seconds"]
    assert [{"day": day, **by_day[day]} for day in sorted(by_day)] == truth["days"]
