"""Our side of the match: what was metered on a supplier's cluster, in the contract's units and at its prices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from fractions import Fraction

import polars as pl

from base.frames import check_frame, guard_sum
from base.period import each_day
from metering.clusters import Cluster
from reconciliation.contract import SupplierContract

# What the match needs of the rollup; further columns are left alone.
METERED_SCHEMA = pl.Schema(
    {
        "cluster": pl.String(),
        "span_start": pl.Datetime("us", "UTC"),
        "span_end": pl.Datetime("us", "UTC"),
        "partition": pl.String(),
        "account": pl.String(),
        "user": pl.String(),
        "resource": pl.String(),
        "quantity": pl.Int64(),  # resource-seconds; cards in thousandths × seconds
    }
)


class UncutSpanError(ValueError):
    """A span of the rollup crosses midnight in the supplier's zone, so its days cannot be told apart."""


@dataclass(frozen=True, order=True)
class MatchKey:
    """What is compared: an item on a queue of a cluster, under one of our logins at the supplier."""

    cluster: str
    queue: str
    login: str
    item: str

    def __str__(self) -> str:
        return "/".join((self.cluster, self.queue or "-", self.login or "-", self.item))


@dataclass(frozen=True)
class MeteredPart:
    """What was metered under one key while one contract price was in force."""

    key: MatchKey
    unit: str
    unit_price: Fraction
    quantity: Fraction


@dataclass(frozen=True)
class UnpricedUsage:
    """Usage on a queue for which the contract states no price at all on those days."""

    contract: str
    cluster: str
    queue: str
    login: str
    resource: str
    first_day: date
    quantity: int  # as the rollup counts it


def metered_parts(
    metered: pl.DataFrame, contract: SupplierContract, cluster: Cluster, month: str
) -> tuple[tuple[MeteredPart, ...], tuple[UnpricedUsage, ...]]:
    """Return a month's usage under a contract, the month reckoned in the supplier's zone, and what has no price."""
    days = contract.days_in(month)
    if days is None:
        return (), ()
    totals: dict[tuple[MatchKey, str, Fraction], Fraction] = {}
    unpriced: list[UnpricedUsage] = []
    for partition, login, resource, day, quantity in _by_segment(metered, contract, cluster, days):
        entry = contract.entry_for(partition, resource, day)
        if entry is None:
            if not contract.prices_queue(partition, day):
                unpriced.append(UnpricedUsage(contract.number, cluster.name, partition, login, resource, day, quantity))
            continue
        key = MatchKey(cluster.name, partition, login, entry.item)
        part = (key, entry.unit, Fraction(entry.unit_price))
        units = entry.quantity(quantity, cluster.cpus_per_core_on(day))
        totals[part] = totals.get(part, Fraction(0)) + units
    return tuple(MeteredPart(*part, quantity) for part, quantity in sorted(totals.items())), tuple(unpriced)


def _by_segment(
    metered: pl.DataFrame, contract: SupplierContract, cluster: Cluster, days: tuple[date, date]
) -> Iterator[tuple[str, str, str, date, int]]:
    """Sum the rollup over days with equal prices and cores; yield (partition, login, resource, day, quantity)."""
    # The day is of the supplier's zone: it decides which month, and which price, a second belongs to.
    local_day = pl.col("span_start").dt.convert_time_zone(contract.timezone).dt.date()
    last_day = (pl.col("span_end") - pl.duration(microseconds=1)).dt.convert_time_zone(contract.timezone).dt.date()
    rows = check_frame(metered.select(list(METERED_SCHEMA)), METERED_SCHEMA, "metered usage").filter(
        pl.col("cluster") == cluster.name,
        # Cores and cards always: on a queue that the contract does not know they have no price.
        pl.col("resource").is_in(sorted({"cpu", *(item.resource for item in contract.items)}))
        | pl.col("resource").str.starts_with("card:"),
        pl.col("quantity") != 0,
    )
    dated = rows.with_columns(day=local_day, last_day=last_day).filter(
        pl.col("last_day") >= days[0], pl.col("day") <= days[1]
    )
    _refuse_uncut(dated, contract)
    guard_sum(dated, "quantity")
    segments = pl.DataFrame(
        {"day": list(each_day(*days)), "segment": list(_segment_starts(contract, cluster, days))},
        schema={"day": pl.Date, "segment": pl.Date},
    )
    place = ("partition", contract.login, "resource", "segment")
    grouped = dated.join(segments, on="day").group_by(place).agg(pl.col("quantity").sum())
    yield from grouped.sort(place).iter_rows()


def _refuse_uncut(dated: pl.DataFrame, contract: SupplierContract) -> None:
    uncut = dated.filter(pl.col("day") != pl.col("last_day"))
    if not uncut.is_empty():
        raise UncutSpanError(
            f"{uncut.height} span(s) of cluster {contract.cluster} cross midnight in {contract.timezone}, the zone of "
            f"supplier contract {contract.number}; add the zone to the rollup plan and roll up again"
        )


def _segment_starts(contract: SupplierContract, cluster: Cluster, days: tuple[date, date]) -> Iterator[date]:
    """Yield for each day the first day from which prices and CPUs per core are the same."""
    changes = {item.effective_from for item in contract.items} | {e.effective_from for e in cluster.cpus_per_core}
    start = days[0]
    for day in each_day(*days):
        if day in changes:
            start = day
        yield start
