"""Slurm's accounting as JSON, of `sacct --json` or of slurmrestd: the same jobs as `sacct -P`, and the same events.

What the numbers look like changes from version to version of Slurm's data parser: some are plain, others stand as
`{"set": true, "infinite": false, "number": 5}`, and a state may be a word or a list of words. The steps of jobs are
passed over.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson

from metering.clusters import Cluster
from metering.collectors.common import unpack
from metering.collectors.slurm import SEPARATOR, read_sacct
from metering.collectors.slurm_layout import SacctFileError
from metering.collectors.slurm_rows import BYTE_ORDER_MARK, GZIP_MAGIC
from metering.events import Collected

Job = Mapping[str, Any]

COLUMNS: Final = (
    *("JobID", "JobIDRaw", "Cluster", "Account", "User", "Partition", "QOS", "Submit", "Start", "End"),
    *("ElapsedRaw", "Suspended", "NCPUS", "NNodes", "NodeList", "AllocTRES", "State", "ExitCode", "TimelimitRaw"),
    "JobName",
)
# Beyond these Slurm means "not set" or "without limit".
NO_VALUE = 0xFFFFFFFE
NO_VALUES = frozenset({NO_VALUE, NO_VALUE + 1, 2**64 - 2, 2**64 - 1})
# Words beside a state that say more than it does, as Slurm itself shows one word: the first of these.
TELLING = (
    "COMPLETING",
    "CONFIGURING",
    "REVOKED",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "RESIZING",
)
# A name may hold anything; a row may not run on over the next line, nor hold more columns than it has.
_HARMLESS = str.maketrans({"\n": "␊", "\r": "␍", SEPARATOR: "␟"})


def read_slurm_file(
    payload: bytes,
    *,
    cluster: Cluster,
    timezone: ZoneInfo | None = None,
    columns: Sequence[str] | None = None,
    delimiter: str = "|",
) -> Collected:
    """Read a file of `sacct -P` or of `sacct --json`, whichever it is."""
    if _is_json(payload):
        return read_sacct_json(payload, cluster=cluster)
    return read_sacct(payload, cluster=cluster, timezone=timezone, columns=columns, delimiter=delimiter)


def _is_json(payload: bytes) -> bool:
    # sacct's text begins with the name of a column, or with a number.
    beginning = payload[:64]
    if payload.startswith(GZIP_MAGIC):
        with suppress(zlib.error):
            beginning = zlib.decompressobj(31).decompress(payload[:4096], 64)
    return beginning.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] == b"{"


def read_sacct_json(payload: bytes, *, cluster: Cluster) -> Collected:
    """Read one answer of `sacct --json` or slurmrestd (plain or gzip); every job is kept, without usage, or refused."""
    collected = read_sacct(sacct_text(jobs_of(payload)), cluster=cluster, delimiter=SEPARATOR)
    return replace(collected, notes=())  # no name can pass for a row here


def jobs_of(payload: bytes) -> Sequence[Job]:
    """Return the jobs of an answer, or refuse one that is not whole or reports an error."""
    try:
        said = orjson.loads(unpack(payload))
    except orjson.JSONDecodeError as error:
        raise SacctFileError(f"the file is no JSON ({error}); was it cut off?") from error
    jobs = said.get("jobs") if isinstance(said, dict) else None
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise SacctFileError("there is no list of jobs in the file; ask for it with sacct --json or slurmdb/…/jobs")
    if errors := said.get("errors"):
        raise SacctFileError(f"Slurm reports errors, so jobs may be missing: {str(errors)[:300]}; ask again")
    return jobs


def sacct_text(jobs: Iterable[Job]) -> bytes:
    """Write jobs as `sacct -P` would, with a header line and a delimiter that no cell holds."""
    rows = (SEPARATOR.join(cell.translate(_HARMLESS) for cell in _cells(job)) for job in jobs)
    return "\n".join([SEPARATOR.join(COLUMNS), *rows]).encode(errors="replace")


def _cells(job: Job) -> Iterator[str]:
    times = _part(job, "time")
    held = dict(_tres(_part(job, "tres").get("allocated")))
    yield from (_job_id(job), _text(job.get("job_id")))
    yield from (_text(job.get(name)) for name in ("cluster", "account", "user", "partition", "qos"))
    yield from (_text(times.get(name)) for name in ("submission", "start", "end", "elapsed"))
    yield _text(times.get("suspended")) or "0"
    yield held.get("cpu") or _text(_part(job, "required").get("CPUs"))
    yield _text(job.get("allocation_nodes"))
    yield _text(job.get("nodes"))
    yield ",".join(f"{name}={count}" for name, count in held.items())
    yield _state(_part(job, "state").get("current"))
    yield _exit_code(_part(job, "exit_code"))
    yield _text(times.get("limit"))
    yield _text(job.get("name"))


def _part(job: Job, name: str) -> Job:
    part = job.get(name)
    return part if isinstance(part, dict) else {}


def _text(value: object) -> str:
    """Write a value as a cell; what is not set is empty."""
    if isinstance(value, str):
        return value
    number = _number(value)
    return "" if number is None else str(number)


def _number(value: object) -> int | None:
    """Return a number in any of the forms that it has; None for one that is not set or without limit."""
    if isinstance(value, dict):
        usable = value.get("set") and not value.get("infinite")
        return _number(value.get("number")) if usable else None
    whole = isinstance(value, int) and not isinstance(value, bool) and value not in NO_VALUES
    return int(str(value)) if whole else None


def _job_id(job: Job) -> str:
    array, het = _part(job, "array"), _part(job, "het")
    task, offset = _number(array.get("task_id")), _number(het.get("job_offset"))
    if leader := _number(array.get("job_id")):
        return f"{leader}_{task}" if task is not None else f"{leader}_[{_text(array.get('task'))}]"
    if leader := _number(het.get("job_id")):
        return f"{leader}+{offset or 0}"
    return _text(job.get("job_id"))


def _tres(entries: object) -> Iterator[tuple[str, str]]:
    for entry in entries if isinstance(entries, list) else ():
        count = _number(entry.get("count"))
        if count is not None:
            name = "/".join(filter(None, (entry.get("type"), entry.get("name"))))
            yield name, f"{count}M" if name == "mem" else str(count)


def _state(current: object) -> str:
    words = [str(word).upper() for word in (current if isinstance(current, list) else [current or ""])]
    return next((word for word in TELLING if word in words), words[0] if words else "")


def _exit_code(said: Job) -> str:
    signal = _part(said, "signal")
    return f"{_number(said.get('return_code')) or 0}:{_number(signal.get('id', signal.get('signal_id'))) or 0}"
