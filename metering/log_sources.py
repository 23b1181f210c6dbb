"""What is collected by itself: which log of which cluster, where it lies, and how it is read."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, model_validator

from metering.collectors.registry import OptionsError, collector
from metering.slurm_source import SlurmAccess

IN_CLUSTER = "in-cluster"  # the server runs as a pod: its own service account


class LogSource(BaseModel):
    """A log that a server follows by itself. `[[collect]]` in TOML; docs/configuration.md describes each key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    kind: Literal["pbs", "lsf", "sge", "uge", "swf", "csv", "kubernetes", "slurm"]
    cluster: str = Field(min_length=1, max_length=64)
    paths: tuple[str, ...] = ()  # files, folders or patterns
    kubeconfig: str = ""  # of kubernetes: a file, or "in-cluster"
    timezone: str = ""  # of times that the log writes without a zone
    options: dict[str, Any] = Field(default_factory=dict)  # what the log does not say itself
    every_seconds: int = Field(default=60, ge=1, le=86_400)
    enabled: bool = True

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if self.kind == "slurm":
            return self._reaches_slurm()
        places = [self.kubeconfig] if self.kind == "kubernetes" else list(self.paths)
        if not all(places) or not places or bool(self.paths) == (self.kind == "kubernetes"):
            raise ValueError("kubernetes needs a kubeconfig, every other kind paths, and neither takes the other")
        for place in places:
            if place != IN_CLUSTER and not PurePath(place).is_absolute():
                raise ValueError(f"{place!r} is no absolute path, and a server may be started anywhere")
        try:
            if self.timezone:
                ZoneInfo(self.timezone)
            reader = collector(self.kind)
            if reader.needs_options and not self.options:
                raise ValueError(f"{self.kind} needs options")
            read = reader.parse_options(self.options) if self.options else None
        except OptionsError:
            raise
        except (KeyError, OSError):
            raise ValueError(f"{self.timezone!r} is no time zone; write it as Asia/Shanghai") from None
        if self.kind != "kubernetes" and reader.cutting_for(read) is None:
            raise ValueError(
                "with these options the log can only be read whole; import its files when they are finished"
            )
        return self

    def _reaches_slurm(self) -> Self:
        if self.paths or self.kubeconfig or self.timezone:
            raise ValueError("slurm takes options only: sacct on this machine, or the url of slurmrestd")
        SlurmAccess.model_validate(self.options)
        return self
