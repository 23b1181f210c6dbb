"""Which row of an event counts: identity by `(source, id)`, the latest revision, and a rule where rows disagree.

Above what sources say stand the operator's words, and above these the strike of a start that is not the event's. The
outcome is a function of the set of recorded rows: neither the order nor the batches they arrived in change which usage
facts win.
"""

from __future__ import annotations

import hashlib

import polars as pl

from metering.events import USAGE_FACTS
from metering.runaways import stated_end

KEY = ("source", "id")

# What a source states, or what is derived from its log, has a lower revision. The operator's n-th word about an event
# has AMENDED + n: the highest counts, whatever the source says later.
AMENDED = 2**50
# State of a word that takes every earlier word back: the source's latest revision counts again.
REVERTED = "REVERTED"
# Revision and state of the row that strikes an event from the partition of a start that is not its own.
STRUCK = 2**60
STRUCK_STATE = "STRUCK"

KEPT, DUPLICATE, SUPERSEDED, CONFLICT, CONFLICTING_FINAL, TAKEN_BACK, STRICKEN = range(7)
# What became of a row; the positions are the codes above.
STATUSES = ("kept", "duplicate", "superseded", "conflict", "conflicting_final", "reverted", "struck")

SECONDS_OF_DATE = 86_400

_WORD_BYTES = 8
# Odd constants of splitmix64 and of the golden ratio: each word is multiplied and folded, as usual in such hashes.
_MIX = 0xBF58476D1CE4E5B9
_STEP = 0x9E3779B97F4A7C15


def key_hash(events: pl.DataFrame, bits: int = 64) -> pl.Series:
    """Return a hash of each row's `(source, id)`, the same in every version and on every machine.

    It is stored in the lake, so polars' own hash, which may change with its version, will not do. It only finds
    candidates: fewer bits make more of them collide, and never change which events are kept.
    """
    text = events["id"]
    longest = text.str.len_bytes().max()
    words = 0 if not isinstance(longest, int) else -(-longest // _WORD_BYTES)
    padded = text.str.pad_end(words * _WORD_BYTES, "\0").cast(pl.Binary)
    lengths = text.str.len_bytes()
    hashed = _source_hash(events["source"]) ^ lengths.cast(pl.UInt64)
    for word in range(words):
        value = padded.bin.slice(word * _WORD_BYTES, _WORD_BYTES).bin.reinterpret(dtype=pl.UInt64, endianness="little")
        folded = _fold((hashed ^ value) * pl.Series([_STEP], dtype=pl.UInt64))
        # The padding of a short id is not part of it: its hash must not depend on which longer ids stand beside it.
        hashed = folded.zip_with(lengths > word * _WORD_BYTES, hashed)
    hashed = _fold(hashed * pl.Series([_MIX], dtype=pl.UInt64))
    if bits < 64:  # noqa: PLR2004
        hashed = hashed % pl.Series([2**bits], dtype=pl.UInt64)
    return hashed.reinterpret(signed=True).alias("key_hash")


def canonical_facts() -> pl.Expr:
    """Write a row's usage facts as one text: equal facts give equal bytes, and different ones different bytes.

    They are what the source stated: where a running attempt was capped depends on the settings of that day, too.
    """
    texts = [(stated_end() if fact == "end_second" else pl.col(fact)).cast(pl.String) for fact in USAGE_FACTS]
    parts = [pl.concat_str(text.str.len_bytes().cast(pl.String), pl.lit(":"), text) for text in texts]
    return pl.concat_str(parts).alias("facts")


def mark(events: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with a column `status`: what became of each, judged by all the rows given.

    `kept` counts. `duplicate` repeats the facts of a row recorded earlier. `superseded` is of an earlier revision.
    Other facts at the winning revision are `conflicting_final` where the revision was derived from a log row, and
    `conflict` where the event states its own. `reverted` is an operator's word that was taken back, and the word that
    did so. `struck` is everything about an event in the partition of a start that is not its own.
    """
    names = pl.Series("status", STATUSES)
    return events.with_columns(names.gather(_codes(events)).alias("status"))


def winners(events: pl.DataFrame) -> pl.DataFrame:
    """Return the one row of each event that counts; none of an event that is struck, or only ever reverted."""
    return events.filter(_codes(events) == KEPT)


def _source_hash(source: pl.Series) -> pl.Series:
    # There are few sources, so a Python hash of each is cheap.
    known = source.unique().to_list()
    hashes = [int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") for name in known]
    if not known:
        return pl.Series("source", [], dtype=pl.UInt64)
    return source.replace_strict(known, pl.Series(hashes, dtype=pl.UInt64), return_dtype=pl.UInt64)


def _fold(hashed: pl.Series) -> pl.Series:
    return hashed ^ (hashed // pl.Series([2**29], dtype=pl.UInt64))


def _codes(events: pl.DataFrame) -> pl.Series:
    """Return the status code of each row; only rows whose hash occurs more than once are looked at closely."""
    codes = pl.zeros(events.height, dtype=pl.UInt8, eager=True)
    hashes = events["key_hash"]
    repeated = hashes.filter(~hashes.is_first_distinct() | (events["revision"] >= AMENDED)).unique()
    if repeated.is_empty():
        return codes
    contested = (
        events.select(*KEY, "revision", "revision_derived", "recorded_seq", "key_hash", "evidence", *USAGE_FACTS)
        .with_row_index("row")
        .filter(pl.col("key_hash").is_in(repeated.implode()))
    )
    judged = _judge(contested)
    return codes.scatter(judged["row"], judged["code"])


def _judge(contested: pl.DataFrame) -> pl.DataFrame:
    rows = _ranked(contested.sort("recorded_seq", maintain_order=True))
    # An event that states its revision once is taken to state it always; an operator always states it.
    stated = ~pl.col("revision_derived") | (pl.col("revision") >= AMENDED)
    final = rows.filter("first", "latest").with_columns(derived=(~stated).all().over(_EVENT))
    order = pl.when("derived").then(-stated_end()).otherwise(pl.col("recorded_seq"))
    best = (
        final.with_columns(order=order)
        .sort("order", "facts", descending=[False, True])
        .unique(_EVENT, keep="first", maintain_order=True)
    )
    code = (
        pl.when("struck")
        .then(STRICKEN)
        .when(~pl.col("first"))
        .then(DUPLICATE)
        .when("reverted")
        .then(TAKEN_BACK)
        .when(~pl.col("latest"))
        .then(SUPERSEDED)
        .when(pl.col("row").is_in(best["row"].implode()))
        .then(KEPT)
        .when(pl.col("row").is_in(final.filter("derived")["row"].implode()))
        .then(CONFLICTING_FINAL)
        .otherwise(CONFLICT)
    )
    return rows.select("row", code=code.cast(pl.UInt8))


# Until a wrong start is struck, its partition is judged by itself, as the rollup judges it.
_EVENT = (*KEY, "date")


def _ranked(rows: pl.DataFrame) -> pl.DataFrame:
    """Say of each row whether it is the first of its facts, struck, taken back, or of the latest revision left."""
    word = pl.col("revision").is_between(AMENDED, STRUCK, closed="left")
    taken_back_to = pl.col("revision").filter(word & (pl.col("state") == REVERTED)).max().over(_EVENT)
    left = ~pl.col("struck") & ~pl.col("reverted")
    latest = pl.col("revision").filter(left).max().over(_EVENT)
    return (
        rows.with_columns(canonical_facts(), date=pl.col("start_second") // SECONDS_OF_DATE)
        .with_columns(
            first=pl.struct(*KEY, "revision", "facts").is_first_distinct(),
            struck=(pl.col("revision") >= STRUCK).any().over(_EVENT),
            reverted=(word & (pl.col("revision") <= taken_back_to)).fill_null(value=False),
        )
        .with_columns(latest=(left & (pl.col("revision") == latest)).fill_null(value=False))
    )
