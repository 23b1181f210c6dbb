"""What the collectors of accounting logs share: lines of a file, verdicts on rows, and what came of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from base.frames import check_frame
from metering.clusters import Cluster
from metering.collectors.slurm_fields import ENDED_REVISION, LAST_SECOND
from metering.collectors.slurm_rows import BYTE_ORDER_MARK, GZIP_MAGIC
from metering.collectors.slurm_verdicts import month_of_usage
from metering.events import EVENT_SCHEMA, Collected, RejectedEvent

SHOWN_CHARACTERS = 80
_SPAN = ("line", "offset", "length")
Outcome = tuple[pl.Expr, str | pl.Expr]

# Facts that a log may not have; a collector that knows one gives it.
_OTHERWISE: Mapping[str, str | int | bool] = {
    **dict.fromkeys(("partition", "qos", "account", "user", "job", "cards", "counters"), ""),
    **dict.fromkeys(("suspended_seconds", "cpus", "nodes", "memory_bytes"), 0),
    "state": "UNKNOWN",
    "ended": True,
    "revision_derived": True,
    "evidence": "{}",
}


# Beyond these a number is a mistake of the log, and one such row would keep all others from being summed.
MOST_HELD = 2**24  # CPUs, or nodes, of one attempt
MOST_MEMORY = 2**53 - 1
LONGEST_SECONDS = 2**32


class LogFileError(ValueError):
    """A file that is refused as a whole; the message says why and what to do."""


@dataclass(frozen=True)
class Log:
    """A log cut into lines at newline bytes; names may hold whatever else readers take for line ends."""

    body: bytes
    lines: pl.DataFrame  # line (from 0), text, offset, length (bytes, without the newline); empty lines are left out

    def raw(self, line: int) -> bytes:
        """Return the bytes of one line."""
        offset, length = self._spans[line]
        return self.body[offset : offset + length]

    @cached_property
    def _spans(self) -> Mapping[int, tuple[int, int]]:
        return {line: (offset, length) for line, offset, length in self.lines.select(*_SPAN).iter_rows()}


@dataclass(frozen=True)
class Judgement:
    """Rows of a log, each with what becomes of it, ready to be made events, refusals and counts.

    `rows` has a column `line` (from 0), `verdict` (NULL: usage; `-reason`: no usage; else the code of the refusal) and
    the event's columns as far as the log knows them; `messages` says for each code what to tell, naming columns.
    """

    rows: pl.DataFrame
    messages: Mapping[str, str]
    source: str
    cluster: Cluster
    raw: Callable[[int], bytes]


def unpack(payload: bytes) -> bytes:
    """Return the bytes of a file, plain or gzip, without a byte order mark; an empty one is refused."""
    if payload.startswith(GZIP_MAGIC):
        try:
            payload = gzip.decompress(payload)
        except (OSError, EOFError, zlib.error) as error:
            raise LogFileError(f"the gzip file cannot be unpacked ({error}); transfer it again") from error
    payload = payload.removeprefix(BYTE_ORDER_MARK)
    if not payload.strip():
        raise LogFileError("the file is empty; check that it was transferred whole")
    return payload


def log_lines(payload: bytes) -> Log:
    """Cut a log, plain or gzip, into its lines."""
    body = unpack(payload)
    try:
        texts = pl.Series("text", [body.decode()]).str.split("\n").explode()
        lengths = texts.str.len_bytes().cast(pl.Int64)
    except UnicodeDecodeError:
        cut = body.split(b"\n")
        texts = pl.Series("text", [line.decode(errors="replace") for line in cut], dtype=pl.String)
        lengths = pl.Series("length", [len(line) for line in cut], dtype=pl.Int64)
    frame = pl.DataFrame({"text": texts, "length": lengths}).with_row_index("line")
    frame = frame.with_columns(
        pl.col("line").cast(pl.Int64),
        pl.col("text").str.strip_suffix("\r"),
        offset=(pl.col("length") + 1).cum_sum() - pl.col("length") - 1,
    )
    return Log(body, frame.filter(pl.col("text").str.strip_chars() != ""))


def first_of(outcomes: Sequence[Outcome]) -> pl.Expr:
    """Return the verdict on each row: the outcome of the first condition that holds, NULL where none does."""
    return pl.coalesce(
        pl.lit(None, pl.String),
        *(
            pl.when(condition).then(pl.lit(outcome) if isinstance(outcome, str) else outcome)
            for condition, outcome in outcomes
        ),
    )


def impossible_times() -> Sequence[Outcome]:
    """Return what no row may say of its times: an end before its start, or an instant beyond all dates."""
    start, end = pl.col("start_second"), pl.col("end_second")
    held = end - start
    wrong = (start < 0) | (held < 0) | (end > LAST_SECOND) | (pl.col("suspended_seconds") > held)
    return [(start.is_null() | end.is_null(), "bad_time"), (wrong, "inconsistent_time")]


_BEYOND = {
    "number_range": "job {job} held {cpus} CPUs, {nodes} nodes and {memory_bytes} bytes from second {start_second} to "
    "{end_second}: no attempt can; look it up in the scheduler",
}
TIME_MESSAGES = {
    "bad_time": "job {job} has a start or an end that cannot be read; export it again",
    "inconsistent_time": "job {job} ends (second {end_second}) before it starts (second {start_second}), or is known "
    "for no such time; look it up in the scheduler",
}


def collected(judgement: Judgement, notes: Sequence[str] = (), *, header_lines: int = 0) -> Collected:
    """Make events, refusals and counts of judged rows; every row is in exactly one of them."""
    verdict = pl.col("verdict")
    rows = _completed(judgement).with_columns(verdict=pl.coalesce(verdict, _beyond_counting()))
    events = rows.filter(verdict.is_null()).select(list(EVENT_SCHEMA)).cast(EVENT_SCHEMA)
    without = rows.filter(verdict.str.starts_with("-"))["verdict"].str.slice(1).value_counts().sort("verdict")
    no_usage = {str(reason): int(count) for reason, count in without.iter_rows()}
    if header_lines:
        no_usage["header"] = header_lines
    refused = tuple(_refused(rows.filter(~verdict.str.starts_with("-")), judgement))
    return Collected(check_frame(events, EVENT_SCHEMA, judgement.source), refused, no_usage, tuple(notes))


def _beyond_counting() -> pl.Expr:
    held = pl.max_horizontal("cpus", "nodes") > MOST_HELD
    long = pl.col("end_second") - pl.col("start_second") > LONGEST_SECONDS
    return pl.when(held | long | (pl.col("memory_bytes") > MOST_MEMORY)).then(pl.lit("number_range"))


def _completed(judgement: Judgement) -> pl.DataFrame:
    """Add what every event has: whose it is, its revision, and what the log does not know."""
    rows = judgement.rows.with_columns(
        pl.lit(judgement.source).alias("source"), pl.lit(judgement.cluster.name).alias("cluster")
    )
    rows = rows.with_columns(
        pl.lit(value).alias(name) for name, value in _OTHERWISE.items() if name not in rows.columns
    )
    rows = rows.with_columns(pl.col(name).fill_null(value) for name, value in _OTHERWISE.items())
    if "revision" not in rows.columns:
        # A later reading of the same attempt has lasted longer, and the one that has ended is the last.
        ended = pl.when("ended").then(ENDED_REVISION).otherwise(0)
        rows = rows.with_columns(revision=pl.col("end_second") - pl.col("start_second") + ended)
    return rows.with_columns(pl.col("state").str.to_uppercase().str.extract(r"^\s*(\S+)").fill_null("UNKNOWN"))


def _refused(rows: pl.DataFrame, judgement: Judgement) -> Iterator[RejectedEvent]:
    for row in rows.iter_rows(named=True):
        code = str(row["verdict"])
        template = {**_BEYOND, **judgement.messages}.get(code, "job {job}: {detail}")
        yield RejectedEvent(
            code=code,
            message=template.format_map({name: _shown(name, value) for name, value in row.items()}),
            raw=judgement.raw(row["line"]),
            line=row["line"] + 1,
            source=judgement.source,
            event_id=row["id"] or "",
            month=month_of_usage(row["start_second"], row["end_second"]),
        )


def _shown(name: str, value: object) -> object:
    """Return a value as a message shows it: text of the log is cut where it is long."""
    long = isinstance(value, str) and len(value) > SHOWN_CHARACTERS
    return f"{str(value)[:SHOWN_CHARACTERS]}…" if long and name != "detail" else value


def number(text: pl.Expr) -> pl.Expr:
    """Read whole numbers of up to 15 digits; anything else is NULL."""
    return pl.when(text.str.contains(r"^[0-9]{1,15}$")).then(text).cast(pl.Int64)


def broken_text(*names: str) -> pl.Expr:
    """Tell where a column that is metered holds bytes that are no UTF-8."""
    return pl.any_horizontal(pl.col(name).str.contains("\ufffd", literal=True) for name in names)


def evidence(line: pl.Expr, **said: pl.Expr) -> pl.Expr:
    """Return what a row says besides its usage, as a JSON object; `line` counts from 0."""
    return pl.struct((line + 1).alias("line"), *(part.alias(name) for name, part in said.items())).struct.json_encode()
