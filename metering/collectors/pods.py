"""One pod of a Kubernetes dump, as far as it is metered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import orjson
import polars as pl

from metering.collectors.pod_events import Told, gone_at, second_of, told_of
from metering.collectors.quantities import SHARES, quantity

Item = Mapping[str, Any]
Amounts = dict[str, Fraction]
FINAL_PHASES = frozenset({"Succeeded", "Failed"})
MOST_TIMES_GONE = 127
_OPTIONAL = frozenset({"start_second", "finished", "last_told", "time_limit_seconds"})


class PodPolicy(Protocol):
    """Which labels and annotations of pods mean what."""

    @property
    def share_resource(self) -> str: ...  # noqa: D102
    @property
    def share_of(self) -> str: ...  # noqa: D102
    @property
    def share_annotation(self) -> str: ...  # noqa: D102
    @property
    def model_label(self) -> str: ...  # noqa: D102
    @property
    def account_label(self) -> str: ...  # noqa: D102
    @property
    def user_label(self) -> str: ...  # noqa: D102
    @property
    def queue_label(self) -> str: ...  # noqa: D102


class Pod(NamedTuple):
    """A pod: who, since when, what it holds, and until when it is known to hold it."""

    line: int = 0  # position in the dump, from 0
    id: str | None = None
    job: str = ""
    namespace: str = ""
    name: str = ""
    node: str = ""
    partition: str = ""
    qos: str = ""
    account: str = ""
    user: str = ""
    phase: str = ""
    start_second: int | None = None  # when it was scheduled
    finished: int | None = None
    last_told: int | None = None  # the latest instant that the pod itself states
    deleted: bool = False
    reckoned: str = ""  # how its end is known where neither it nor its containers state it
    times_gone: int = 0  # how often it was taken for gone before
    resources: str = ""  # JSON of quantities by resource
    kind: str = ""  # of its cards
    time_limit_seconds: int | None = None  # after which it is ended
    broken: str = ""  # why it cannot be read


PODS_SCHEMA = pl.Schema(
    {
        name: pl.Int64()
        if name in {"line", "times_gone", *_OPTIONAL}
        else pl.Boolean()
        if name == "deleted"
        else pl.String()
        for name in Pod._fields
    }
)


def read_pod(item: object, policy: PodPolicy, kinds: Mapping[str, str]) -> Pod:
    """Read one item of a dump; `kinds` says which cards each node has. What cannot be read is told in `broken`."""
    if not isinstance(item, dict) or item.get("kind", "Pod") != "Pod":
        return Pod(broken="this item is no pod; dump nothing but pods and nodes")
    name = ""
    try:
        told = told_of(item)
        name = _name(told.pod)
        return _with_end(_pod(told.pod, policy, kinds), told)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ArithmeticError) as error:
        return Pod(job=name, name=name, broken=f"pod {name!r} cannot be read ({error!r}); dump it again")


def _name(item: Item) -> str:
    about = item.get("metadata")
    return str(about.get("name", "")) if isinstance(about, dict) else ""


def _with_end(pod: Pod, told: Told) -> Pod:
    """Add what is told of a pod besides, above all when it went if it does not state that itself."""
    pod = pod._replace(times_gone=min(max(told.times_gone, 0), MOST_TIMES_GONE), kind=pod.kind or told.model)
    if not told.gone or pod.phase in FINAL_PHASES:
        return pod
    ends = _container_ends(told.pod.get("status") or {})
    if ends and None not in ends:
        return pod._replace(deleted=True, finished=max(end for end in ends if end is not None))
    end, reckoned = gone_at(told, last_told=pod.last_told)
    if end is not None and pod.start_second is not None:
        end = max(end, pod.start_second)
    return pod._replace(deleted=True, finished=end, reckoned=reckoned)


def _pod(item: Item, policy: PodPolicy, kinds: Mapping[str, str]) -> Pod:
    about, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    labels, node = about.get("labels") or {}, str(spec.get("nodeName") or "")
    namespace, name = str(about.get("namespace", "default")), str(about["name"])
    conditions = {str(c["type"]): c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    since = scheduled.get("lastTransitionTime") if scheduled.get("status") == "True" else status.get("startTime")
    asked = (spec.get("nodeSelector") or {}).get(policy.model_label, "")
    return Pod(
        id=str(about["uid"]),
        job=f"{namespace}/{name}",
        namespace=namespace,
        name=name,
        node=node,
        partition=str(labels.get(policy.queue_label, "")),
        qos=str(status.get("qosClass", "")),
        account=str(labels.get(policy.account_label, "")) if policy.account_label else namespace,
        user=str(labels.get(policy.user_label, "") if policy.user_label else spec.get("serviceAccountName", "")),
        phase=str(status.get("phase", "")),
        start_second=second_of(since) if since else None,
        finished=_finished(status, conditions.values()),
        last_told=max((second_of(text) for text in _instants(status)), default=None),
        resources=_effective(item, policy),
        kind=kinds.get(node) or str(asked),
        time_limit_seconds=int(limit) if (limit := spec.get("activeDeadlineSeconds")) else None,
    )


def _finished(status: Item, conditions: Iterable[Item]) -> int | None:
    """Return when the last container ended; of a pod that was evicted before any ran, when its state last changed."""
    ends = [end for end in _container_ends(status) if end is not None]
    if ends:
        return max(ends)
    return max((second_of(c["lastTransitionTime"]) for c in conditions if c.get("lastTransitionTime")), default=None)


def _container_ends(status: Item) -> list[int | None]:
    """Return when each container ended; None of one that did not."""
    states = [container.get("state") or {} for container in status.get("containerStatuses") or ()]
    return [second_of(state["terminated"]["finishedAt"]) if state.get("terminated") else None for state in states]


def _instants(value: object) -> Iterator[str]:
    """Yield the instants that a pod's status states."""
    if isinstance(value, dict):
        for name, part in value.items():
            if isinstance(part, str) and name in {"startTime", "lastTransitionTime", "startedAt", "finishedAt"}:
                yield part
            else:
                yield from _instants(part)
    elif isinstance(value, list):
        for part in value:
            yield from _instants(part)


def _effective(item: Item, policy: PodPolicy) -> str:
    """Return what the scheduler sets aside for a pod, as JSON of exact quantities in text.

    Pods of one kind ask for the same, so that each different request is worked out once.
    """
    spec = item["spec"]
    first = [(part.get("resources"), part.get("restartPolicy")) for part in spec.get("initContainers") or ()]
    together = [part.get("resources") for part in spec["containers"]]
    share = str((item["metadata"].get("annotations") or {}).get(policy.share_annotation, ""))
    asked = orjson.dumps([first, together, spec.get("overhead"), share], option=orjson.OPT_SORT_KEYS)
    return _set_aside(asked, policy.share_resource, policy.share_of, policy.share_annotation)


@lru_cache(maxsize=4096)
def _set_aside(asked: bytes, share_resource: str, share_of: str, share_annotation: str) -> str:
    """Add up a request: containers hold together.

    Those that prepare the pod hold one after the other, beside the side-cars begun before.
    """
    first, containers, overhead, share = orjson.loads(asked)
    sharing = _Sharing(share_resource, share_of, shared=bool(share_resource or share_annotation), share=share)
    together: Amounts = {}
    peak: Amounts = {}
    for resources, restart in first:
        amounts = _amounts(resources, sharing)
        if restart == "Always":
            together = _sum(together, amounts)
            peak = _larger(peak, together)
        else:
            peak = _larger(peak, _sum(together, amounts))
    for resources in containers:
        together = _sum(together, _amounts(resources, sharing))
    more = {name: quantity(str(text)) for name, text in (overhead or {}).items()}
    total = _sum(_larger(peak, together), more)
    said = {name: _text(amount) for name, amount in total.items() if amount}
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()


class _Sharing(NamedTuple):
    """How cards are shared, and the part of each that a pod asks for."""

    resource: str
    of: str
    shared: bool
    share: str


def _amounts(resources: Item | None, sharing: _Sharing) -> Amounts:
    """Return a container's amounts: what it requests, else its limits; of cards both are the same."""
    resources = resources or {}
    said = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    amounts = {str(name): quantity(str(text)) for name, text in said.items()}
    per_cent = amounts.pop(sharing.resource, None)
    devices = amounts.get(sharing.of, Fraction(0))
    # A container with whole cards beside one with a part of a card holds them whole.
    each = quantity(sharing.share) if sharing.share else Fraction(1000)
    if devices and sharing.shared:
        amounts[SHARES] = devices * (each if per_cent is None else per_cent * 10)
    return amounts


def _text(amount: Fraction) -> str:
    """Write an amount as a quantity; thousandths of thousandths are rounded up, as the scheduler does."""
    if amount.denominator == 1:
        return str(amount.numerator)
    return f"{-(-(amount * 1000).numerator // (amount * 1000).denominator)}m"


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return {name: one.get(name, Fraction(0)) + other.get(name, Fraction(0)) for name in {*one, *other}}


def _larger(one: Amounts, other: Amounts) -> Amounts:
    return {name: max(one.get(name, Fraction(0)), other.get(name, Fraction(0))) for name in {*one, *other}}
