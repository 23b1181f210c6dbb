"""Accounting of Grid Engine: SGE and its successors (times in seconds), Univa Grid Engine (times in milliseconds).

A line has its fields between colons. A job gets a line per attempt, an array one per task, and a parallel job may get
one more per task of its parallel environment, which repeats what the job's own line says.
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
    number,
)
from metering.collectors.held import (
    HELD_MESSAGES,
    Reading,
    allocation_problems,
    as_columns,
    card_gres,
    cards_text,
    model_of,
    thousandths,
    with_held,
)
from metering.collectors.tres import Allocation, GresRules, TresError
from metering.events import Collected

FIELDS = (
    *("qname", "hostname", "group", "owner", "job_name", "job_number", "account", "priority", "submission_time"),
    *("start_time", "end_time", "failed", "exit_status", "ru_wallclock", "ru_utime", "ru_stime", "ru_maxrss"),
    *("ru_ixrss", "ru_ismrss", "ru_idrss", "ru_isrss", "ru_minflt", "ru_majflt", "ru_nswap", "ru_inblock"),
    *("ru_oublock", "ru_msgsnd", "ru_msgrcv", "ru_nsignals", "ru_nvcsw", "ru_nivcsw", "project", "department"),
    *("granted_pe", "slots", "task_number", "cpu", "mem", "io"),
)
# Times beyond it are milliseconds: in seconds it is the year 5138.
_MILLISECONDS_FROM = 100_000_000_000
# What `failed` says of an attempt that will be tried again: migrating, rescheduling, and reschedule by the user.
_REQUEUED = (24, 25, 26)

# Behind the category: io wait, the task of the parallel environment, peak memory.
_TAIL = r"^(.*?):[0-9.]+:([^:]*):[0-9.]+[KMGT]?(?::|$)"
_REQUEST = re.compile(r"(?:^|\s)-l\s+(\S+)")
_COUNT = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,3})?", re.ASCII)

_MESSAGES = {
    **TIME_MESSAGES,
    **HELD_MESSAGES,
    "broken_row": "line has {found} fields, or its job number, slots or times are no numbers; export it again",
    "invalid_bytes": "job {job} has bytes that are no UTF-8 in its names; export it again as UTF-8",
}


class SgeOptions(BaseModel):
    """How a Grid Engine cluster counts what its log only shows as a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cards_per: Literal["job", "slot"] = "job"  # what `-l gpu=2` asks for is two of: see the complex's `consumable`
    account_from: Literal["account", "project", "department", "group"] = "account"


def read_sge(
    payload: bytes, *, cluster: Cluster, timezone: ZoneInfo | None = None, options: SgeOptions | None = None
) -> Collected:
    """Read an accounting file of Grid Engine; its times are seconds or milliseconds of UTC, so no zone is needed."""
    del timezone
    settings = options or SgeOptions()
    log = log_lines(payload)
    comment = pl.col("text").str.starts_with("#")
    rows = _numbers(log.lines.filter(~comment), settings)
    rows = with_held(rows, ("slots", "granted_pe", "category"), _reader(settings), cluster).with_columns(as_columns())
    rows = rows.with_columns(verdict=first_of(_outcomes(cluster)))
    judgement = Judgement(rows, _MESSAGES, f"sge:{cluster.name}", cluster, log.raw)
    return collected(judgement, _notes(rows, settings), header_lines=log.lines.filter(comment).height)


def _numbers(lines: pl.DataFrame, settings: SgeOptions) -> pl.DataFrame:
    """Lay the lines out in fields and read their times."""
    # The category holds colons of its own, so that only what stands before it is counted from the left.
    split = pl.col("text").str.splitn(":", len(FIELDS) + 1).struct.rename_fields([*FIELDS, "rest"])
    found = pl.col("text").str.count_matches(":", literal=True) + 1
    rows = lines.select("line", found.alias("found"), split.alias("cells")).unnest("cells")
    times = {f"{name}_second": _second(name) for name in ("submission_time", "start_time", "end_time")}
    task = pl.when(number(pl.col("task_number")) > 0).then(pl.format(".{}", "task_number")).otherwise(pl.lit(""))
    failed, exit_status = number(pl.col("failed")), number(pl.col("exit_status"))
    well = (failed == 0) & (exit_status == 0)
    requeued = pl.when(failed.is_in(_REQUEUED)).then(pl.lit("REQUEUED"))
    state = requeued.when(well).then(pl.lit("COMPLETED")).otherwise(pl.lit("FAILED"))
    rows = rows.with_columns(
        **times,
        job=pl.concat_str(pl.col("job_number").fill_null(""), task.fill_null("")),
        # The category may hold colons of its own.
        category=pl.coalesce(pl.col("rest").str.extract(_TAIL, 1), pl.col("rest").str.extract(r"^([^:]*)")),
        pe_task=pl.col("rest").str.extract(_TAIL, 2),
        state=state,
    )
    return rows.with_columns(
        start_second=pl.col("start_time_second"),
        end_second=pl.col("end_time_second"),
        suspended_seconds=pl.lit(0, pl.Int64),
        id=pl.format("{}:{}", "job", "start_time_second"),
        partition=pl.col("qname"),
        user=pl.col("owner"),
        account=_said(settings.account_from),
        evidence=_evidence(),
    )


def _second(name: str) -> pl.Expr:
    read = number(pl.col(name))
    return pl.when(read >= _MILLISECONDS_FROM).then(read // 1000).otherwise(read)


def _said(name: str) -> pl.Expr:
    return pl.when(pl.col(name) == "NONE").then(pl.lit("")).otherwise(pl.col(name)).fill_null("")


def _evidence() -> pl.Expr:
    names = ("hostname", "job_name", "project", "department", "group", "granted_pe", "failed", "exit_status")
    said = {name: pl.col(name) for name in (*names, "ru_wallclock", "category")}
    return evidence(pl.col("line"), submitted=pl.col("submission_time_second"), **said)


def _outcomes(cluster: Cluster) -> Sequence[Outcome]:
    times = pl.any_horizontal(
        pl.col(f"{name}_second").is_null() for name in ("submission_time", "start_time", "end_time")
    )
    malformed = ~pl.col("job_number").str.contains(r"^[0-9]{1,12}$") | number(pl.col("slots")).is_null()
    return [
        ((pl.col("found") < len(FIELDS)) | malformed.fill_null(value=True) | times, "broken_row"),
        (broken_text("owner", "account", "partition"), "invalid_bytes"),
        (~pl.col("pe_task").fill_null("NONE").is_in(["NONE", ""]), "-step"),
        (pl.col("start_second") == 0, "-never_started"),
        *impossible_times(),
        *allocation_problems(cluster),
    ]


def _reader(settings: SgeOptions) -> Reading:
    def read(texts: Sequence[str], rules: GresRules) -> Allocation:
        slots, granted_pe, category = texts
        if not slots.isdecimal():
            return Allocation()
        cards = _cards(category, rules, int(slots) if settings.cards_per == "slot" else 1)
        # Only a job without a parallel environment is certain to sit on one host.
        alone = granted_pe in {"NONE", ""} or int(slots) == 1
        return Allocation(cpus=int(slots), nodes=int(alone), cards=cards_text(cards))

    return read


def _cards(category: str, rules: GresRules, times: int) -> Counter[str]:
    """Count the cards that `-l gpu=2,h_rt=3600` asks for; other resources are limits and no cards."""
    models: Counter[str] = Counter()
    for request in _REQUEST.findall(category):
        for entry in request.split(","):
            name, _, amount = entry.partition("=")
            gres = card_gres(name, rules)
            if not gres:
                continue
            if not _COUNT.fullmatch(amount):
                raise TresError("bad_cards", f"{entry} in the category is no number of cards")
            models[model_of("", gres, rules)] += times * thousandths(Decimal(amount), gres, rules)
    return models


def _notes(rows: pl.DataFrame, settings: SgeOptions) -> list[str]:
    kept = rows.filter(pl.col("verdict").is_null())
    notes = []
    if unplaced := kept.filter(pl.col("nodes") == 0).height:
        notes.append(f"{unplaced} parallel job(s) do not say on how many hosts they ran: their node-hours are 0")
    if carded := kept.filter(pl.col("cards") != "").height:
        notes.append(f"cards of {carded} job(s) are counted as requested, per {settings.cards_per} (cards_per)")
    return notes
