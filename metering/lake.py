"""The event lake: every accepted event in all its revisions, in a Delta table by UTC date of start. Append only.

The inbox numbers its batches without gaps, and the table keeps the number of the last batch it holds. An append of a
batch that is there already does nothing, so a sealer that was killed at any moment may simply run again.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import orjson
import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from base.frames import check_frame
from metering.events import LAKE_SCHEMA

_APP = "hourbook-sealer"
PARTITION_SCHEMA = pl.Schema(
    {
        "start_date": pl.String,
        "rows": pl.Int64,
        "recorded_seq": pl.Int64,  # the latest recorded in it
        "last_second": pl.Int64,  # no event of it, in any revision, ends later
    }
)


class EventLake:
    """The Delta table of events in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "events"

    def append(self, events: pl.DataFrame, batch_seq: int) -> bool:
        """Add the rows of all batches up to `batch_seq`; False where another sealer was first, who then counts.

        The rows are on disk when this returns. Rows of batches that the lake holds already are left out.
        """
        table = self._table()
        sealed = _sealed(table)
        if batch_seq <= sealed:
            return False
        rows = check_frame(events, LAKE_SCHEMA, "events for the lake").filter(pl.col("batch_seq") > sealed)
        properties = CommitProperties(app_transactions=[Transaction(app_id=_APP, version=batch_seq)])
        try:
            # The table object was read before the check above, so a sealer who appended since makes this fail.
            write_deltalake(table, rows, mode="append", commit_properties=properties)
        except CommitFailedError:
            return False
        self._force_to_disk(table.version())
        return True

    def scan(self, dates: Collection[str] | None = None, as_of: int | None = None) -> pl.LazyFrame:
        """Read the events of some dates (all without), as they were when `as_of` was the last recorded number."""
        files = self._files()
        if dates is not None:
            files = files.filter(pl.col("start_date").is_in(list(dates)))
        if as_of is not None:
            files = files.filter(pl.col("first_recorded") <= as_of)
        if files.is_empty():
            return LAKE_SCHEMA.to_frame().lazy()
        rows = pl.scan_parquet(
            [self._folder / path for path in files["path"]],
            schema=LAKE_SCHEMA,
            hive_partitioning=True,
            hive_schema={"start_date": pl.String},
        ).select(list(LAKE_SCHEMA))
        return rows if as_of is None else rows.filter(pl.col("recorded_seq") <= as_of)

    def partitions(self) -> pl.DataFrame:
        """List the dates that hold events, each with its rows, its latest recorded number and its latest second."""
        latest = [pl.col("rows").sum(), pl.col("recorded_seq").max(), pl.col("last_second").max()]
        grouped = self._files().group_by("start_date").agg(latest).sort("start_date")
        return grouped.select([pl.col(name).cast(kind) for name, kind in PARTITION_SCHEMA.items()])

    def dates(self) -> list[str]:
        """List the UTC dates of start that hold events."""
        return self.partitions()["start_date"].to_list()

    def sealed_batch(self) -> int:
        """Return the number of the last inbox batch the lake holds; 0 for none."""
        return _sealed(self._table())

    def compact(self) -> None:
        """Write the many small files of each date as few; no event changes."""
        table = self._table()
        table.optimize.compact()
        self._force_to_disk(table.version())

    def vacuum(self, keep_hours: int = 168) -> list[str]:
        """Delete files that no longer belong to the table and are older than `keep_hours`; return their paths.

        Whoever is reading them would fail, so the hours should outlast every reader.
        """
        return self._table().vacuum(keep_hours, dry_run=False, enforce_retention_duration=False)

    def _table(self) -> DeltaTable:
        if not DeltaTable.is_deltatable(str(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
            made = DeltaTable.create(self._folder, LAKE_SCHEMA, mode="ignore", partition_by="start_date", name="events")
            self._force_to_disk(0)
            return made
        return DeltaTable(self._folder)

    def _files(self) -> pl.DataFrame:
        actions = pl.DataFrame(self._table().get_add_actions(flatten=True))
        if actions.is_empty():
            empty = {"path": pl.String, "first_recorded": pl.Int64} | dict(PARTITION_SCHEMA)
            return pl.DataFrame(schema=empty)
        return actions.select(
            "path",
            start_date=pl.col("partition.start_date").cast(pl.String),
            rows="num_records",
            first_recorded="min.recorded_seq",
            recorded_seq="max.recorded_seq",
            last_second="max.end_second",
        )

    def _force_to_disk(self, version: int) -> None:
        """Have a version's files and their names on disk before anyone is told that they are there."""
        # The writer leaves that to the operating system, and the inbox would forget what a power cut then took.
        log = self._folder / "_delta_log"
        commit = log / f"{version:020d}.json"
        actions = [orjson.loads(line) for line in commit.read_bytes().splitlines()]
        files = [self._folder / action["add"]["path"] for action in actions if "add" in action]
        for path in (*files, *{path.parent for path in files}, commit, log, self._folder, self.root):
            _fsync(path)


def _sealed(table: DeltaTable) -> int:
    return table.transaction_version(_APP) or 0


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
