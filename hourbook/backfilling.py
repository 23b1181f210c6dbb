"""Files of usage that no log holds: CloudEvents, or any CSV by a mapping."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from hourbook.importing import FORMAT_OF_SUFFIX, catalog_of, unpacked
from hourbook.settings import Home
from metering.cloud_events import read_events
from metering.clusters import Cluster
from metering.collectors.registry import COLLECTORS
from metering.events import Collected


@dataclass(frozen=True)
class BackfillFile:
    """A file of usage, and what a CSV does not say itself."""

    path: Path
    cluster: str = ""
    options: Path | None = None
    zone: ZoneInfo | None = None


def read_backfill(home: Home, file: BackfillFile) -> Collected:
    """Read the usage of a file; what cannot be used is returned with the reason."""
    payload = file.path.read_bytes()
    name = file.path.name.lower().removesuffix(".gz")
    if Path(name).suffix == ".csv":
        reader = COLLECTORS["csv"]
        cluster = catalog_of(home).clusters.get(file.cluster) or Cluster(name=file.cluster)
        said = reader.parse_options(file.options.read_text(encoding="utf-8")) if file.options else None
        return reader.read(payload, cluster=cluster, timezone=file.zone, options=said)
    form = FORMAT_OF_SUFFIX.get(Path(name).suffix, "json")
    return read_events(unpacked(file.path, payload), format=form, now=home.now())
