"""Log files as they lie on disk: which there are, what is new in them, and whether one is another's continuation.

A file is known by its content, not by its name or inode: a log that was renamed, compressed or copied is read on where
it was left, and one that was replaced or cut short is read anew.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from metering.collectors.pieces import LONGEST_RECORD, PIECE_BYTES, Cutting

HEAD_BYTES = 1024
# So much of what was read before is read again and compared, before reading goes on behind it.
OVERLAP_BYTES = 65_536

_PACKED: Mapping[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_LONGEST_MAGIC = 6
# Leftovers of editors and transfers, beside logs.
_PASSED_OVER = (".swp", ".tmp", ".part", "~")


class LogReadError(ValueError):
    """A file that cannot be read now; the message says which and what to do."""


@dataclass(frozen=True)
class Mark:
    """Up to where a file was read, and what was there."""

    read_bytes: int = 0
    read_lines: int = 0
    head_bytes: int = 0
    head_digest: str = ""
    tail_digest: str = ""


def log_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files to follow, oldest change first: a folder stands for the files in it, `*` for any part of a name.

    Hidden files are left out.
    """
    found: set[Path] = set()
    for path in paths:
        if any(sign in path.name for sign in "*?["):
            found.update(one for one in path.parent.glob(path.name) if one.is_file())
        elif path.is_dir():
            found.update(one for one in path.iterdir() if one.is_file())
        elif path.is_file():
            found.add(path)
        else:
            raise LogReadError(f"{path} is not there; correct the path, or wait until the scheduler makes it")
    kept = [one for one in found if not one.name.startswith(".") and not one.name.endswith(_PASSED_OVER)]
    return sorted(kept, key=lambda one: (one.stat().st_mtime_ns, str(one)))


def state_of(path: Path) -> str:
    """Return what changes whenever a file does: inode, size and time of change."""
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


@dataclass
class LogReader:
    """An open log, unpacked."""

    path: Path
    stream: BinaryIO
    packed: bool
    heads: dict[int, str] = field(default_factory=dict)  # digests by number of bytes

    def read(self, first: int, length: int) -> bytes:
        """Return up to so many bytes from a place on."""
        try:
            self.stream.seek(first)
            return self.stream.read(length)
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            raise LogReadError(f"{self.path} cannot be read ({error}); is it still being written or copied?") from error

    def is_read(self, mark: Mark) -> bool:
        """Tell whether the file begins with all that was read, as far as its head and the end of that show."""
        return self._head(mark.head_bytes) == mark.head_digest and digest(self.tail(mark)) == mark.tail_digest

    def tail(self, mark: Mark) -> bytes:
        """Return the last bytes that were read."""
        length = min(OVERLAP_BYTES, mark.read_bytes)
        return self.read(mark.read_bytes - length, length)

    def _head(self, length: int) -> str:
        if length not in self.heads:
            self.heads[length] = digest(self.read(0, length))
        return self.heads[length]


@dataclass(frozen=True)
class Piece:
    """Whole records of a file, and the marks before and behind them."""

    content: bytes
    before: Mark
    behind: Mark


def new_pieces(reader: LogReader, mark: Mark, cutting: Cutting) -> Iterator[Piece]:
    """Yield what a file holds behind a mark, in pieces of whole records; a half-written last record waits."""
    tail = reader.tail(mark)
    head = reader.read(0, mark.head_bytes)
    while content := _whole_records(reader, mark.read_bytes, cutting):
        tail = (tail + content)[-OVERLAP_BYTES:]
        head = (head + content)[:HEAD_BYTES]
        read_bytes, read_lines = mark.read_bytes + len(content), mark.read_lines + content.count(b"\n")
        behind = Mark(read_bytes, read_lines, len(head), digest(head), digest(tail))
        yield Piece(content, mark, behind)
        mark = behind


def _whole_records(reader: LogReader, first: int, cutting: Cutting) -> bytes:
    size = PIECE_BYTES
    while True:
        content = reader.read(first, size)
        at_end = len(content) < size
        # A packed file is written once, so that its end is the end of a record.
        end = len(content) if at_end and reader.packed else cutting.last_end(content)
        if end or at_end:
            return content[:end]
        if size >= LONGEST_RECORD:
            raise LogReadError(f"{reader.path} has no end of a record in {size:,} bytes; is a quote never closed?")
        size *= 2


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def opened(path: Path) -> Iterator[LogReader]:
    """Open a log, plain or packed by gzip, bzip2 or xz, told by its first bytes."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_LONGEST_MAGIC)
        unpack = next((unpack for magic, unpack in _PACKED.items() if beginning.startswith(magic)), None)
        with path.open("rb") if unpack is None else unpack(path) as stream:
            yield LogReader(path, cast("BinaryIO", stream), unpack is not None)
    except OSError as error:
        raise LogReadError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
