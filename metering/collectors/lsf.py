"""Accounting of LSF: `lsb.acct`, one record per line, fields between blanks, text in quotes with `""` for a quote.

Records vary in length: lists of hosts stand in their middle, each behind its number of entries.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import BaseModel, ConfigDict

from metering.clusters import Cluster
from metering.collectors.common import (
    TIME_MESSAGES,
    Judgement,
    Outcome,
    broken_text,
    collected,
    evidence,
    first_of,
    impossible_times,
    log_lines,
)
from metering.collectors.held import (
    HELD_MESSAGES,
    agreed,
    allocation_problems,
    as_columns,
    card_gres,
    cards_text,
    model_of,
    thousandths,
    with_held,
)
from metering.collectors.lsf_fields import lay_out
from metering.collectors.tres import Allocation, GresRules, TresError
from metering.events import Collected

_FINISH = "JOB_FINISH"
_REASONS = {"EVENT_ADRSV_FINISH": "reservation", "JOB_RESIZE": "resize"}
# Bits of a finished job's status, and why LSF ended it.
_DONE, _EXITED = 0x40, 0x20
_EXITS = {
    1: "PREEMPTED",
    5: "TIMEOUT",
    6: "DEADLINE",
    16: "OUT_OF_MEMORY",
    **dict.fromkeys((10, 11), "REQUEUED"),
    **dict.fromkeys((8, 9, 14, 15), "CANCELLED"),
}

_HOST = re.compile(r"(?:([0-9]{1,6})\*)?([^\s*]+)", re.ASCII)
_USAGE = re.compile(r"rusage\[([^\]]*)\]")
# What LSF itself calls cards: physical, exclusive, or shared ones.
_OF_CARDS = {"ngpus_physical": "gpu", "ngpus_excl_p": "gpu", "ngpus_excl_t": "gpu", "ngpus_shared": "gpu"}
_AMOUNT = re.compile(r"([A-Za-z_]\w*)=([0-9]{1,9}(?:\.[0-9]+)?)(?:/(host|task|job))?")
_CORES_PER_SLOT = re.compile(r"affinity\[\s*core\(\s*([0-9]{1,4})")
_GPU_MODEL = re.compile(r"gmodel=([\w.-]+)", re.ASCII)

_MESSAGES = {
    **TIME_MESSAGES,
    **HELD_MESSAGES,
    "broken_row": "line is no whole record of lsb.acct: a quote is not closed, or a list of hosts is cut short",
    "unknown_type": "record type {type} is unknown, and so is whether it tells of usage",
    "unknown_state": "job {job} has status {status}, which is neither done nor exited",
    "invalid_bytes": "job {job} has bytes that are no UTF-8 in its names; export it again as UTF-8",
    "resized_job": "job {job} was resized at second {resized}; work out by hand what it held before",
}


class LsfOptions(BaseModel):
    """How an LSF cluster counts what its log leaves open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    account_from: Literal["project", "queue", "app"] = "project"
    cards_per: Literal["host", "slot", "job"] = "host"  # of a request such as rusage[ngpus_physical=2] without a unit


def read_lsf(
    payload: bytes, *, cluster: Cluster, timezone: ZoneInfo | None = None, options: LsfOptions | None = None
) -> Collected:
    """Read an lsb.acct file; its times are seconds of UTC, so that no zone is needed."""
    del timezone
    settings = options or LsfOptions()
    log = log_lines(payload)
    comment = pl.col("text").str.starts_with("#")
    rows = _numbers(lay_out(log.lines.filter(~comment)), settings)

    def read(texts: Sequence[str], rules: GresRules) -> Allocation:
        return _held(texts, rules, settings.cards_per)

    rows = with_held(rows, ("hosts", "effective", "res_req"), read, cluster).with_columns(as_columns())
    rows = rows.with_columns(verdict=first_of(_outcomes(cluster)))
    judgement = Judgement(rows, _MESSAGES, f"lsf:{cluster.name}", cluster, log.raw)
    return collected(judgement, _notes(rows), header_lines=log.lines.filter(comment).height)


def _numbers(rows: pl.DataFrame, settings: LsfOptions) -> pl.DataFrame:
    """Work out when each attempt ran and how it ended."""
    index = pl.when(pl.col("index") > 0).then(pl.format("[{}]", "index")).otherwise(pl.lit(""))
    done, exited = (((pl.col("status") // bit) % 2) == 1 for bit in (_DONE, _EXITED))
    why = pl.col("exit_info").replace_strict(_EXITS, default="FAILED", return_dtype=pl.String)
    held = pl.col("event_time") - pl.col("start")
    # The run time leaves out what the job stood suspended; one that says more than was held is not of this attempt.
    suspended = pl.when(pl.col("run_time").is_between(0, held)).then(held - pl.col("run_time")).otherwise(0)
    return rows.with_columns(
        job=pl.concat_str(pl.col("job_id").cast(pl.String).fill_null(""), index.fill_null("")),
        start_second=pl.col("start"),
        end_second=pl.col("event_time"),
        suspended_seconds=suspended.fill_null(0),
        state=pl.when(done).then(pl.lit("COMPLETED")).when(exited).then(why).otherwise(pl.lit("")),
        partition=pl.col("queue").fill_null(""),
        account=pl.col(settings.account_from).fill_null(""),
    ).with_columns(
        # Numbers of jobs come round again after a million, so that the start tells attempts apart.
        id=pl.when(pl.col("type") == _FINISH).then(pl.format("{}:{}", "job", "start_second")),
        evidence=_evidence(),
    )


def _evidence() -> pl.Expr:
    names = ("submit", "project", "app", "job_name", "status", "exit_info", "hosts", "processors", "effective")
    return evidence(pl.col("line"), **{name: pl.col(name) for name in names})


def _outcomes(cluster: Cluster) -> Sequence[Outcome]:
    reason = pl.col("type").replace_strict(_REASONS, default=None, return_dtype=pl.String)
    # Dispatched and at once resized has no other time than its start.
    resized = (pl.col("resized") > pl.col("start")) & (pl.col("resized") < pl.col("event_time"))
    return [
        (pl.col("whole") & reason.is_not_null(), "-" + reason),
        (pl.col("whole") & (pl.col("type") != _FINISH), "unknown_type"),
        (~pl.col("whole") | ~pl.col("complete"), "broken_row"),
        (broken_text("user", "account", "partition"), "invalid_bytes"),
        (pl.col("start_second") == 0, "-never_started"),
        (pl.col("state") == "", "unknown_state"),
        *impossible_times(),
        (resized.fill_null(value=False), "resized_job"),
        *allocation_problems(cluster),
    ]


def _held(texts: Sequence[str], rules: GresRules, cards_per: str) -> Allocation:
    """Read the slots by host (`16*n1 16*n2`, or one entry per slot) and the cards that were reserved on them."""
    slots: Counter[str] = Counter()
    for entry in texts[0].split():
        match = _HOST.fullmatch(entry)
        if not match:
            raise TresError("bad_hosts", f"{entry!r} is no host such as 16*n1")
        slots[match[2]] += int(match[1] or 1)
    effective, requested = texts[1:]
    said = effective or requested
    cores = _CORES_PER_SLOT.search(said)
    times = {"host": len(slots), "task": slots.total(), "slot": slots.total(), "job": 1}
    cards = _cards(said, rules, times, cards_per)
    return Allocation(
        cpus=slots.total() * int(cores[1] if cores else 1) or None, nodes=len(slots), cards=cards_text(cards)
    )


def _cards(said: str, rules: GresRules, times: dict[str, int], cards_per: str) -> Counter[str]:
    statements: dict[str, Counter[str]] = {}
    for usage in _USAGE.findall(said):
        model = _GPU_MODEL.search(usage)
        for name, amount, unit in _AMOUNT.findall(usage):
            gres = card_gres(_OF_CARDS.get(name, name), rules)
            if gres:
                count = times[unit or cards_per] * Decimal(amount)
                kind = model_of(model[1] if model else "", gres, rules)
                statements[name] = statements.get(name, Counter()) + Counter({kind: thousandths(count, gres, rules)})
    return agreed(statements)


def _notes(rows: pl.DataFrame) -> list[str]:
    kept = rows.filter(pl.col("verdict").is_null())
    notes = []
    if unknown := kept.filter(pl.col("run_time").is_null()).height:
        notes.append(f"{unknown} record(s) do not say how long the job ran: time that it stood suspended is counted")
    if carded := kept.filter(pl.col("cards") != "").height:
        notes.append(f"cards of {carded} job(s) are those that its resource requirement reserves")
    return notes
