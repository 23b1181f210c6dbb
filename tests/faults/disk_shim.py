"""The disk between a real process and the system: compiled here, told when to fail, and its trace read as steps."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .disk_model import Step

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
SOURCE = Path(__file__).with_name("disk_shim.c")
_HEAD = struct.Struct("<cQQIII")
_KINDS: Mapping[bytes, str] = {
    b"c": "create",
    b"w": "write",
    b"t": "truncate",
    b"s": "sync",
    b"f": "failed_sync",
    b"d": "sync_folder",
    b"m": "move",
    b"l": "link",
    b"r": "remove",
}


@dataclass(frozen=True)
class DiskShim:
    """One disk: which folder it is, and the files through which it is told and tells."""

    folder: Path  # of the home
    library: Path
    trace: Path
    control: Path

    @classmethod
    def compiled(cls, folder: Path, place: Path) -> DiskShim:
        """Compile it into a place outside of the folder."""
        assert COMPILER
        shim = cls(folder, place / "disk_shim.so", place / "trace", place / "control")
        options = ["-shared", "-fPIC", "-O2", "-o", str(shim.library), str(SOURCE), "-ldl", "-lpthread"]
        subprocess.run([COMPILER, *options], check=True)
        shim.control.write_bytes(bytes(8))
        return shim

    @property
    def environment(self) -> dict[str, str]:
        """With what a process must be started."""
        return {
            "LD_PRELOAD": str(self.library),
            "DISK_FOLDER": str(self.folder),
            "DISK_TRACE": str(self.trace),
            "DISK_CONTROL": str(self.control),
        }

    def fail(self, *, writing: int = 0, forcing: int = 0) -> None:
        """From now on let writing and forcing to disk fail with these errors; 0 lets them succeed."""
        with self.control.open("r+b") as file, mmap.mmap(file.fileno(), 8) as mapped:
            mapped[:] = struct.pack("<ii", writing, forcing)

    def steps(self) -> list[tuple[int, Step]]:
        """Return all that was done so far, each with the instant of the machine's steady clock."""
        data = self.trace.read_bytes()
        found, at = [], 0
        while at + _HEAD.size <= len(data):
            kind, time, place, *lengths = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            parts = []
            for length in lengths:
                parts.append(data[at : at + length])
                at += length
            if at > len(data):
                break  # its process was killed while it wrote this
            path, to, written = parts
            found.append((time, Step(_KINDS[kind], path.decode(), place, written, to.decode())))  # type: ignore[arg-type]
        return found
