"""What is known of a cluster: facts only, never policy."""

from __future__ import annotations

from datetime import date
from typing import Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator

DEFAULT_CARD_GRES = ("gpu", "dcu", "npu", "mlu", "gcu")
UNKNOWN_MODEL = "unknown"


class CardGres(BaseModel):
    """A generic resource (gres) that is accelerator cards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gres: str = Field(min_length=1)
    model: str = UNKNOWN_MODEL  # of cards that the log names without a type
    thousandths: int = Field(default=1000, gt=0)  # of a card per unit of the gres
    effective_from: date = date(1970, 1, 1)


class CpusPerCore(BaseModel):
    """How many CPUs (hardware threads) the scheduler counts per core, from a day on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    effective_from: date = date(1970, 1, 1)
    cpus: int = Field(gt=0)


class Reports(BaseModel):
    """Whether senders state, hour by hour, what they saw of a cluster, from a day (UTC) on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    effective_from: date = date(1970, 1, 1)
    every: Literal["hour", "never"] = "hour"
    sources: tuple[str, ...] = ()  # which must each do so; empty: any one


class RunawayGrace(BaseModel):
    """How long beyond its time limit a running attempt is believed, for attempts that start from a day (UTC) on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    effective_from: date = date(1970, 1, 1)
    seconds: int = Field(ge=0, le=10**9)


Dated = TypeVar("Dated", Reports, RunawayGrace)

# Schedulers end a job within seconds to minutes of its limit, and collectors ask every hour: beyond that it is the
# accounting that has lost the end.
DEFAULT_RUNAWAY_GRACE = 3600


class Cluster(BaseModel):
    """A cluster that sends usage. `[[clusters]]` in TOML; docs/configuration.md describes each key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    timezone: str | None = None  # of times that its log writes without a zone
    cpus_per_core: tuple[CpusPerCore, ...] = (CpusPerCore(cpus=1),)
    cards: tuple[CardGres, ...] = tuple(CardGres(gres=gres) for gres in DEFAULT_CARD_GRES)
    card_models: dict[str, str] = Field(default_factory=dict)  # type as the log names it, lower case -> model
    ignored_gres: tuple[str, ...] = ()
    card_partitions: tuple[str, ...] = ()  # an attempt here that states no card is quarantined
    partitions: tuple[str, ...] = ()  # known partitions; empty: any. Usage elsewhere blocks the close
    reports: tuple[Reports, ...] = ()  # empty: nobody states what it saw, and nothing is missed
    runaway_grace_seconds: tuple[RunawayGrace, ...] = (RunawayGrace(seconds=DEFAULT_RUNAWAY_GRACE),)

    @field_validator("reports", mode="before")
    @classmethod
    def _one_word(cls, value: object) -> object:
        words = {"hourly": ({"every": "hour"},), "none": ()}
        if isinstance(value, str) and value not in words:
            raise ValueError(f'"{value}" is neither "hourly" nor "none", nor a list of {{ every, effective_from }}')
        return words[value] if isinstance(value, str) else value

    @field_validator("runaway_grace_seconds", mode="before")
    @classmethod
    def _one_number(cls, value: object) -> object:
        return ({"seconds": value},) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("reports", "runaway_grace_seconds")
    @classmethod
    def _one_a_day(cls, entries: tuple[Dated, ...]) -> tuple[Dated, ...]:
        days = [entry.effective_from for entry in entries]
        if len(set(days)) < len(days):
            raise ValueError("two entries begin on one day; only one can hold")
        return entries

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str | None) -> str | None:
        # Asked for by name: listing all zones reads the whole folder of them, each time.
        try:
            return None if name is None else ZoneInfo(name).key
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{name!r} is no time zone; write it as Asia/Shanghai") from None

    @property
    def zone(self) -> ZoneInfo | None:
        """The zone of the log's naive times, where one is declared."""
        return ZoneInfo(self.timezone) if self.timezone else None

    def cpus_per_core_on(self, day: date) -> int:
        """Return the CPUs per core in force on a day."""
        in_force = [entry for entry in self.cpus_per_core if entry.effective_from <= day]
        return max(in_force, key=lambda entry: entry.effective_from).cpus if in_force else 1

    def expected_on(self, day: date) -> tuple[str, ...] | None:
        """Return the sources that must state each hour of a day of UTC: empty for any one, None where none must."""
        entry = _in_force(self.reports, day)
        return entry.sources if entry is not None and entry.every == "hour" else None

    def runaway_grace_on(self, day: date) -> int:
        """Return the seconds beyond its limit for which an attempt that started on a day of UTC is believed."""
        entry = _in_force(self.runaway_grace_seconds, day)
        return DEFAULT_RUNAWAY_GRACE if entry is None else entry.seconds


def _in_force(entries: tuple[Dated, ...], day: date) -> Dated | None:
    """Return the entry that began last, up to a day."""
    begun = [entry for entry in entries if entry.effective_from <= day]
    return max(begun, key=lambda entry: entry.effective_from, default=None)
