"""Cells: what the rows of one date add up to, by who, cards held and span, in numbers only.

What rows add up to is linear in them: the sum over all rows, less the sum over those that do not count, is the sum over
those that do. So a row need not be taken out before it is known whether it counts, and what a late event changes is a
difference of two small sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from base.frames import OVERFLOW_GUARD
from metering.cuts import cut_seconds, cut_totals, pieces, span_of
from metering.names import Names
from metering.plan import RollupPlan

# What is read of every event; counters besides, where there are any.
NARROW = (
    "who_number",
    "cards_number",
    "start_second",
    "end_second",
    "ended",
    "suspended_seconds",
    "cpus",
    "nodes",
)
QUANTITIES = ("cpu", "node", "wall", "jobs")
# What is kept of a date: by span and numbers of the lake's dictionaries; counters on rows of their own.
COUNTED_SCHEMA = pl.Schema(
    {
        "span_start": pl.Int64,  # seconds since 1970 UTC
        "span_end": pl.Int64,
        "who_number": pl.Int32,
        "cards_number": pl.Int32,
        **dict.fromkeys(QUANTITIES, pl.Int64),
        "counter": pl.String,  # its name; "" on the other rows
        "total": pl.Int64,
    }
)
DAY_SECONDS = 86_400
# With more cut instants within a day than this, a search is faster than as many comparisons.
_FEW_CUTS = 6
# Sums of rows, of their pieces, and of rows that do not count stay below the guard together.
_SAFE = OVERFLOW_GUARD // 8


@dataclass(frozen=True)
class Cube:
    """Where one date's spans begin, and the dictionaries' sizes: what cells are numbered by."""

    date: str
    cuts: pl.Series
    who: int
    cards: int

    @classmethod
    def of(cls, date: str, plan: RollupPlan, names: Names, last_second: int) -> Cube:
        """Return the cube of a date whose events end by the given second."""
        midnight = int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp())
        cuts = cut_seconds(plan, midnight, max(last_second, midnight + DAY_SECONDS - 1))
        if names.who.height * len(names.cards) * len(cuts) >= OVERFLOW_GUARD:
            raise OverflowError(f"{date}: too many users, cards and spans to be numbered together")
        return cls(date, cuts, names.who.height, len(names.cards))

    def add_up(self, rows: pl.DataFrame, sign: int = 1) -> Cells:
        """Count rows, each as often as it stands there; with the sign -1, take them off."""
        longest = _longest(rows, self.date)
        number = pl.Int128 if _could_pass_64_bits(rows, longest) else pl.Int64
        # Every row is counted as if it lay in its first span; of those that reach the next, that is taken back.
        whole = rows.lazy().with_columns(
            span=self._first_span(rows["start_second"]), seconds=pl.col("end_second") - pl.col("start_second")
        )
        whole = whole.with_columns(
            active_seconds=pl.col("seconds") - pl.min_horizontal("suspended_seconds", "seconds"), closes="ended"
        )
        cut = rows.filter(self._reach_next_span(rows))
        parts = [self._sums(whole, number, sign)]
        if cut.height:
            in_first = whole.filter(self._reach_next_span(rows))
            parts += [self._sums(in_first, number, -sign), self._sums(pieces(cut, self.cuts).lazy(), number, sign)]
        return Cells(self, _summed(parts), self._counters(rows, sign))

    def _inner_cuts(self, start: pl.Series) -> tuple[int, pl.Series]:
        """Return the first span that any row starts in, and the cuts at which those of the later ones begin."""
        low, high = start.min(), start.max()
        seconds = pl.Series([low or 0, high or 0], dtype=pl.Int64)
        begin, end = span_of(seconds, self.cuts) if start.len() else (0, 0)
        return begin, self.cuts[begin + 1 : end + 1]

    def _first_span(self, start: pl.Series) -> pl.Series | pl.Expr:
        begin, inner = self._inner_cuts(start)
        if len(inner) > _FEW_CUTS:
            return span_of(start, self.cuts)
        return pl.sum_horizontal(pl.lit(begin, pl.Int64), *(pl.col("start_second") >= cut for cut in inner))

    def _reach_next_span(self, rows: pl.DataFrame) -> pl.Series:
        """Tell of each row whether it ends where a later span begins, or after that."""
        begin, inner = self._inner_cuts(rows["start_second"])
        if len(inner) > _FEW_CUTS:
            return rows["end_second"] >= self.cuts.gather(span_of(rows["start_second"], self.cuts) + 1)
        ends = self.cuts[begin + 1 : begin + 2 + len(inner)]
        across = [(pl.col("start_second") < cut) & (pl.col("end_second") >= cut) for cut in ends]
        return rows.select(pl.any_horizontal(across)).to_series()

    def _sums(self, spans: pl.LazyFrame, number: pl.DataType | type[pl.DataType], sign: int) -> pl.DataFrame:
        key = (pl.col("who_number").cast(pl.Int64) * self.cards + pl.col("cards_number")) * len(self.cuts)
        seconds, active = pl.col("seconds").cast(number), pl.col("active_seconds").cast(number)
        sums = (
            spans.with_columns(key=key + pl.col("span"))
            .group_by("key")
            .agg(
                cpu=(pl.col("cpus") * active).sum() * sign,
                node=(pl.col("nodes") * seconds).sum() * sign,
                wall=seconds.sum() * sign,
                jobs=pl.col("closes").sum().cast(pl.Int64) * sign,
            )
        )
        return sums.collect()

    def _counters(self, rows: pl.DataFrame, sign: int) -> pl.DataFrame:
        """Count named totals, spread over the spans in proportion to time."""
        schema = {"key": pl.Int64, "counter": pl.String, "total": pl.Int128}
        counted = rows.filter(pl.col("counters") != "") if "counters" in rows.columns else rows.clear()
        if counted.is_empty():
            return pl.DataFrame(schema=schema)
        spread = cut_totals(named(counted, "counters").with_columns(total=pl.col("number")), self.cuts)
        key = pl.col("who_number").cast(pl.Int64) * (self.cards * len(self.cuts)) + pl.col("span")
        total = pl.col("total").cast(pl.Int128).sum() * sign
        grouped = spread.group_by(key.alias("key"), pl.col("name").alias("counter")).agg(total)
        return grouped.select(list(schema))


@dataclass(frozen=True)
class Cells:
    """Sums by packed numbers: a key is (who × all cards + cards) × all cuts + span."""

    cube: Cube
    sums: pl.DataFrame  # key and QUANTITIES
    counters: pl.DataFrame  # key (of cards 0), counter, total

    def counted(self) -> pl.DataFrame:
        """Take the keys apart; what adds up to nothing is left out."""
        filled = self.sums.filter(pl.any_horizontal(pl.col(QUANTITIES) != 0))
        totals = self.counters.filter(pl.col("total") != 0)
        nothing = dict.fromkeys(QUANTITIES, pl.lit(0))
        rows = pl.concat(
            [filled.with_columns(counter=pl.lit(""), total=pl.lit(0)), totals.with_columns(**nothing)],
            how="diagonal_relaxed",
        ).sort("key", "counter")  # whoever counts, on however many cores, writes the same bytes
        _refuse_huge(rows, self.cube.date)
        cuts, key = self.cube.cuts, rows["key"].rename("span") % len(self.cube.cuts)
        named_cells = rows.with_columns(
            span_start=cuts.gather(key),
            span_end=cuts.gather(key + 1),
            who_number=pl.col("key") // (len(cuts) * self.cube.cards),
            cards_number=pl.col("key") // len(cuts) % self.cube.cards,
        )
        return named_cells.select([pl.col(name).cast(kind) for name, kind in COUNTED_SCHEMA.items()])


def together(cells: Sequence[Cells]) -> Cells:
    """Add up cells of one cube."""
    counters = pl.concat([part.counters for part in cells]).group_by("key", "counter").agg(pl.col("total").sum())
    return Cells(cells[0].cube, _summed([part.sums for part in cells]), counters)


@contextmanager
def naming_largest(rows: pl.LazyFrame) -> Iterator[None]:
    """Let a sum that is beyond what is counted name the event that is most likely wrong."""
    try:
        yield
    except OverflowError as error:
        held = pl.max_horizontal("cpus", "nodes").cast(pl.Float64) * (pl.col("end_second") - pl.col("start_second"))
        largest = rows.select("source", "id", "cpus", "nodes", "start_second", "end_second", held=held)
        row = largest.top_k(1, by="held").collect().row(0, named=True)
        raise OverflowError(
            f"{error}; event {row['id']!r} of {row['source']!r} is the largest: {row['cpus']} CPUs on {row['nodes']} "
            f"nodes for {row['end_second'] - row['start_second']} s; amend or retract it if that is wrong"
        ) from error


def _refuse_huge(rows: pl.DataFrame, date: str) -> None:
    """Refuse what later sums could not hold."""
    for column in (*QUANTITIES, "total"):
        low, high = rows.select(low=pl.col(column).min(), high=pl.col(column).max()).row(0)
        most = max(abs(low or 0), abs(high or 0))
        if most >= OVERFLOW_GUARD:
            raise OverflowError(f"{date}: {column} adds up to {most}, beyond what is counted")


def named(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Take `a100:2000;v100:1000` apart: one row per name with its `name` and `number`."""
    rows = frame.with_columns(pl.col(column).str.split(";")).explode(column, empty_as_null=False)
    # The last colon parts name and number: a model's name may hold one.
    number = pl.col(column).str.extract(r":([0-9]+)$").cast(pl.Int64)
    return rows.with_columns(name=pl.col(column).str.replace(r":[0-9]+$", ""), number=number)


def _longest(rows: pl.DataFrame, date: str) -> int:
    """Return the seconds of the longest row; refuse one that was never checked."""
    seconds = pl.col("end_second") - pl.col("start_second")
    shortest, longest = rows.select(low=seconds.min(), high=seconds.max()).row(0)
    if (shortest or 0) < 0:
        start, end = rows.filter(seconds < 0).select("start_second", "end_second").row(0)
        raise ValueError(f"an event of {date} starts at second {start} and ends at {end}; it was not checked")
    return longest or 0


def _could_pass_64_bits(rows: pl.DataFrame, longest: int) -> bool:
    largest = rows.select(pl.max_horizontal(pl.col("cpus").max(), pl.col("nodes").max())).item()
    return max(largest or 0, 1) * longest * rows.height >= _SAFE


def _summed(parts: list[pl.DataFrame]) -> pl.DataFrame:
    if len(parts) == 1:
        return parts[0]
    rows = pl.concat(parts, how="vertical_relaxed")
    return rows.group_by("key").agg(pl.col(QUANTITIES).sum())
