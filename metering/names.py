"""The lake's dictionaries: what is said in text of many events is one number in each of them.

`who` numbers the combinations of cluster, partition, QOS, account and user, `cards` the allocations of cards. Numbers
are given out from 0 in the order of first use and never change, so equal numbers mean equal text, and the reverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

WHO = ("cluster", "partition", "qos", "account", "user")
CARDS = ("cards",)
DICTIONARIES = {"who": WHO, "cards": CARDS}
NUMBER_SCHEMA = pl.Schema({f"{name}_number": pl.Int32() for name in DICTIONARIES})

# Both stand in one table, where the columns of the other are "".
NAMES_SCHEMA = pl.Schema({"dictionary": pl.String, "number": pl.Int32, **dict.fromkeys((*WHO, *CARDS), pl.String)})


def dictionary(names: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return one dictionary's texts; the row with the number n is the n-th."""
    own = names.filter(pl.col("dictionary") == name).sort("number")
    if own.height and own["number"][-1] != own.height - 1:
        raise ValueError(f"the lake's dictionary {name!r} has gaps: {own.height} rows up to {own['number'][-1]}")
    return own.select(DICTIONARIES[name])


def unknown_names(events: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    """Return rows for the combinations that the dictionaries do not hold yet, numbered on, in order of their text."""
    added = [NAMES_SCHEMA.to_frame()]
    for name, columns in DICTIONARIES.items():
        known = dictionary(names, name)
        fresh = events.select(columns).unique().join(known, on=columns, how="anti").sort(columns)
        rows = fresh.with_row_index("number", offset=known.height).with_columns(
            pl.lit(name).alias("dictionary"), pl.col("number").cast(pl.Int32)
        )
        blank = [pl.lit("").alias(column) for column in NAMES_SCHEMA if column not in rows.columns]
        added.append(rows.with_columns(blank).select(list(NAMES_SCHEMA)))
    return pl.concat(added)


def with_numbers(events: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    """Add the number of each dictionary to events whose combinations they all hold."""
    for name, columns in DICTIONARIES.items():
        known = dictionary(names, name).with_row_index(f"{name}_number")
        events = events.join(known, on=columns, how="left", maintain_order="left")
        if events[f"{name}_number"].null_count():
            raise LookupError(f"the lake's dictionary {name!r} lacks names of events that are to be written")
    return events.with_columns(pl.col(list(NUMBER_SCHEMA)).cast(pl.Int32))


@dataclass(frozen=True)
class Names:
    """The dictionaries as of one moment; a number is the place of its row."""

    rows: pl.DataFrame
    who: pl.DataFrame
    cards: pl.Series

    @classmethod
    def of(cls, rows: pl.DataFrame) -> Names:
        """Take the table's rows apart."""
        return cls(rows, dictionary(rows, "who"), dictionary(rows, "cards")["cards"])
