"""Usage that cannot be charged as things stand: grouped, named for ever, and blocking the close until decided."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import polars as pl

from pricing.models import WriteOff
from pricing.sums import sum_by, wide

GROUP = ("code", "cluster", "partition", "account", "user", "resource", "sku", "month")
_PLACE = ("cluster", "partition", "account", "user")
_LONG_ID = 16

_ADVICE = {
    "unassigned": "belongs to no customer; map cluster, account and user to a project under [[mappings]]",
    "unknown_partition": "ran in a partition that the cluster does not list; add it to `partitions` of [[clusters]]",
    "no_contract": "stands under no contract of its customer in force on these days; add or extend one",
    "unmatched": "matches no SKU rule; add one under [[sku_rules]], or say included = true there",
    "unpriced": "has no price in force on these days; add one under [[prices]]",
}


@dataclass(frozen=True)
class UsageException:
    """A group of usage that cannot be charged, for one reason, in one month."""

    id: str  # "U-" and a hash of the group: the same in every run
    code: str  # unassigned unknown_partition no_contract unmatched unpriced
    cluster: str
    partition: str
    account: str
    user: str
    resource: str
    sku: str  # where the reason is its missing price
    month: str
    quantity: int  # as the rollup counts the resource
    jobs: int  # that ended there, whatever they used
    first_day: date
    last_day: date
    customers: tuple[str, ...]  # that it is mapped to

    @property
    def message(self) -> str:
        """What it is, which, and what to do."""
        who = (
            f"account {self.account or '(none)'}, user {self.user or '(none)'}, partition {self.partition or '(none)'}"
        )
        what = f"{self.resource} of {who} on {self.cluster} from {self.first_day} to {self.last_day}"
        return f"{what} {_ADVICE[self.code]}"


def exceptions_of(rows: pl.DataFrame, rollup: pl.DataFrame) -> list[UsageException]:
    """Group rows that carry a `code` into exceptions, in order; the rollup tells how many jobs ended there."""
    if rows.is_empty():
        return []
    named = rows.with_columns(
        pl.when(pl.col("code") == "unpriced").then("sku").otherwise(pl.lit("")).alias("sku"),
        pl.col("day").dt.strftime("%Y-%m").alias("month"),
    )
    groups = (
        named.group_by(GROUP)
        .agg(
            wide("quantity").sum(),
            pl.col("day").min().alias("first_day"),
            pl.col("day").max().alias("last_day"),
            pl.col("customer").drop_nulls().unique().sort().alias("customers"),
        )
        .join(_jobs(named, rollup), on=list(GROUP), how="left")
        .with_columns(pl.col("jobs").fill_null(0))
        .sort(GROUP)
    )
    return _distinct_ids([_exception(row) for row in groups.iter_rows(named=True)])


def _jobs(named: pl.DataFrame, rollup: pl.DataFrame) -> pl.DataFrame:
    ended = sum_by(rollup.filter(pl.col("jobs") > 0), [*_PLACE, "span_start"], "jobs")
    places = named.select(*GROUP, "span_start").unique()
    return sum_by(places.join(ended, on=[*_PLACE, "span_start"]), GROUP, "jobs")


def _exception(row: Mapping[str, object]) -> UsageException:
    customers = row["customers"]
    assert isinstance(customers, list)  # noqa: S101 - the aggregation above makes it one
    values = {**row, "customers": tuple(customers)}
    return UsageException(id=exception_id(row), **values)  # type: ignore[arg-type]


def exception_id(group: Mapping[str, object], digits: int = 8) -> str:
    """Name an exception by what it is, so that a decision about it holds in every later run."""
    text = json.dumps([group[column] for column in GROUP], ensure_ascii=False)
    return f"U-{hashlib.sha256(text.encode()).hexdigest()[:digits]}"


def _distinct_ids(exceptions: Sequence[UsageException]) -> list[UsageException]:
    """Give longer ids to groups whose short ids happen to be equal, so that no decision falls on another group."""
    uses = Counter(exception.id for exception in exceptions)
    return [
        e if uses[e.id] == 1 else replace(e, id=exception_id({c: getattr(e, c) for c in GROUP}, _LONG_ID))
        for e in exceptions
    ]


def is_written_off(exception: UsageException, write_offs: Mapping[str, WriteOff]) -> bool:
    """Whether somebody decided on this usage; more of it than was decided on needs a new decision."""
    decision = write_offs.get(exception.id)
    return decision is not None and (decision.quantity is None or exception.quantity <= decision.quantity)
