"""The values of mapped CSV columns as exact numbers: instants, durations, amounts and cards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import polars as pl

from metering.clusters import UNKNOWN_MODEL, Cluster
from metering.collectors.common import LogFileError
from metering.collectors.csv_mapping import CsvCards, CsvField, CsvFields
from metering.collectors.held import Reading, cards_text, with_held
from metering.collectors.slurm_fields import LAST_SECOND
from metering.collectors.tres import Allocation, GresRules, TresError
from metering.events import CARD_DENOMINATOR

_EPOCHS = {"epoch": 1, "epoch_ms": 1000}
_WHOLE = r"^([0-9]{1,18})$"
_DECIMAL = r"^([0-9]{1,13})\.([0-9]{1,12})0*$"
_DIGITS = 12
_CLOCK = r"^(?:([0-9]{1,6})(?:-| days?,? ))?([0-9]{1,6}):([0-9]{2}):([0-9]{2})(?:\.0+)?$"


def text_of(field: CsvField) -> pl.Expr:
    """Return a field's text: of its column without blanks around it, or the same in every record."""
    return pl.lit(field.value) if field.column is None else pl.col(f"c:{field.column}").str.strip_chars()


def amount(field: CsvField | None) -> pl.Expr:
    """Return a field in whole numbers of the unit that is counted: 0 where empty, NULL where it cannot be read."""
    if field is None:
        return pl.lit(0, pl.Int64)
    return pl.when(text_of(field) == "").then(0).otherwise(_scaled(field))


def with_times(rows: pl.DataFrame, fields: CsvFields, time_format: str, zone: ZoneInfo | None) -> pl.DataFrame:
    """Add start and end in seconds of UTC, whether the attempt ended, and what is wrong with its times."""
    if time_format not in _EPOCHS and "%z" not in time_format and zone is None:
        raise LogFileError(
            f"times of the form {time_format} name no zone: say which one with --timezone, or set the cluster's"
        )
    named = {"start": fields.start, "end": fields.end, "as_of": fields.as_of}
    known = {name: field for name, field in named.items() if field is not None}
    # Each time is read once, as that is what takes most of the work.
    rows = rows.with_columns(
        _clock(text_of(field), time_format).alias(f"clock {name}") for name, field in known.items()
    )
    rows = rows.with_columns(_instant(f"clock {name}", time_format, zone).alias(f"at {name}") for name in known)
    problems = [pl.when(text_of(field) != "").then(_time_problem(name)) for name, field in known.items()]
    nothing = pl.lit(None, pl.Int64)
    end = pl.col("at end") if "end" in known else nothing
    if fields.duration is not None:
        end = pl.col("at start") + _duration(fields.duration)
    return rows.with_columns(
        start_second=pl.col("at start"),
        end_second=pl.coalesce(end, pl.col("at as_of") if "as_of" in known else nothing),
        ended=end.is_not_null(),
        time_problem=pl.coalesce(pl.lit(None, pl.String), *problems),
    ).drop(*(f"clock {name}" for name in known), *(f"at {name}" for name in known))


def with_cards(rows: pl.DataFrame, cards: Sequence[CsvCards], cluster: Cluster) -> pl.DataFrame:
    """Add the cards of each record in thousandths by model; each different text is read once."""
    columns: dict[str, pl.Expr] = {}
    for at, entry in enumerate(cards):
        for part in ("count", "model", "thousandths"):
            field: CsvField | None = getattr(entry, part)
            columns[f"{part} {at}"] = pl.lit("") if field is None else text_of(field)
    texts = rows.with_columns(text.alias(name) for name, text in columns.items())
    return with_held(texts, tuple(columns), _card_reader(cards), cluster).drop(columns)


def _card_reader(cards: Sequence[CsvCards]) -> Reading:
    def read(texts: Sequence[str], rules: GresRules) -> Allocation:
        models: Counter[str] = Counter()
        for at, entry in enumerate(cards):
            count, model, part = texts[3 * at : 3 * at + 3]
            each = _number(part, "part of a card") if part and entry.thousandths else Fraction(CARD_DENOMINATOR)
            held = _number(count or "0", "number of cards") * Fraction(entry.count.scale) * each
            if held.denominator != 1:
                raise TresError("bad_cards", f"{count} cards, {each} thousandths each, are no whole thousandths")
            if held:
                name = rules.models.get(model.lower(), model.lower()) or _untyped(rules)
                models[name] += int(held)
        return Allocation(cards=cards_text(models))

    return read


def _untyped(rules: GresRules) -> str:
    return rules.cards["gpu"].model if "gpu" in rules.cards else UNKNOWN_MODEL


def _number(text: str, what: str) -> Fraction:
    if not text.isascii() or not text.replace(".", "", 1).isdecimal():
        raise TresError("bad_cards", f"{text!r} is no {what}")
    return Fraction(Decimal(text))


def _scaled(field: CsvField) -> pl.Expr:
    """Multiply exactly, in 128 bits. What leaves a fraction is NULL, or rounded up if so mapped."""
    scale = Fraction(field.scale)
    text = text_of(field)
    parts = text.str.extract_groups(_DECIMAL)
    # Whole numbers apart: they may be longer than those with a fraction, without leaving the 128 bits.
    whole = text.str.extract(_WHOLE).cast(pl.Int128)
    fraction = parts.struct.field("2").str.pad_end(_DIGITS, "0").cast(pl.Int128)
    fine = parts.struct.field("1").cast(pl.Int128) * 10**_DIGITS + fraction
    readings = ((whole, scale.denominator), (fine, scale.denominator * 10**_DIGITS))
    return pl.coalesce(_divided(read * scale.numerator, by, field.rounding) for read, by in readings)


def _divided(product: pl.Expr, divisor: int, rounding: str) -> pl.Expr:
    if rounding == "up":
        return ((product + (divisor - 1)) // divisor).cast(pl.Int64, strict=False)
    return pl.when(product % divisor == 0).then((product // divisor).cast(pl.Int64, strict=False))


def _duration(field: CsvField) -> pl.Expr:
    """Read a duration in seconds, or as `[D-]HH:MM:SS`."""
    parts = text_of(field).str.extract_groups(_CLOCK)
    days, hours, minutes, seconds = (parts.struct.field(str(i)).cast(pl.Int64) for i in range(1, 5))
    clock = days.fill_null(0) * 86_400 + hours * 3600 + minutes * 60 + seconds
    return pl.when(text_of(field) != "").then(pl.coalesce(_scaled(field), clock))


def _clock(text: pl.Expr, time_format: str) -> pl.Expr:
    """Read what the clock showed, or a number of seconds; NULL where that cannot be read."""
    if time_format in _EPOCHS:
        return text.str.extract(r"^([0-9]{1,15})(?:\.0+)?$").cast(pl.Int64) // _EPOCHS[time_format]
    shown = text.str.to_datetime(time_format, strict=False, time_unit="us")
    return pl.when(shown.dt.year().is_between(1970, 9999)).then(shown)


def _instant(clock: str, time_format: str, zone: ZoneInfo | None) -> pl.Expr:
    """Return the instant of what the clock showed; NULL where it showed that twice or never."""
    seconds = pl.col(clock)
    if time_format not in _EPOCHS:
        if "%z" not in time_format:
            name = zone.key if zone else "UTC"
            seconds = seconds.dt.replace_time_zone(name, ambiguous="null", non_existent="null")
        seconds = seconds.dt.epoch("s")
    return pl.when(seconds.is_between(0, LAST_SECOND)).then(seconds)


def _time_problem(name: str) -> pl.Expr:
    unread, unclear = pl.col(f"clock {name}").is_null(), pl.col(f"at {name}").is_null()
    return pl.when(unread).then(pl.lit("bad_time")).when(unclear).then(pl.lit("ambiguous_time"))
