"""The collector's command line: `hourbook collect slurm`, or the one file on a login node."""

from __future__ import annotations

import argparse
import calendar
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .asking import DAY, CollectError, Slurm
from .sending import Server
from .spool import Spool
from .turns import Collector, say
from .windows import Rhythm

KEY_VARIABLE = "HOURBOOK_API_KEY"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": DAY}
_SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parser(program: str = "hourbook collect slurm") -> argparse.ArgumentParser:
    """Return what the command takes."""
    words = argparse.ArgumentParser(
        prog=program,
        description="Ask sacct for a cluster's jobs, keep them on disk, send them to Hourbook; run where sacct works",
        epilog=f"The key, of `hourbook key create --role collector`, is read from ${KEY_VARIABLE} or --key-file. "
        f"Example: {program} --cluster hpc1 --server https://billing.example.cn --key-file key",
    )
    add = words.add_argument
    add("--cluster", required=True, help="as Slurm (ClusterName) and Hourbook call it")
    add("--server", required=True, metavar="URL", help="as https://billing.example.cn")
    add("--key-file", type=Path, metavar="FILE", help="holds the key, readable by you only")
    add("--spool", type=Path, metavar="FOLDER", help="default ./hourbook-spool-CLUSTER")
    add("--once", action="store_true", help="one turn; the exit code is 0 only if everything arrived")
    add("--interval", type=seconds, default=300, metavar="TIME", help="between two turns; default 5m")
    add(
        "--since",
        type=instant,
        metavar="DAY",
        help="ask from this day (UTC) on, as 2026-11-01, whatever was sent before",
    )
    add("--overlap", type=seconds, default=Rhythm.overlap, metavar="TIME", help="asked again each turn; default 2h")
    add(
        "--lookback",
        type=seconds,
        metavar="TIME",
        help="asked again by each sweep; default twice the longest time limit",
    )
    add("--sweep-every", type=seconds, default=Rhythm.sweep_every, metavar="TIME", help="default 6h")
    add("--running-every", type=seconds, default=900, metavar="TIME", help="between two words of a running job; 15m")
    add("--max-spool", type=size, default=2 * 2**30, metavar="BYTES", help="at most so much on disk; default 2G")
    add("--programs", default="", metavar="FOLDER", help="where sacct and sinfo lie")
    add("--timeout", type=seconds, default=600, metavar="TIME", help="for one answer of sacct; default 10m")
    add("--ca-file", default="", metavar="FILE", help="the certificates to trust")
    return words


def run(arguments: Sequence[str] | None = None, program: str = "hourbook collect slurm") -> int:
    """Collect as told; return the exit code."""
    asked = parser(program).parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        collector = collector_for(asked)
        collector.spool.take()
        if asked.once:
            return 0 if collector.turn(int(time.time())) else 1
        collector.run(asked.interval)
    except (CollectError, OSError) as error:
        say(f"refused: {error}")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def collector_for(asked: argparse.Namespace) -> Collector:
    """Return a collector that does what the arguments ask."""
    if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", asked.server):
        raise CollectError(f"{asked.server!r} is no address; write it as https://billing.example.cn")
    if asked.server.startswith("http://") and not re.match(r"http://(127\.|localhost[:/]?|\[::1\])", asked.server):
        say("the key and all rows travel unencrypted: use https")
    rhythm = Rhythm(asked.overlap, asked.lookback or Rhythm.lookback, asked.sweep_every, max(1, asked.running_every))
    return Collector(
        slurm=Slurm(asked.cluster, asked.programs, asked.timeout),
        server=Server(asked.server, key_of(asked.key_file), asked.cluster, asked.ca_file),
        spool=Spool(asked.spool or Path(f"hourbook-spool-{asked.cluster}")),
        rhythm=rhythm,
        most_bytes=asked.max_spool,
        since=asked.since,
        lookback_given=asked.lookback is not None,
    )


def key_of(file: Path | None) -> str:
    """Return the key from its file or the environment; never from the arguments, which every user can read."""
    if file is not None and file.stat().st_mode & 0o077:
        raise CollectError(f"{file} can be read by others: chmod 600 {file}")
    key = file.read_text(encoding="ascii").strip() if file is not None else os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise CollectError(
            f"there is no key: set {KEY_VARIABLE} or say --key-file (hourbook key create --role collector)"
        )
    return key


def seconds(text: str) -> int:
    """Read a time such as 90, 15m, 2h or 30d."""
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", text, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write it as 90s, 15m, 2h or 30d")
    return int(match[1]) * _UNITS[match[2]]


def size(text: str) -> int:
    """Read a size such as 500M or 2G."""
    match = re.fullmatch(r"(\d{1,12})([KMGT]?)", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it as 500M or 2G")
    return int(match[1]) * _SIZES[match[2]]


def instant(text: str) -> int:
    """Read the beginning of a day in UTC."""
    try:
        return calendar.timegm(time.strptime(text, "%Y-%m-%d"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day; write it as 2026-11-01") from None
