"""Any CSV file of usage, read by a mapping that says which of its columns means what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from zoneinfo import ZoneInfo

import polars as pl

from metering.clusters import Cluster
from metering.collectors.common import (
    MOST_MEMORY,
    TIME_MESSAGES,
    Judgement,
    LogFileError,
    Outcome,
    broken_text,
    collected,
    first_of,
    impossible_times,
    unpack,
)
from metering.collectors.csv_mapping import CsvField, CsvFields, CsvMapping
from metering.collectors.csv_table import Table, header_text, read_table
from metering.collectors.csv_values import amount, text_of, with_cards, with_times
from metering.collectors.held import HELD_MESSAGES
from metering.events import Collected

_TEXTS = ("partition", "qos", "account", "user", "job", "state")
_MESSAGES = {
    **TIME_MESSAGES,
    **HELD_MESSAGES,
    "broken_row": "the record has {found} fields and the header another number; are there delimiters without quotes?",
    "invalid_bytes": "the record of {job!r} has bytes that are no UTF-8; export it again as UTF-8",
    "id_missing": "the record has nothing in a column that makes its identity ({id_text!r}); export it again",
    "missing_end": "the record of {job!r} has no end; map as_of for what still runs, or export it when it is over",
    "bad_number": "the record of {job!r} has {wrong}, which is no number that can be counted exactly",
    "ambiguous_time": "the clock showed a time of {job!r} twice or never; export times with their offset",
}


def read_csv(
    payload: bytes, *, cluster: Cluster, timezone: ZoneInfo | None = None, options: CsvMapping | None = None
) -> Collected:
    """Read a CSV file by its mapping; naive times are read in `timezone`, else in the cluster's, else refused."""
    if options is None:
        raise LogFileError("a CSV file says nothing of what its columns mean; give a mapping")
    table = read_table(unpack(payload), delimiter=options.delimiter, columns=options.header)
    if missing := sorted(set(options.named_columns()) - set(table.columns)):
        raise LogFileError(f"the file has no column {', '.join(missing)}; it has {', '.join(table.columns)}")
    zone = timezone or cluster.zone
    rows = _rows(table, options, cluster, zone)
    judgement = Judgement(rows, _MESSAGES, f"csv:{cluster.name}", cluster, table.raw)
    # A refused record that is read again alone must still know what its columns are.
    reading = {} if options.header else {"head": header_text(table.columns, options.delimiter)}
    return replace(collected(judgement, _notes(rows, options)), reading=reading)


def _rows(table: Table, mapping: CsvMapping, cluster: Cluster, zone: ZoneInfo | None) -> pl.DataFrame:
    fields = mapping.fields
    rows = table.rows.with_columns(
        id_missing=pl.any_horizontal(pl.col(f"c:{name}").str.strip_chars() == "" for name in mapping.id),
        id_text=pl.concat_str((pl.col(f"c:{name}") for name in mapping.id), separator=":"),
        id=pl.concat_str((_escaped(pl.col(f"c:{name}")) for name in mapping.id), separator=":"),
        evidence=_evidence(mapping),
        found=pl.lit(None, pl.Int64),
        **{name: _text(getattr(fields, name)) for name in _TEXTS},
    )
    rows = with_cards(with_times(rows, fields, mapping.time_format, zone), fields.cards, cluster)
    rows = rows.with_columns(
        *(amount(getattr(fields, name)).alias(name) for name in ("cpus", "nodes", "memory_bytes")),
        suspended_seconds=amount(fields.suspended),
        revision_derived=pl.lit(fields.revision is None),
    )
    rows = _with_revision(_with_repeats(rows, mapping), fields)
    job = pl.when(pl.col("job") == "").then("id_text").otherwise("job")
    rows = rows.with_columns(job=job, counters=_counters(fields))
    rows = rows.with_columns(wrong=_wrong_numbers(fields)).with_columns(verdict=first_of(_outcomes(mapping, cluster)))
    ragged = [
        {"line": line, "found": found, "verdict": "broken_row", "evidence": "{}"}
        for line, found in table.ragged.items()
    ]
    schema = {name: rows.schema[name] for name in ("line", "found", "verdict", "evidence")}
    return pl.concat([rows, pl.DataFrame(ragged, schema=schema)], how="diagonal").sort("line")


def _text(field: CsvField | None) -> pl.Expr:
    return pl.lit("") if field is None else text_of(field)


def _evidence(mapping: CsvMapping) -> pl.Expr:
    said = [pl.col(f"c:{name}").alias(name) for name in dict.fromkeys(mapping.evidence)]
    return pl.struct((pl.col("line") + 1).alias("line"), *said).struct.json_encode()


def _escaped(text: pl.Expr) -> pl.Expr:
    """Write the colons of a part of an identity otherwise, so that no two identities become one."""
    return text.str.replace_all("%", "%25", literal=True).str.replace_all(":", "%3A", literal=True)


def _with_repeats(rows: pl.DataFrame, mapping: CsvMapping) -> pl.DataFrame:
    """Number equal records where each stands for an attempt; the first keeps the identity that it has alone."""
    if mapping.repeats == "once":
        return rows
    nth = pl.int_range(pl.len()).over("id")
    return rows.with_columns(id=pl.when(nth > 0).then(pl.format("{}:#{}", "id", nth + 1)).otherwise("id"))


def _with_revision(rows: pl.DataFrame, fields: CsvFields) -> pl.DataFrame:
    return rows if fields.revision is None else rows.with_columns(revision=amount(fields.revision))


def _counters(fields: CsvFields) -> pl.Expr:
    named = [
        pl.when(amount(field) > 0).then(pl.format(name + ":{}", amount(field)))
        for name, field in sorted(fields.counters.items())
    ]
    return pl.concat_str(named, separator=";", ignore_nulls=True) if named else pl.lit("")


def _wrong_numbers(fields: CsvFields) -> pl.Expr:
    """Name the first number that is there and cannot be read; an empty one is none."""
    named: Mapping[str, CsvField | None] = {
        **{name: getattr(fields, name) for name in ("cpus", "nodes", "memory_bytes", "revision", "suspended")},
        **fields.counters,
    }
    wrong = [
        pl.when(amount(field).is_between(0, MOST_MEMORY).fill_null(value=False).not_()).then(
            pl.format(name + "={}", _text(field))
        )
        for name, field in named.items()
        if field is not None
    ]
    return pl.coalesce(pl.lit(None, pl.String), *wrong)


def _outcomes(mapping: CsvMapping, cluster: Cluster) -> Sequence[Outcome]:
    excluded: list[Outcome] = [
        (pl.col(f"c:{entry.column}").is_in(list(entry.values)), f"-{entry.reason}") for entry in mapping.no_usage
    ]
    forced = pl.col("partition").is_in(list(cluster.card_partitions))
    return [
        *excluded,
        (broken_text("id_text", "account", "user", "partition"), "invalid_bytes"),
        (pl.col("id_missing"), "id_missing"),
        (pl.col("time_problem").is_not_null(), pl.col("time_problem")),
        (pl.col("start_second").is_not_null() & pl.col("end_second").is_null(), "missing_end"),
        *impossible_times(),
        (pl.col("wrong").is_not_null(), "bad_number"),
        (pl.col("held_code").is_not_null(), pl.col("held_code")),
        (forced & (pl.col("cards") == ""), "cards_missing"),
    ]


def _notes(rows: pl.DataFrame, mapping: CsvMapping) -> list[str]:
    kept = rows.filter(pl.col("verdict").is_null())
    if mapping.repeats == "counted":
        again = kept["id"].str.contains(r":#[0-9]+$").sum()
        return [f"{again} record(s) repeat another and are counted as attempts of their own"] if again else []
    again = kept.height - kept["id"].n_unique()
    return [f"{again} record(s) repeat the identity of another and count once"] if again else []
