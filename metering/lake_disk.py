"""What a Delta table in a folder needs so that a power cut cannot hurt it: versions forced to disk, broken ones undone.

Its writer leaves it to the operating system when data reach the disk, so the last version may be there in name only
after a power cut. Nobody was told of it then, because it was not forced: it is taken back, and written again by whoever
still holds its rows. Each version is made certain before the next is put on it, so it is never more than the last.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from polars.exceptions import PolarsError

_certain: dict[Path, int] = {}  # the version of each table that this process knows to be on disk
_looked_at: set[Path] = set()
_failed: set[Path] = set()  # what could not be forced
# Files up to this are read whole; of larger ones their length and their last bytes must do.
_READ_WHOLE_BYTES = 16 * 1024 * 1024


def force_to_disk(folder: Path, version: int) -> None:
    """Have a version's files and their names on disk before anyone is told that they are there."""
    if _certain.get(folder) == version:
        return
    log = folder / "_delta_log"
    commit = _commit(log, version)
    files = _files(folder, commit)
    # A checkpoint that is there in name only would keep the table from being read.
    pointer = [path for path in (log / "_last_checkpoint",) if path.exists()]
    checkpoints = sorted(log.glob(f"{version:020d}.checkpoint*"))
    folders = {parent for path in files for parent in path.parents if parent.is_relative_to(folder)}
    for path in (*files, *folders, *checkpoints, commit, *pointer, log, folder, folder.parent, folder.parent.parent):
        _force(path)
    _certain[folder] = version


def mend(folder: Path) -> list[Path]:
    """Take back what a power cut left in name only: the last version, or a checkpoint; return what was set aside.

    Looked for once by each process, before it opens the table.
    """
    log = folder / "_delta_log"
    if folder in _looked_at or not log.is_dir():
        return []
    broken = _broken_checkpoints(log)
    versions = sorted(log.glob("[0-9]" * 20 + ".json"))
    if versions and not _is_whole(folder, versions[-1]):
        broken.append(versions[-1])
    for path in broken:
        path.replace(path.with_name(f".{path.name}.broken"))
    if broken:
        _fsync(log)
    _looked_at.add(folder)
    return broken


def _commit(log: Path, version: int) -> Path:
    return log / f"{version:020d}.json"


def _actions(commit: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in commit.read_bytes().splitlines()]


def _files(folder: Path, commit: Path) -> list[Path]:
    return [folder / action["add"]["path"] for action in _actions(commit) if "add" in action]


def _is_whole(folder: Path, commit: Path) -> bool:
    """Tell whether all that a version brought can be read."""
    try:
        actions = _actions(commit)
        return bool(actions) and all(_is_readable(folder, action["add"]) for action in actions if "add" in action)
    except (orjson.JSONDecodeError, TypeError):
        return False


def _is_readable(folder: Path, added: dict[str, Any]) -> bool:
    path = folder / added["path"]
    try:
        if path.stat().st_size != added["size"]:
            return False
        pl.read_parquet_schema(path)
        if added["size"] <= _READ_WHOLE_BYTES:
            pl.read_parquet(path, hive_partitioning=False)
    except (OSError, PolarsError):
        return False
    return True


def _broken_checkpoints(log: Path) -> list[Path]:
    pointer = log / "_last_checkpoint"
    if not pointer.exists():
        return []
    try:
        version = orjson.loads(pointer.read_bytes())["version"]
        parts = sorted(log.glob(f"{version:020d}.checkpoint*.parquet"))
        for part in parts:
            pl.read_parquet(part)
    except (OSError, PolarsError, orjson.JSONDecodeError, KeyError, TypeError):
        return [pointer, *log.glob("*.checkpoint*.parquet")]
    return [] if parts else [pointer]


def _force(path: Path) -> None:
    if path in _failed:
        _write_anew(path)
    try:
        _fsync(path)
    except OSError:
        _failed.add(path)
        raise


def _write_anew(path: Path) -> None:
    """Write a file once more under its name: what could not be forced once would be forgotten without a second word."""
    if path.is_file():
        copy = path.with_name(f".{path.name}.anew")
        copy.write_bytes(path.read_bytes())
        _fsync(copy)
        copy.replace(path)
    _failed.discard(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
