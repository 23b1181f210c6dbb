"""The event lake: every accepted event in all its revisions, in a Delta table by UTC date of start. Append only.

The inbox numbers its batches without gaps, and the table keeps the number of the last batch it holds. An append of a
batch that is there already does nothing, so a sealer that was killed at any moment may simply run again.

Beside the events lies a small table of names. It is extended before the events are appended, so that every event
carries, besides its text, the numbers that stand for it: what counts usage reads numbers only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError

from base.frames import check_frame
from metering.events import LAKE_SCHEMA
from metering.lake_disk import force_to_disk, mend
from metering.names import NAMES_SCHEMA, NUMBER_SCHEMA, Names, unknown_names, with_numbers
from metering.object_store import Place, StorePath, assert_safe_store, naming_store

_APP = "hourbook-sealer"
_NAMES_APP = "hourbook-names"
# What differs from row to row is written as it is: a dictionary of it would double the time and save nothing.
_VARIED = ("id", "job", "evidence", "recorded_seq", "key_hash", "revision", "start_second", "end_second")
_WRITING = WriterProperties(
    compression="SNAPPY", column_properties={name: ColumnProperties(dictionary_enabled=False) for name in _VARIED}
)
STORED_SCHEMA = pl.Schema([*LAKE_SCHEMA.items(), *NUMBER_SCHEMA.items()])
PARTITION_SCHEMA = pl.Schema(
    {
        "start_date": pl.String,
        "rows": pl.Int64,
        "recorded_seq": pl.Int64,  # the latest recorded in it
        "last_second": pl.Int64,  # no event of it, in any revision, ends later
    }
)
# What is known of a file without reading it.
_FILE_SCHEMA = pl.Schema(
    [
        ("path", pl.String()),
        *PARTITION_SCHEMA.items(),
        ("first_recorded", pl.Int64()),
        ("latest_revision", pl.Int64()),
        ("counters", pl.Boolean()),  # whether any of its events has one
    ]
)
# A date in more files than this is read noticeably more slowly than one in few.
MANY_FILES = 32


@dataclass(frozen=True)
class DatePart:
    """The files that hold one date's events, as of a moment or from a recorded number on."""

    folder: Place
    files: pl.DataFrame  # _FILE_SCHEMA
    as_of: int | None = None
    after: int = 0

    @property
    def rows(self) -> int:
        """How many rows its files hold; those it leaves out included."""
        return int(self.files["rows"].sum())

    @property
    def last_second(self) -> int:
        """No event in its files ends later."""
        return int(self.files["last_second"].max() or 0)  # type: ignore[arg-type]

    @property
    def latest_revision(self) -> int:
        """No event in its files has a higher revision."""
        return int(self.files["latest_revision"].max() or 0)  # type: ignore[arg-type]

    @property
    def has_counters(self) -> bool:
        """Whether any event in its files has a counter."""
        return bool(self.files["counters"].any())

    def split(self, after: int) -> tuple[DatePart, DatePart]:
        """Part what was recorded up to a number from what was recorded later."""
        old = self.files.filter(pl.col("first_recorded") <= after)
        new = self.files.filter(pl.col("recorded_seq") > after)
        return DatePart(self.folder, old, after), DatePart(self.folder, new, self.as_of, after)

    def scan(self) -> pl.LazyFrame:
        """Read its rows, with their numbers."""
        return self._read(self.files["path"].to_list(), self.files)

    def chunks(self, rows: int) -> list[pl.LazyFrame]:
        """Read its rows in parts of about so many at most."""
        parts: list[pl.LazyFrame] = []
        together: list[int] = []
        for place, held in enumerate(self.files["rows"].to_list()):
            if together and held + sum(self.files["rows"][i] for i in together) > rows:
                parts.append(self._together(together))
                together = []
            if held > rows:
                whole = self._together([place])
                parts += [whole.slice(begin, rows) for begin in range(0, held, rows)]
            else:
                together.append(place)
        return [*parts, *([self._together(together)] if together else [])]

    def _together(self, places: Sequence[int]) -> pl.LazyFrame:
        files = self.files[list(places)]
        return self._read(files["path"].to_list(), files)

    def _read(self, paths: list[str], files: pl.DataFrame) -> pl.LazyFrame:
        if not paths:
            return STORED_SCHEMA.to_frame().lazy()
        rows = pl.scan_parquet(
            [str(self.folder / path) for path in paths],
            schema=STORED_SCHEMA,
            hive_partitioning=True,
            hive_schema={"start_date": pl.String},
        )
        if self.as_of is not None and int(files["recorded_seq"].max()) > self.as_of:  # type: ignore[arg-type]
            rows = rows.filter(pl.col("recorded_seq") <= self.as_of)
        if int(files["first_recorded"].min()) <= self.after:  # type: ignore[arg-type]
            rows = rows.filter(pl.col("recorded_seq") > self.after)
        return rows


class EventLake:
    """The Delta tables of events and of names in one folder, or under one prefix of an object store."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self._folder = root / "events"
        self._names_folder = root / "names"
        self._names: tuple[int, Names] | None = None  # of a version of the table

    def append(self, events: pl.DataFrame, batch_seq: int) -> bool:
        """Add the rows of all batches up to `batch_seq`; False where another sealer was first, who then counts.

        The rows are on disk when this returns. Rows of batches that the lake holds already are left out.
        """
        table = self._table()
        # Who wrote the latest version may have died, or its disk failed, before it was on disk.
        self._force_to_disk(self._folder, table.version())
        sealed = _sealed(table)
        if batch_seq <= sealed:
            return False
        rows = check_frame(events, LAKE_SCHEMA, "events for the lake").filter(pl.col("batch_seq") > sealed)
        numbered = with_numbers(rows, self._extended(rows).rows)
        # What lies together is counted together: three times as fast as in the order of arrival, and in smaller files.
        numbered = numbered.sort("start_date", "who_number", "cards_number")
        properties = CommitProperties(app_transactions=[Transaction(app_id=_APP, version=batch_seq)])
        try:
            # The table object was read before the check above, so a sealer who appended since makes this fail.
            write_deltalake(table, numbered, mode="append", commit_properties=properties, writer_properties=_WRITING)
        except CommitFailedError:
            self._force_to_disk(self._folder, self._table().version())
            return False
        self._force_to_disk(self._folder, table.version())
        return True

    def scan(self, dates: Collection[str] | None = None, as_of: int | None = None) -> pl.LazyFrame:
        """Read the events of some dates (all without), as they were when `as_of` was the last recorded number."""
        files = self._files()
        if dates is not None:
            files = files.filter(pl.col("start_date").is_in(list(dates)))
        return self._part(files, as_of).scan().select(list(LAKE_SCHEMA))

    def part(self, date: str, as_of: int | None = None) -> DatePart:
        """Return one date, as of a recorded number."""
        return self._part(self._files().filter(pl.col("start_date") == date), as_of)

    def _part(self, files: pl.DataFrame, as_of: int | None) -> DatePart:
        recorded = files if as_of is None else files.filter(pl.col("first_recorded") <= as_of)
        return DatePart(self._folder, recorded, as_of)

    def names(self) -> Names:
        """Return the dictionaries as they are now."""
        return self._read_names(self._names_table())

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

    def compact(self, dates: Collection[str] | None = None) -> None:
        """Write the many small files of some dates (all without) as few; no event changes."""
        table = self._table()
        self._force_to_disk(self._folder, table.version())
        for date in [None] if dates is None else sorted(dates):
            table.optimize.compact(partition_filters=None if date is None else [("start_date", "=", date)])
            self._force_to_disk(self._folder, table.version())
        table.create_checkpoint()

    def compact_if_needed(self, most_files: int | None = None) -> list[str]:
        """Compact the dates that lie in more than so many files; return them."""
        most_files = MANY_FILES if most_files is None else most_files
        files = self._files().group_by("start_date").len()
        dates = files.filter(pl.col("len") > most_files)["start_date"].sort().to_list()
        if dates:
            self.compact(dates)
        names = self._names_table()
        if len(names.file_uris()) > most_files:
            names.optimize.compact()
            self._force_to_disk(self._names_folder, names.version())
            names.create_checkpoint()
        return dates

    def vacuum(self, keep_hours: int = 168) -> list[str]:
        """Delete files that no longer belong to the table and are older than `keep_hours`; return their paths.

        Whoever is reading them would fail, so the hours should outlast every reader.
        """
        return self._table().vacuum(keep_hours, dry_run=False, enforce_retention_duration=False)

    def _extended(self, rows: pl.DataFrame) -> Names:
        """Return dictionaries that hold what these rows say, writing first what is new."""
        while True:
            table = self._names_table()
            self._force_to_disk(self._names_folder, table.version())
            names = self._read_names(table)
            added = unknown_names(rows, names.rows)
            if added.is_empty():
                return names
            count = names.rows.height + added.height
            properties = CommitProperties(app_transactions=[Transaction(app_id=_NAMES_APP, version=count)])
            try:
                write_deltalake(table, added, mode="append", commit_properties=properties)
            except CommitFailedError:
                continue  # another writer gave these numbers to other names; its names are read first
            self._force_to_disk(self._names_folder, table.version())
            self._names = (table.version(), Names.of(pl.concat([names.rows, added])))
            return self._names[1]

    def _read_names(self, table: DeltaTable) -> Names:
        if self._names is None or self._names[0] != table.version():
            files = [str(self._names_folder / path) for path in table.get_add_actions(flatten=True)["path"].to_pylist()]
            rows = pl.read_parquet(files, schema=NAMES_SCHEMA) if files else NAMES_SCHEMA.to_frame()
            self._names = (table.version(), Names.of(rows))
        return self._names[1]

    def _table(self) -> DeltaTable:
        return self._opened(self._folder, STORED_SCHEMA, "start_date")

    def _names_table(self) -> DeltaTable:
        return self._opened(self._names_folder, NAMES_SCHEMA, None)

    def _opened(self, folder: Place, schema: pl.Schema, partition_by: str | None) -> DeltaTable:
        if isinstance(folder, Path):
            mend(folder)
        with naming_store(self.root):
            if DeltaTable.is_deltatable(str(folder)):
                return DeltaTable(str(folder))
            if isinstance(folder, StorePath):
                assert_safe_store(folder)
            else:
                folder.mkdir(parents=True, exist_ok=True)
            made = DeltaTable.create(
                str(folder), schema, mode="ignore", partition_by=partition_by, name=str(folder).rpartition("/")[2]
            )
            self._force_to_disk(folder, 0)
            return made

    def _files(self) -> pl.DataFrame:
        actions = pl.DataFrame(self._table().get_add_actions(flatten=True))
        if actions.is_empty():
            return _FILE_SCHEMA.to_frame()
        found = actions.select(
            "path",
            start_date=pl.col("partition.start_date").cast(pl.String),
            rows="num_records",
            recorded_seq="max.recorded_seq",
            last_second="max.end_second",
            first_recorded="min.recorded_seq",
            latest_revision="max.revision",
            # A column whose longest text is too long for statistics has some text.
            counters=pl.col("max.counters").fill_null("?") != "",
        )
        return found.cast(_FILE_SCHEMA).sort("start_date", "first_recorded")

    def _force_to_disk(self, folder: Place, version: int) -> None:
        """Have a version's files and their names on disk before anyone is told that they are there."""
        if not isinstance(folder, Path) or not isinstance(self.root, Path):
            return  # an object is durable when the store has said so
        force_to_disk(folder, version)


def _sealed(table: DeltaTable) -> int:
    return table.transaction_version(_APP) or 0
