"""Facts about a cluster: what they default to, and which are refused."""

from __future__ import annotations

from datetime import date

import pytest
from pydantic import ValidationError

from metering.clusters import Cluster, CpusPerCore


def test_a_cluster_that_says_nothing_counts_a_core_per_cpu_and_knows_the_usual_cards() -> None:
    cluster = Cluster(name="hpc1")
    assert cluster.cpus_per_core_on(date(2026, 11, 1)) == 1
    assert {card.gres for card in cluster.cards} == {"gpu", "dcu", "npu", "mlu", "gcu"}
    assert cluster.zone is None


def test_cpus_per_core_hold_from_their_day_on() -> None:
    cluster = Cluster(
        name="hpc1", cpus_per_core=(CpusPerCore(cpus=1), CpusPerCore(cpus=2, effective_from=date(2026, 11, 15)))
    )
    assert [cluster.cpus_per_core_on(date(2026, 11, day)) for day in (14, 15)] == [1, 2]


def test_a_zone_that_does_not_exist_is_refused_when_it_is_written_not_when_a_log_arrives() -> None:
    with pytest.raises(ValidationError, match="Asia/Shanghei' is no time zone"):
        Cluster(name="hpc1", timezone="Asia/Shanghei")
