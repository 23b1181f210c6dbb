"""What is asked of sacct, and its answer cut into rows."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

# JobName comes last: it is the only free text, and may hold newlines.
FIELDS = (
    *("JobID", "JobIDRaw", "DBIndex", "Cluster", "Account", "User", "UID", "Partition", "QOS", "Submit", "Start"),
    *("End", "ElapsedRaw", "Suspended", "NCPUS", "NNodes", "NodeList", "AllocTRES", "State", "ExitCode"),
    *("TimelimitRaw", "JobName"),
)
DAY, HOUR = 86_400, 3600

Window = tuple[int, int]


class CollectError(Exception):
    """Something that is in the way; the message says what, and what to do. Nothing is lost by it."""


@dataclass(frozen=True)
class Slurm:
    """The cluster that is asked about, and where Slurm's programs lie."""

    cluster: str
    programs: str = ""  # "": wherever the shell finds them
    timeout_seconds: int = 600

    def program(self, name: str) -> str:
        """Return where a program lies."""
        return str(Path(self.programs) / name) if self.programs else name


def stamp(second: int) -> str:
    """Write an instant as Slurm reads it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def sacct_command(slurm: Slurm, window: Window, delimiter: str) -> list[str]:
    """Return the question: every attempt of every user that was there in the window, in full, as it stands now."""
    return [
        *(slurm.program("sacct"), "--allusers", "--allocations", "--duplicates", "--noheader", "--parsable2"),
        *("--noconvert", f"--clusters={slurm.cluster}", f"--delimiter={delimiter}"),
        *(f"--starttime={stamp(window[0])}", f"--endtime={stamp(window[1])}", f"--format={','.join(FIELDS)}"),
    ]


def header(delimiter: str) -> bytes:
    """Return the line that says which columns the rows have."""
    return delimiter.join(FIELDS).encode() + b"\n"


def rows_of(slurm: Slurm, window: Window, delimiter: str) -> Iterator[bytes]:
    """Yield the rows of a window; a row runs on over lines without the delimiter, which nobody can guess.

    Raises a `CollectError` at the end where the answer is not whole.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603 - Slurm's own program, with arguments of ours
                sacct_command(slurm, window, delimiter),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            raise CollectError(
                f"sacct cannot be started ({error}); run this where it works, or say --programs"
            ) from error
        late = Timer(slurm.timeout_seconds, process.kill)
        late.daemon = True
        late.start()
        try:
            yield from _joined(process.stdout or iter(()), delimiter.encode())
            code = process.wait()
        finally:
            late.cancel()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if code:
            errors.seek(0)
            said = errors.read(2000).decode(errors="replace").strip() or f"no answer in {slurm.timeout_seconds} s"
            raise CollectError(f"sacct failed for {stamp(window[0])} to {stamp(window[1])} (code {code}): {said}")


def _joined(lines: Iterable[bytes], mark: bytes) -> Iterator[bytes]:
    row = b""
    for line in lines:
        if mark in line and row:
            yield row
            row = b""
        row += line
    if row:
        yield row if row.endswith(b"\n") else row + b"\n"


def environment() -> dict[str, str]:
    """Return an environment in which Slurm's programs read and write times as UTC."""
    return {**os.environ, "TZ": "UTC", "LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}


def longest_limit(slurm: Slurm) -> int | None:
    """Return the longest time limit of the partitions in seconds; None where one has none, or Slurm does not say."""
    command = [slurm.program("sinfo"), "--noheader", f"--clusters={slurm.cluster}", "--format=%l"]
    try:
        done = subprocess.run(command, env=environment(), capture_output=True, timeout=60, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    limits = [line for line in done.stdout.decode().split("\n") if line and not line.startswith("CLUSTER")]
    seconds = [duration(limit.strip()) for limit in limits]
    return max(seconds, default=None) if None not in seconds else None  # type: ignore[type-var]


def duration(text: str) -> int | None:
    """Read seconds, or `[D-][HH:]MM:SS` as Slurm writes durations; None for anything else."""
    match = re.fullmatch(r"(?:(\d{1,6})-)?(?:(\d{1,6}):)?(\d{1,6}):(\d\d)(?:\.\d+)?", text, re.ASCII)
    if match is None:
        return int(text) if re.fullmatch(r"\d{1,15}", text, re.ASCII) else None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
