"""Rolling up on a Spark cluster what this machine would roll up date by date."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hourbook.rollups import Counted, DirtyDate
from metering.lake import EventLake
from metering.plan import RollupPlan
from metering.spark import count_on_spark, spark_cluster


@dataclass(frozen=True)
class OnSpark:
    """Counts dates on a cluster, each of them whole, the largest first."""

    master: str

    def __call__(
        self, lake: EventLake, plan: RollupPlan, dirty: Sequence[DirtyDate]
    ) -> Iterator[tuple[DirtyDate, Counted]]:
        """Count dates, and return each as soon as a worker has counted it."""
        rows = dict(lake.partitions().select("start_date", "rows").iter_rows())
        by_date = {one.date: one for one in sorted(dirty, key=lambda one: rows[one.date], reverse=True)}
        wanted = {date: one.recorded_seq for date, one in by_date.items()}
        with spark_cluster(self.master) as cluster:
            for date, counted in count_on_spark(cluster, lake.root, plan, wanted):
                yield by_date[date], Counted(counted)
