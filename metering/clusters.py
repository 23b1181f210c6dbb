"""What is known of a cluster: facts only, never policy."""

from __future__ import annotations

from datetime import date
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
