"""Disks that fill up, turn read-only or report errors under a running server, by every way that this machine allows."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from .disk_shim import COMPILER, DiskShim
from .preforked import Child

ROOM = "24m"


class BadDisk(ABC):
    """A disk below a folder that can be spoilt and mended while a server runs on it."""

    says = "disk"  # what must stand in an answer

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # of the home; made here
        folder.mkdir()

    @property
    def environment(self) -> Mapping[str, str]:
        """With what a server on it must be started."""
        return {}

    # What a kind does to the server itself, it does by its process.
    @abstractmethod
    def spoil(self, server: Child) -> None:
        """Let it fail from now on."""

    @abstractmethod
    def mend(self, server: Child) -> None:
        """Let it work again."""

    def remove(self) -> None:  # noqa: B027 - most need nothing
        """Put away what only it needed."""


class SizeLimit(BadDisk):
    """No file may be written any further: works for everyone, everywhere on Linux."""

    says = "its disk reports errors"

    def spoil(self, server: Child) -> None:
        """Set the limit of the process to nothing."""
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def mend(self, server: Child) -> None:
        """Lift the limit."""
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Small(BadDisk):
    """A small file system of its own, really full: where this process may mount one."""

    says = "its disk is full"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)], check=True)

    def spoil(self, server: Child) -> None:  # noqa: ARG002
        """Fill it to the last byte."""
        with suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as filler:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while filler.write(bytes(size)) == size:
                        pass

    def mend(self, server: Child) -> None:  # noqa: ARG002
        """Make room."""
        (self.folder / "filler").unlink()

    def remove(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


class Shimmed(BadDisk):
    """A disk that says what it is told to say: where there is a C compiler."""

    writing = errno.ENOSPC
    forcing = 0
    says = "its disk is full"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.shim = DiskShim.compiled(folder, Path(tempfile.mkdtemp(dir=folder.parent)))

    @property
    def environment(self) -> Mapping[str, str]:
        """With the shim between it and the system."""
        return self.shim.environment

    def spoil(self, server: Child) -> None:  # noqa: ARG002
        """Tell it to fail."""
        self.shim.fail(writing=self.writing, forcing=self.forcing)

    def mend(self, server: Child) -> None:  # noqa: ARG002
        """Tell it to work."""
        self.shim.fail()


class ReadOnly(Shimmed):
    """As a system turns a file system read-only when its disk is in doubt."""

    writing = errno.EROFS
    says = "database cannot be used"


class Erring(Shimmed):
    """Nothing can be written."""

    writing = errno.EIO
    says = "its disk reports errors"


class Unforced(Shimmed):
    """Everything can be written, and nothing be forced to disk; what was written meanwhile is lost."""

    writing, forcing = 0, errno.EIO
    says = "its disk reports errors"


@cache
def may_mount() -> bool:
    """Tell whether this process may mount a file system."""
    if os.geteuid():
        return False
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False, capture_output=True)
        if tried.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return tried.returncode == 0


def bad_disks() -> list[type[BadDisk]]:
    """Return the kinds of bad disk that can be had here."""
    shimmed = [Shimmed, ReadOnly, Erring, Unforced] if COMPILER else []
    return [SizeLimit, *([Small] if may_mount() else []), *shimmed]
