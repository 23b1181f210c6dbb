"""A disk that loses power: of what was written and not forced to it, any part may be gone, and names likewise.

It is stricter than any file system: a new name is there for certain only once its folder was forced, data only once
the file was, and what was written before a force that failed is lost for good, as Linux drops it then.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

SECTOR = 512


class Step(NamedTuple):
    """One thing done to the disk; `data` is what was written at `at`, or `at` the length that a file was cut to."""

    kind: Literal["create", "write", "truncate", "sync", "failed_sync", "sync_folder", "move", "link", "remove"]
    path: str
    at: int = 0
    data: bytes = b""
    to: str = ""


@dataclass
class Content:
    """The bytes of a file: what is certain, and what was done to it since."""

    certain: bytearray = field(default_factory=bytearray)
    since: list[Step] = field(default_factory=list)

    def force(self) -> None:
        """Make everything certain."""
        _write(self.certain, self.since)
        self.since.clear()

    def left(self, chance: random.Random, keep: str) -> bytes:
        """Return what is there after a cut at which only some of what was done since had reached the disk."""
        some = self.since
        if keep == "none":
            some = []
        elif keep == "first":
            some = some[: chance.randint(0, len(some))]
        elif keep == "any":
            some = [_torn(step, chance) for step in some if chance.random() < 0.5]
        left = bytearray(self.certain)
        _write(left, some)
        return bytes(left)


@dataclass
class Disk:
    """Files by the names that the program sees, and by those that are certain."""

    seen: dict[str, Content] = field(default_factory=dict)
    certain: dict[str, Content] = field(default_factory=dict)
    names: list[tuple[Step, Content]] = field(default_factory=list)  # done to names and not forced yet, in order

    @classmethod
    def holding(cls, files: Mapping[str, bytes]) -> Disk:
        """Return a disk on which these files are certain."""
        contents = {path: Content(bytearray(data)) for path, data in files.items()}
        return cls(dict(contents), dict(contents))

    def do(self, step: Step) -> None:
        """Let a step happen."""
        match step.kind:
            case "create":
                self._rename(step, Content())
            case "write" | "truncate":
                self.seen[step.path].since.append(step)
            case "sync":
                self.seen[step.path].force()
            case "failed_sync":
                self.seen[step.path].since.clear()
            case "sync_folder":
                self._force_names(step.path)
            case _:
                self._rename(step, self.seen[step.path])

    def after_cut(self, chance: random.Random) -> dict[str, bytes]:
        """Return the files that a power cut at this moment leaves, in one of the many ways in which it may go."""
        keep = chance.choice(("none", "first", "any", "all"))
        names = dict(self.certain)
        # Journals keep the order of names: of those not forced, some first part is there.
        for step, content in self.names[: chance.choice((0, len(self.names), chance.randint(0, len(self.names))))]:
            _name(names, step, content)
        return {path: content.left(chance, keep) for path, content in names.items()}

    def _rename(self, step: Step, content: Content) -> None:
        self.names.append((step, content))
        _name(self.seen, step, content)

    def _force_names(self, folder: str) -> None:
        waiting = []
        for step, content in self.names:
            if folder in {_folder(step.path), _folder(step.to)}:
                _name(self.certain, step, content)
            else:
                waiting.append((step, content))
        self.names = waiting


def _name(names: dict[str, Content], step: Step, content: Content) -> None:
    if step.kind in {"move", "remove"}:
        names.pop(step.path, None)
    if step.kind != "remove":
        names[step.to or step.path] = content


def _write(content: bytearray, steps: Iterable[Step]) -> None:
    for step in steps:
        end = step.at + len(step.data)
        if step.kind == "truncate":
            del content[step.at :]
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        content[step.at : end] = step.data


def _torn(step: Step, chance: random.Random) -> Step:
    """Return a write of which perhaps only some first sectors arrived."""
    if len(step.data) <= SECTOR or chance.random() < 0.7:
        return step
    return step._replace(data=step.data[: SECTOR * chance.randint(1, len(step.data) // SECTOR)])


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent) if path else ""
