"""Cut instants and pieces: where a span ends and the next begins, and what of an attempt falls into each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from base.period import day_start, each_day, local_day
from metering.plan import RollupPlan

HOUR_SECONDS = 3600


def cut_seconds(plan: RollupPlan, first_second: int, last_second: int) -> pl.Series:
    """Return the plan's cut instants, in seconds since 1970, such that both given seconds lie between two of them.

    A day lasts 23 or 25 hours where its zone changes its clock; a plan that names no zone cuts at days of UTC.
    """
    cuts: set[int] = set()
    first, last = (datetime.fromtimestamp(second, UTC) for second in (first_second, last_second))
    for name in plan.zones or ("UTC",):
        zone = ZoneInfo(name)
        days = each_day(local_day(first, zone), local_day(last, zone) + timedelta(days=1))
        cuts.update(int(day_start(day, zone).timestamp()) for day in days)
    if plan.hourly:
        cuts.update(range(min(cuts), max(cuts), HOUR_SECONDS))
    return pl.Series("cut", sorted(cuts), dtype=pl.Int64)


def span_of(second: pl.Series, cuts: pl.Series) -> pl.Series:
    """Return the number of the span that each second lies in; a second on a cut belongs to the span it begins."""
    return cuts.search_sorted(second, side="right").cast(pl.Int64) - 1


def pieces(attempts: pl.DataFrame, cuts: pl.Series) -> pl.DataFrame:
    """Cut attempts at the cut instants: one row per attempt and span, with `span`, `seconds`, `active_seconds`.

    `active_seconds` leave out the suspended ones. A log does not say when an attempt was suspended, so its suspended
    seconds are taken off all its pieces in proportion, in whole seconds. `closes` marks the piece in whose span the
    attempt ended; one that ended on a cut instant has a piece of no seconds there.
    """
    spans = _touched_spans(attempts, cuts)
    suspended = pl.min_horizontal("suspended_seconds", pl.col("end_second") - pl.col("start_second"))
    whole = spans.filter(pl.col("first") == pl.col("last")).with_columns(
        span=pl.col("first"), seconds=pl.col("end_second") - pl.col("start_second")
    )
    whole = whole.with_columns(active_seconds=pl.col("seconds") - suspended)
    cut = _cut(spans.filter(pl.col("first") < pl.col("last")), cuts)
    paused = pl.col("suspended_seconds") > 0
    running = cut.filter(~paused).with_columns(active_seconds=pl.col("seconds"))
    cut = cut.filter(paused).with_columns(active_seconds=pl.col("seconds") - spread(suspended))
    ends_on_cut = (pl.col("start_second") < pl.col("end_second")) & pl.col("end_second").is_in(cuts.implode())
    on_cut = spans.filter(ends_on_cut & pl.col("ended"))
    on_cut = on_cut.with_columns(
        span=pl.col("last") + 1, seconds=pl.lit(0, pl.Int64), active_seconds=pl.lit(0, pl.Int64)
    )
    parts = [part.drop("attempt", "first", "last", strict=False) for part in (whole, running, cut, on_cut)]
    rows = pl.concat(parts)
    return rows.with_columns(closes=pl.col("ended") & (pl.col("end_second") < cuts.gather(rows["span"] + 1)))


def cut_totals(attempts: pl.DataFrame, cuts: pl.Series) -> pl.DataFrame:
    """Spread the column `total` of attempts over their spans in proportion to time; the parts add up to it."""
    spans = _touched_spans(attempts, cuts)
    whole = spans.filter(pl.col("first") == pl.col("last")).with_columns(span=pl.col("first"))
    cut = _cut(spans.filter(pl.col("first") < pl.col("last")), cuts).with_columns(total=spread(pl.col("total")))
    return pl.concat([part.drop("attempt", "first", "last", "seconds", strict=False) for part in (whole, cut)])


def spread(total: pl.Expr) -> pl.Expr:
    """Split an attempt's total over its pieces in proportion to their seconds, by largest remainder, earliest first."""
    # Int128: a counter of 2^60 times the seconds of a year passes Int64, which would wrap without an error.
    product = total.cast(pl.Int128) * pl.col("seconds")
    length = (pl.col("end_second") - pl.col("start_second")).cast(pl.Int128)
    share = product // length
    left = total - share.sum().over("attempt")
    rank = (product % length).rank("ordinal", descending=True).over("attempt")
    return (share + (rank <= left)).cast(pl.Int64)


def _touched_spans(attempts: pl.DataFrame, cuts: pl.Series) -> pl.DataFrame:
    """Add the `first` and `last` span that each attempt has time in; one of no seconds lies in one span."""
    first = span_of(attempts["start_second"], cuts)
    last = cuts.search_sorted(attempts["end_second"], side="left").cast(pl.Int64) - 1
    return attempts.with_columns(first=first, last=pl.max_horizontal(first, last))


def _cut(spans: pl.DataFrame, cuts: pl.Series) -> pl.DataFrame:
    """Give each attempt one row per span it touches, earliest first."""
    rows = (
        spans.with_row_index("attempt")
        .with_columns(span=pl.int_ranges("first", pl.col("last") + 1))
        .explode("span", empty_as_null=False)
    )
    begins, ends = cuts.gather(rows["span"]), cuts.gather(rows["span"] + 1)
    seconds = pl.min_horizontal("end_second", ends) - pl.max_horizontal("start_second", begins)
    return rows.with_columns(seconds=seconds)
