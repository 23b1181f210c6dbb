"""What ran, from the raw accounting files, computed a second way: standard library only, nothing of the project.

One row of `sacct -P` is one attempt. Of the rows of one attempt the latest counts; each attempt is cut at midnights of
the zones that matter, and what it held is counted in whole seconds.
"""

from __future__ import annotations

import csv
import gzip
import io
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, str]
Table = Mapping[str, Any]

NO_TIME = ("", "Unknown", "None", "N/A")
DEFAULT_CARDS = [{"gres": gres} for gres in ("gpu", "dcu", "npu", "mlu", "gcu")]
MILLI = 1000  # cards are counted in thousandths
ENDED = 2**40


@dataclass(frozen=True)
class Attempt:
    """One run of one job: what it held, from when to when."""

    cluster: str
    partition: str
    qos: str
    account: str
    user: str
    state: str
    start: int  # seconds since 1970 UTC
    end: int
    suspended: int
    cpus: int
    nodes: int
    cards: tuple[tuple[str, int], ...]  # thousandths by model


@dataclass(frozen=True)
class Use:
    """What the attempts of one kind held of one resource between two midnights, in seconds (cards × 1,000)."""

    day_start: int  # the instant from which it counts
    cluster: str
    partition: str
    qos: str
    account: str
    user: str
    resource: str  # cpu node wall card:<model> measure:<name>
    seconds: int


def read_rows(path: Path) -> list[Row]:
    """Read a `sacct -P` file; lines that do not have the header's columns are left out.

    Where the job's name is the last column, a bar in it belongs to the name.
    """
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8", errors="surrogateescape")
    lines = text.split("\n")
    header = lines[0].split("|")
    rows = []
    for line in lines[1:]:
        cells = line.split("|", len(header) - 1) if header[-1] == "JobName" else line.split("|")
        if len(cells) == len(header):
            rows.append(dict(zip(header, cells, strict=True)))
    return rows


def instant(text: str, zone: ZoneInfo) -> int | None:
    """Read a time of the log: seconds since 1970, or local time of the cluster's zone; None where there is none."""
    if text in NO_TIME:
        return None
    if text.isdigit():
        return int(text)
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


def span_seconds(text: str) -> int:
    """Read a duration, `[days-]hours:minutes:seconds` or plain seconds."""
    days, _, clock = text.rpartition("-")
    seconds = 0
    for part in (clock or "0").split(":"):
        seconds = seconds * 60 + int(part)
    return int(days or 0) * 86_400 + seconds


def allocated(row: Row) -> dict[str, str]:
    """Read AllocTRES, `cpu=4,gres/gpu:a100=2,mem=8000M`."""
    return dict(part.split("=", 1) for part in row["AllocTRES"].split(",") if "=" in part)


def cards_of(tres: Mapping[str, str], cluster: Table) -> tuple[tuple[str, int], ...]:
    """Count cards by model: the total is what was held; typed parts say which, the rest is the gres's own model."""
    models = {name.lower(): model for name, model in cluster.get("card_models", {}).items()}
    held: dict[str, int] = defaultdict(int)
    for card in cluster.get("cards", DEFAULT_CARDS):
        gres, unit = f"gres/{card['gres']}", card.get("thousandths", MILLI)
        typed = {name.split(":", 1)[1].lower(): int(n) for name, n in tres.items() if name.startswith(f"{gres}:")}
        for name, count in typed.items():
            held[models.get(name, name)] += count * unit
        untyped = int(tres.get(gres, sum(typed.values()))) - sum(typed.values())
        held[card.get("model", "unknown")] += max(untyped, 0) * unit
    return tuple(sorted((model, count) for model, count in held.items() if count))


def ran(row: Row, zone: ZoneInfo) -> bool:
    """Tell whether a row is an attempt that was started: no step, and on nodes of its own."""
    is_step = "." in row["JobID"] or "." in row["JobIDRaw"]
    on_nodes = row["NodeList"] not in ("", "None assigned")
    return not is_step and on_nodes and instant(row["Start"], zone) is not None and row["State"] != "REVOKED"


def attempt_of(row: Row, cluster: Table) -> Attempt:
    """Read one row. It counts from the later of Start and Submit, until End or as far as it says that it ran."""
    zone = ZoneInfo(cluster["timezone"])
    started, submitted = instant(row["Start"], zone), instant(row["Submit"], zone)
    if started is None or submitted is None:
        raise ValueError(f"job {row['JobIDRaw']} of {cluster['name']} has no Start or no Submit")
    suspended = span_seconds(row.get("Suspended", "0"))
    end = instant(row["End"], zone)
    tres = allocated(row)
    return Attempt(
        cluster=cluster["name"],
        partition=row["Partition"],
        qos=row["QOS"],
        account=row["Account"].lower(),
        user=row["User"],
        state=row["State"].split(" ")[0],
        start=max(started, submitted),
        end=end if end is not None else started + int(row["ElapsedRaw"]) + suspended,
        suspended=suspended,
        cpus=int(tres.get("cpu", row["NCPUS"])),
        nodes=int(tres.get("node", row["NNodes"])),
        cards=cards_of(tres, cluster),
    )


def revision(row: Row, zone: ZoneInfo) -> int:
    """Say how late a version of an attempt is: it ran longer, and one that ended is later than any that runs."""
    ended = instant(row["End"], zone) is not None
    return int(row["ElapsedRaw"]) + span_seconds(row.get("Suspended", "0")) + (ENDED if ended else 0)


def attempts(cluster: Table, files: Iterable[Path]) -> list[Attempt]:
    """Return the attempts of a cluster: of each (JobIDRaw, Submit) the latest row, whatever the order of the files."""
    zone = ZoneInfo(cluster["timezone"])
    latest: dict[tuple[str, int | None], tuple[int, int, tuple[str, ...], Attempt]] = {}
    for path in files:
        for row in read_rows(path):
            if ran(row, zone):
                attempt = attempt_of(row, cluster)
                key = (row["JobIDRaw"], instant(row["Submit"], zone))
                # Versions of one revision: the later end, then whatever a fixed order of the facts says.
                version = (revision(row, zone), attempt.end, tuple(map(str, vars(attempt).values())), attempt)
                if key not in latest or version[:3] > latest[key][:3]:
                    latest[key] = version
    return [version[3] for version in latest.values()]


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """Split a whole number by weights; units left over go to the largest remainders, earliest first."""
    whole = sum(weights)
    if not whole:
        return [total, *[0] * (len(weights) - 1)] if weights else []
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts


def midnights(zones: Iterable[ZoneInfo], first: int, last: int) -> list[int]:
    """Return the midnights of the zones from before one instant to after another, in order."""
    found = set()
    day = datetime.fromtimestamp(first, UTC).date() - timedelta(days=2)
    while day <= datetime.fromtimestamp(last, UTC).date() + timedelta(days=2):
        found |= {int(datetime.combine(day, time(0), tzinfo=zone).timestamp()) for zone in zones}
        day += timedelta(days=1)
    return sorted(found)


def pieces(attempt: Attempt, cuts: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Cut an attempt: yield the cut from which a piece counts, its seconds, and the suspended ones among them."""
    inside = [cut for cut in cuts if attempt.start < cut < attempt.end]
    borders = [attempt.start, *inside, attempt.end]
    lengths = [end - start for start, end in pairwise(borders)]
    opening = max(cut for cut in cuts if cut <= attempt.start)
    yield from zip([opening, *inside], lengths, share_out(attempt.suspended, lengths), strict=True)


def held(attempt: Attempt, seconds: int, suspended: int, measures: Iterable[Table]) -> Iterator[tuple[str, int]]:
    """Yield what a piece of an attempt held: suspended time comes off CPUs only."""
    base = {"cpu": attempt.cpus * (seconds - suspended), "node": attempt.nodes * seconds, "wall": seconds}
    yield from base.items()
    for model, count in attempt.cards:
        yield f"card:{model}", count * seconds
    for measure in measures:
        applies = {"always": True, "cards": bool(attempt.cards), "no_cards": not attempt.cards}[measure["when"]]
        here = attempt.cluster in (measure.get("clusters") or [attempt.cluster])
        if applies and here and attempt.partition in (measure.get("partitions") or [attempt.partition]):
            yield f"measure:{measure['name']}", base[measure["quantity"]]


def _cuts_near(run: Attempt, cuts: Sequence[int]) -> Sequence[int]:
    return cuts[bisect_right(cuts, run.start) - 1 : bisect_left(cuts, run.end)]


def usage(runs: Iterable[Attempt], zones: Iterable[ZoneInfo], measures: Sequence[Table]) -> list[Use]:
    """Add up what attempts held between midnights of the zones."""
    counted = [run for run in runs if run.end > run.start]
    if not counted:
        return []
    cuts = midnights(zones, min(run.start for run in counted), max(run.end for run in counted))
    sums: dict[tuple[int, str, str, str, str, str, str], int] = defaultdict(int)
    for run in counted:
        for cut, seconds, suspended in pieces(run, _cuts_near(run, cuts)):
            for resource, amount in held(run, seconds, suspended, measures):
                sums[cut, run.cluster, run.partition, run.qos, run.account, run.user, resource] += amount
    return [Use(*key, amount) for key, amount in sorted(sums.items()) if amount]


def local_day(second: int, zone: ZoneInfo) -> date:
    """Return the local day of an instant."""
    return datetime.fromtimestamp(second, zone).date()


def read_csv(path: Path) -> list[Row]:
    """Read a CSV file with a header."""
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
