"""Pods of a Kubernetes cluster: a dump of `kubectl get pods -A -o json`, or a list of pods as CSV.

A pod holds what it was scheduled with from then until it is over, whatever its containers do meanwhile. Nodes in the
same dump (`kubectl get pods,nodes -A -o json`) tell which cards they have. Where the cluster counts a multiple of 1,000
CPUs per core, CPUs are counted in thousandths (millicores), else in whole ones, each pod's rounded up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from zoneinfo import ZoneInfo

import orjson
import polars as pl
from pydantic import AwareDatetime, BaseModel, ConfigDict

from base.period import day_start
from metering.clusters import Cluster
from metering.collectors.common import (
    TIME_MESSAGES,
    Judgement,
    LogFileError,
    Outcome,
    collected,
    evidence,
    first_of,
    impossible_times,
    unpack,
)
from metering.collectors.held import HELD_MESSAGES, Reading, allocation_problems, as_columns, with_held
from metering.collectors.pod_csv import read_pod_list
from metering.collectors.pods import PODS_SCHEMA, read_pod
from metering.collectors.quantities import pod_allocation
from metering.collectors.slurm_fields import ENDED_REVISION
from metering.collectors.tres import Allocation, GresRules
from metering.events import Collected

MILLICORES = 1000
_FINAL = {"Succeeded": "COMPLETED", "Failed": "FAILED"}
_LIVE = {"Running": "RUNNING", "Pending": "PENDING", "Unknown": "UNKNOWN"}

_MESSAGES = {
    **TIME_MESSAGES,
    **HELD_MESSAGES,
    "broken_row": "{broken}",
    "unknown_state": "pod {job} is in phase {phase!r}, which is unknown",
    "missing_end": "pod {job} is over ({phase}), but does not say since when; look up its containers",
}


class KubernetesOptions(BaseModel):
    """How a Kubernetes cluster shares its cards, and what a dump does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    as_of: AwareDatetime | None = None  # when the dump was made: until then its running pods are known to run
    shares: Literal["fractional", "whole"] = "fractional"  # whether a pod with a part of a card holds the part or all
    share_of: str = "nvidia.com/gpu"  # the resource whose cards can be shared
    share_resource: str = ""  # what states a pod's per cent of each card, such as nvidia.com/gpucores
    share_annotation: str = ""  # or its thousandths, such as alibabacloud.com/gpu-milli
    model_label: str = "nvidia.com/gpu.product"  # of nodes, or of a pod's node selector
    account_label: str = ""  # label of pods that names the account; "": the namespace
    user_label: str = ""  # label of pods that names the user; "": the service account
    queue_label: str = ""  # label of pods that names the partition; "": the scheduling queue is not known
    unix_start_time: int = 0  # of a CSV list, from which its times count
    skipped_namespaces: tuple[str, ...] = ()  # whose pods are no usage, such as kube-system
    cards_only: bool = False  # whether pods without cards are no usage


def read_kubernetes(
    payload: bytes, *, cluster: Cluster, timezone: ZoneInfo | None = None, options: KubernetesOptions | None = None
) -> Collected:
    """Read a dump of pods (JSON, told by its first byte, or CSV); its times are of UTC, so that no zone is needed."""
    del timezone
    settings = options or KubernetesOptions()
    body = unpack(payload)
    if body.lstrip()[:1] in {b"{", b"["}:
        pods, raw, nodes = _from_json(body, settings)
        reading = {}
    else:
        pods, raw = read_pod_list(body, settings.unix_start_time)
        nodes = 0
        reading = {"head": body.partition(b"\n")[0].decode(errors="replace").strip()}
    rows = with_held(pods, ("resources", "kind"), _reader(settings), cluster)
    rows = _numbers(rows.with_columns(as_columns()), cluster, settings)
    rows = rows.with_columns(verdict=first_of(_outcomes(cluster, settings)))
    judgement = Judgement(rows, _MESSAGES, f"kubernetes:{cluster.name}", cluster, raw)
    found = collected(judgement, _notes(rows, settings))
    no_usage = {**found.no_usage, **({"node": nodes} if nodes else {})}
    return Collected(found.events, found.rejected, no_usage, found.notes, reading)


def _from_json(body: bytes, settings: KubernetesOptions) -> tuple[pl.DataFrame, Callable[[int], bytes], int]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise LogFileError(f"the dump is no JSON ({error}); make it with kubectl get pods -A -o json") from error
    items = document.get("items", [document]) if isinstance(document, dict) else document
    if not isinstance(items, list):
        raise LogFileError("the dump holds no list of items; make it with kubectl get pods -A -o json")
    nodes = [item for item in items if isinstance(item, dict) and item.get("kind") == "Node"]
    kinds = {name: _label(node, settings.model_label) for node in nodes if (name := _name(node))}
    others = [item for item in items if not (isinstance(item, dict) and item.get("kind") == "Node")]
    pods = [read_pod(item, settings, kinds) for item in others]
    rows = [pod._replace(line=line) for line, pod in enumerate(pods)]
    frame = pl.DataFrame(rows, schema=PODS_SCHEMA, orient="row")

    def raw(line: int) -> bytes:
        item = others[line]
        # Read again alone, it must still know the cards of its node.
        model = kinds.get(rows[line].node, "")
        wrapped = {"type": "MODIFIED", "object": item} if isinstance(item, dict) and "object" not in item else item
        return orjson.dumps({**wrapped, "cardModel": model} if model else item)

    return frame, raw, len(nodes)


def _label(item: Mapping[str, Any], label: str) -> str:
    labels = _about(item).get("labels")
    return str(labels.get(label, "")) if isinstance(labels, dict) else ""


def _name(item: Mapping[str, Any]) -> str:
    return str(_about(item).get("name", ""))


def _about(item: Mapping[str, Any]) -> Mapping[str, Any]:
    about = item.get("metadata")
    return about if isinstance(about, dict) else {}


def _reader(settings: KubernetesOptions) -> Reading:
    def read(texts: Sequence[str], rules: GresRules) -> Allocation:
        resources, kind = texts
        return pod_allocation(orjson.loads(resources or b"{}"), kind, rules, whole_cards=settings.shares == "whole")

    return read


def _numbers(rows: pl.DataFrame, cluster: Cluster, settings: KubernetesOptions) -> pl.DataFrame:
    """Work out until when each pod is known to have held what it holds."""
    over = pl.col("phase").is_in(list(_FINAL)) | pl.col("deleted")
    as_of = pl.lit(int(settings.as_of.timestamp()) if settings.as_of else None, pl.Int64)
    known = pl.max_horizontal(pl.coalesce(as_of, "last_told"), "start_second")
    named = pl.col("phase").replace_strict({**_FINAL, **_LIVE}, default="", return_dtype=pl.String)
    # A list keeps the last phase of a pod that was deleted while it ran.
    state = pl.when(pl.col("deleted") & pl.col("phase").is_in(list(_LIVE))).then(pl.lit("DELETED")).otherwise(named)
    end = pl.when(over).then(pl.col("finished")).otherwise(known)
    return rows.with_columns(
        end_second=end,
        revision=end - pl.col("start_second") + _weight(over),
        ended=over,
        state=state,
        suspended_seconds=pl.lit(0, pl.Int64),
        cpus=_counted_cpus(cluster),
        evidence=evidence(
            pl.col("line"),
            **{name: pl.col(name) for name in ("namespace", "name", "node", "phase", "kind", "resources")},
            end_from=pl.col("reckoned"),
            time_limit_seconds=pl.col("time_limit_seconds"),
        ),
    )


def _weight(over: pl.Expr) -> pl.Expr:
    """Return what goes before how long a pod lasted: an end that is only reckoned gives way to one that is stated.

    A pod that is seen again after it was taken for gone goes before all that was said of it until then.
    """
    ended = pl.when(pl.col("reckoned") == "").then(ENDED_REVISION).otherwise(ENDED_REVISION // 2)
    return pl.when(over).then(ended).otherwise(0) + pl.col("times_gone") * (ENDED_REVISION * 4)


def _counted_cpus(cluster: Cluster) -> pl.Expr:
    """Return a pod's CPUs as the cluster counts them on the day it started: thousandths, or whole ones rounded up."""
    millicores = pl.col("cpus")
    counted = (millicores + MILLICORES - 1) // MILLICORES
    for entry in sorted(cluster.cpus_per_core, key=lambda entry: entry.effective_from):
        first = int(day_start(entry.effective_from, cluster.zone or ZoneInfo("UTC")).timestamp())
        fine = millicores if entry.cpus % MILLICORES == 0 else (millicores + MILLICORES - 1) // MILLICORES
        counted = pl.when(pl.col("start_second") >= first).then(fine).otherwise(counted)
    return counted


def _outcomes(cluster: Cluster, settings: KubernetesOptions) -> Sequence[Outcome]:
    never = pl.col("start_second").is_null()
    without = (pl.col("cards") == "") & pl.col("held_code").is_null()
    return [
        (pl.col("broken") != "", "broken_row"),
        (pl.col("namespace").is_in(list(settings.skipped_namespaces)), "-skipped_namespace"),
        (without & pl.lit(settings.cards_only), "-no_cards"),
        (pl.col("state") == "", "unknown_state"),
        (never & (pl.col("phase") == "Pending"), "-pending"),
        (never, "-never_started"),
        (pl.col("ended") & pl.col("finished").is_null(), "missing_end"),
        *impossible_times(),
        *allocation_problems(cluster),
    ]


def _notes(rows: pl.DataFrame, settings: KubernetesOptions) -> list[str]:
    running = rows.filter(pl.col("verdict").is_null(), ~pl.col("ended")).height
    if running and settings.as_of is None:
        return [
            f"{running} pod(s) run on: they are counted until they last told anything; say as_of when it was dumped"
        ]
    return []
