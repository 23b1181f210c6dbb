"""The fields of `lsb.acct` records, found behind lists of hosts whose length differs from record to record."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

_FIELD = r'"(?:[^"]|"")*"|[^ "]+'
_FIRST = {
    "type": 0,
    "event_time": 2,
    "job_id": 3,
    "processors": 6,  # that were asked for at first; what was given stands in the list of hosts
    "submit": 7,
    "start": 10,
    "user": 11,
    "queue": 12,
    "res_req": 13,
}
_ASKED_HOSTS = 22
# Counted from the token behind the list of execution hosts.
_BEHIND_HOSTS = {
    "status": 0,
    "job_name": 2,
    "project": 24,
    "index": 29,
    "exit_info": 38,
    "app": 43,
    "resized": 50,
}
# Pairs that the submission was extended by; then the usage on each host, six tokens where nothing extends it.
_EXTENSIONS = 53
_TOKENS_PER_HOST = 6
_BEHIND_USAGE = {"effective": 3, "source_cluster": 4, "source_job": 5, "out_folder": 12, "run_time": 13, "folder": 14}
_NUMBERS = (
    *("event_time", "job_id", "processors", "submit", "start", "status", "index", "exit_info", "resized"),
    *("run_time", "source_job"),
)
_TEXTS = ("type", "user", "queue", "res_req", "job_name", "project", "app", "effective")
_NEEDED = ("event_time", "job_id", "submit", "start", "status")


def lay_out(lines: pl.DataFrame) -> pl.DataFrame:
    """Lay records out in fields, with `hosts` between blanks, and whether each is `whole` and `complete`.

    A record is whole if its quotes close, and complete if it reaches behind its list of hosts. Fields that its version
    of LSF does not write are NULL.
    """
    rows = lines.select("line", "text", tokens=pl.col("text").str.extract_all(_FIELD))
    read = pl.col("tokens").list.join("").str.len_bytes()
    blanks = pl.col("text").str.replace_all(r'"(?:[^"]|"")*"', "").str.count_matches(" ", literal=True)
    rows = rows.with_columns(whole=read + blanks == pl.col("text").str.len_bytes()).drop("text")
    asked = _number(_token(pl.lit(_ASKED_HOSTS)))
    rows = rows.with_columns(_columns(_FIRST, pl.lit(0)), hosts_at=asked + _ASKED_HOSTS + 1)
    rows = rows.with_columns(host_count=_number(_token(pl.col("hosts_at"))))
    rows = rows.with_columns(
        hosts=pl.col("tokens").list.slice(pl.col("hosts_at") + 1, pl.col("host_count")).list.join(" "),
        behind=pl.col("hosts_at") + 1 + pl.col("host_count"),
    )
    rows = rows.with_columns(_columns(_BEHIND_HOSTS, pl.col("behind")))
    rows = _behind_usage(rows)
    rows = rows.with_columns(pl.col(*_TEXTS, "hosts").str.strip_chars('"').str.replace_all('""', '"', literal=True))
    rows = rows.with_columns(hosts=pl.col("hosts").str.replace_all('"', "", literal=True))
    return rows.with_columns(complete=pl.all_horizontal(pl.col(name).is_not_null() for name in _NEEDED)).drop("tokens")


def _behind_usage(rows: pl.DataFrame) -> pl.DataFrame:
    """Add what stands behind the usage by host, where a record has the form in which that is found for certain."""
    extensions = _number(_token(pl.col("behind") + _EXTENSIONS))
    rows = rows.with_columns(usage_at=pl.col("behind") + _EXTENSIONS + 1 + 2 * extensions)
    hosts = _number(_token(pl.col("usage_at")))
    rows = rows.with_columns(after=pl.col("usage_at") + 1 + hosts * _TOKENS_PER_HOST)
    rows = rows.with_columns(_columns(_BEHIND_USAGE, pl.col("after"), _TEXTS_BEHIND_USAGE))
    quoted = [pl.col(name).str.starts_with('"') for name in _TEXTS_BEHIND_USAGE]
    certain = pl.all_horizontal(*quoted, pl.col("run_time").is_not_null(), pl.col("source_job").is_not_null())
    found = [pl.when(certain).then(pl.col(name)).alias(name) for name in _BEHIND_USAGE]
    return rows.with_columns(found)


_TEXTS_BEHIND_USAGE = ("effective", "source_cluster", "out_folder", "folder")


def _columns(places: Mapping[str, int], origin: pl.Expr, texts: tuple[str, ...] = ()) -> list[pl.Expr]:
    columns = []
    for name, place in places.items():
        token = _token(origin + place)
        columns.append((_number(token) if name in _NUMBERS and name not in texts else token).alias(name))
    return columns


def _token(place: pl.Expr) -> pl.Expr:
    return pl.col("tokens").list.get(place, null_on_oob=True)


def _number(token: pl.Expr) -> pl.Expr:
    return pl.when(token.str.contains(r"^-?[0-9]{1,15}$")).then(token).cast(pl.Int64)
