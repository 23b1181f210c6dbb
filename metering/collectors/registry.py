"""All collectors by name, with one signature: what a file of each kind of log says, as usage events."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metering.clusters import Cluster
from metering.collectors.common import unpack
from metering.collectors.csv_mapping import CsvMapping
from metering.collectors.csv_reader import read_csv
from metering.collectors.kubernetes import KubernetesOptions, read_kubernetes
from metering.collectors.lsf import LsfOptions, read_lsf
from metering.collectors.pbs import PbsOptions, read_pbs
from metering.collectors.pieces import PIECE_BYTES, Cutting, joined, pieces, shifted
from metering.collectors.sge import SgeOptions, read_sge
from metering.collectors.slurm_json import read_slurm_file
from metering.collectors.swf import SwfOptions, read_swf
from metering.events import Collected


class OptionsError(ValueError):
    """Options that a collector does not take; the message says which and why."""


class SlurmOptions(BaseModel):
    """What a file of `sacct -P` does not say itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: tuple[str, ...] | None = None  # where the file has no header line
    delimiter: str = Field(default="|", min_length=1)


def read_slurm(
    payload: bytes, *, cluster: Cluster, timezone: ZoneInfo | None = None, options: SlurmOptions | None = None
) -> Collected:
    """Read one file of `sacct -P` or `sacct --json`."""
    given = options or SlurmOptions()
    return read_slurm_file(
        payload, cluster=cluster, timezone=timezone, columns=given.columns, delimiter=given.delimiter
    )


@dataclass(frozen=True)
class Collector:
    """Reads one kind of log. `options` is the model of what may be said besides, as TOML or as keys and values."""

    name: str
    title: str  # what is read, for the command line's help
    options: type[BaseModel]
    reader: Callable[..., Collected]
    needs_options: bool = False  # nothing can be read without them
    cutting: Cutting | None = None  # how its logs may be read piece by piece; None: only whole

    def read(
        self, payload: bytes, *, cluster: Cluster, timezone: ZoneInfo | None = None, options: BaseModel | None = None
    ) -> Collected:
        """Read a file (plain or gzip); a file that must be refused as a whole raises a ValueError that says why."""
        if options is not None and not isinstance(options, self.options):
            raise TypeError(f"collector {self.name} takes {self.options.__name__}, not {type(options).__name__}")
        body, cutting = payload, self.cutting_for(options)
        if cutting is not None:
            body = unpack(payload)
        if cutting is None or len(body) <= PIECE_BYTES:
            return self._read(body, cluster, timezone, options)
        # A large log is read piece by piece, so that the memory it takes does not grow with it.
        return joined(
            [
                shifted(self._read(piece, cluster, timezone, options), lines)
                for piece, lines in pieces(body, cutting)
                if piece.strip()
            ]
        )

    def cutting_for(self, options: BaseModel | None) -> Cutting | None:
        """Return how logs read with these options may be cut; None where they must be read whole."""
        if not isinstance(options, CsvMapping) or self.cutting is None:
            return self.cutting
        if options.repeats == "counted":
            return None  # which of equal records is which can only be told from all of them
        return replace(self.cutting, head="none" if options.header else "record")

    def _read(
        self, payload: bytes, cluster: Cluster, timezone: ZoneInfo | None, options: BaseModel | None
    ) -> Collected:
        found = self.reader(payload, cluster=cluster, timezone=timezone, options=options)
        if "columns" in found.reading:
            return found  # Slurm's says all of it
        said = options.model_dump(mode="json", exclude_unset=True) if options else {}
        zone = timezone.key if timezone else None
        reading = {"collector": self.name, "cluster": cluster.name, "timezone": zone, "options": said}
        return replace(found, reading={**reading, **found.reading})

    def parse_options(self, given: str | Mapping[str, Any]) -> BaseModel:
        """Return options from TOML or from keys and values, or say which is wrong."""
        try:
            values = tomllib.loads(given, parse_float=Decimal) if isinstance(given, str) else given
            return self.options.model_validate(values)
        except tomllib.TOMLDecodeError as error:
            raise OptionsError(f"the options of {self.name} are no TOML: {error}") from error
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, one['loc'])) or 'all of them'}: {one['msg']}" for one in error.errors())
            raise OptionsError(f"options of {self.name}: {'; '.join(wrong)}") from error


_LINES = Cutting()
_ALL = (
    Collector("slurm", "`sacct -P` or `sacct --json` output", SlurmOptions, read_slurm),
    Collector("pbs", "accounting logs of PBS Pro, OpenPBS and Torque", PbsOptions, read_pbs, cutting=_LINES),
    Collector("lsf", "lsb.acct of LSF", LsfOptions, read_lsf, cutting=_LINES),
    Collector(
        "sge", "accounting of Grid Engine (times in seconds or milliseconds)", SgeOptions, read_sge, cutting=_LINES
    ),
    Collector("uge", "accounting of Univa Grid Engine; the same as sge", SgeOptions, read_sge, cutting=_LINES),
    Collector("swf", "logs in the Standard Workload Format", SwfOptions, read_swf, cutting=Cutting(head="comments")),
    Collector("kubernetes", "pods, as JSON of kubectl or as a CSV list", KubernetesOptions, read_kubernetes),
    Collector(
        "csv", "any CSV file, by a mapping", CsvMapping, read_csv, needs_options=True, cutting=Cutting(quotes=True)
    ),
)
COLLECTORS: Mapping[str, Collector] = {collector.name: collector for collector in _ALL}


def collector(name: str) -> Collector:
    """Return the collector of a kind of log, or say which there are."""
    if name not in COLLECTORS:
        raise OptionsError(f"there is no collector {name!r}; there are {', '.join(COLLECTORS)}")
    return COLLECTORS[name]
