"""Which column of a CSV file means what: the mapping, written as TOML. What it does not name is not guessed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

LARGEST_SCALE = 2**40


class CsvMappingError(ValueError):
    """A mapping that cannot be used; the message says which key and why."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CsvField(_Model):
    """Where a value stands: in a column, or the same in all records; numbers may be scaled to the unit counted."""

    column: str | None = None
    value: str | None = None
    scale: Decimal = Field(default=Decimal(1), gt=0)  # MiB to bytes: 1048576
    rounding: Literal["exact", "up"] = "exact"

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.column is None) == (self.value is None):
            raise ValueError("name either a column or a value")
        scale = Fraction(self.scale)
        if scale.numerator > LARGEST_SCALE or scale.denominator > LARGEST_SCALE:
            raise ValueError(f"the scale {self.scale} is too large or too fine to count exactly")
        return self


def _field(given: object) -> object:
    """Take `cpus = "num_cores"` for the column of that name."""
    return {"column": given} if isinstance(given, str) else given


CsvColumn = Annotated[CsvField, BeforeValidator(_field)]


class CsvCards(_Model):
    """How a file tells cards: how many, which model, and what part of each."""

    count: CsvColumn
    model: CsvColumn | None = None
    thousandths: CsvColumn | None = None  # of each card, where pods or jobs share them


class CsvExclusion(_Model):
    """Records that are no usage: those with one of the values in a column."""

    column: str
    values: tuple[str, ...] = Field(min_length=1)
    reason: str = Field(pattern=r"^[a-z][a-z_]*$")


class CsvFields(_Model):
    """Which columns mean what; at least a start, and an end or a duration."""

    start: CsvColumn
    end: CsvColumn | None = None
    duration: CsvColumn | None = None
    as_of: CsvColumn | None = None  # of what still runs: until when it is known to
    suspended: CsvColumn | None = None
    partition: CsvColumn | None = None
    qos: CsvColumn | None = None
    account: CsvColumn | None = None
    user: CsvColumn | None = None
    job: CsvColumn | None = None
    state: CsvColumn | None = None
    cpus: CsvColumn | None = None
    nodes: CsvColumn | None = None
    memory_bytes: CsvColumn | None = None
    revision: CsvColumn | None = None  # stated by the source; else derived from how long the attempt lasted
    cards: tuple[CsvCards, ...] = ()
    counters: dict[str, CsvColumn] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if (self.end is None) == (self.duration is None):
            raise ValueError("name the column of either the end or the duration")
        return self


class CsvMapping(_Model):
    """What a CSV file means."""

    id: tuple[str, ...] = Field(min_length=1)  # columns that together name an attempt for ever
    # Equal records of a file without an id of its own: one attempt exported twice, or so many attempts.
    repeats: Literal["once", "counted"] = "once"
    time_format: str = "%Y-%m-%dT%H:%M:%S"  # or "epoch", "epoch_ms"
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    header: tuple[str, ...] | None = None  # names of the columns, where the file has no header line
    fields: CsvFields
    no_usage: tuple[CsvExclusion, ...] = ()
    evidence: tuple[str, ...] = ()  # columns kept for whoever follows a bill back

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Read a mapping, or say which key is wrong."""
        try:
            return cls.model_validate(tomllib.loads(text, parse_float=Decimal))
        except tomllib.TOMLDecodeError as error:
            raise CsvMappingError(f"the mapping is no TOML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the mapping"
            raise CsvMappingError(f"{where}: {first['msg']}") from error

    def named_columns(self) -> Iterator[str]:
        """Yield the columns that the mapping speaks of."""
        yield from self.id
        yield from self.evidence
        yield from (exclusion.column for exclusion in self.no_usage)
        for field in _all_fields(self.fields):
            if field.column is not None:
                yield field.column


def _all_fields(fields: CsvFields) -> Iterator[CsvField]:
    for name in CsvFields.model_fields:
        value = getattr(fields, name)
        if isinstance(value, CsvField):
            yield value
    yield from fields.counters.values()
    for cards in fields.cards:
        yield from (field for field in (cards.count, cards.model, cards.thousandths) if field is not None)
