"""One pod of a Kubernetes dump, as far as it is metered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import orjson
import polars as pl

from metering.collectors.quantities import SHARES, quantity

Item = Mapping[str, Any]
Amounts = dict[str, Fraction]
_OPTIONAL = frozenset({"start_second", "finished", "last_told"})


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
    resources: str = ""  # JSON of quantities by resource
    kind: str = ""  # of its cards
    broken: str = ""  # why it cannot be read


PODS_SCHEMA = pl.Schema(
    {
        name: pl.Int64() if name in {"line", *_OPTIONAL} else pl.Boolean() if name == "deleted" else pl.String()
        for name in Pod._fields
    }
)


def read_pod(item: object, policy: PodPolicy, kinds: Mapping[str, str]) -> Pod:
    """Read one item of a dump; `kinds` says which cards each node has. What cannot be read is told in `broken`."""
    if not isinstance(item, dict) or item.get("kind", "Pod") != "Pod":
        return Pod(broken="this item is no pod; dump nothing but pods and nodes")
    try:
        return _pod(item, policy, kinds)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        name = str((item.get("metadata") or {}).get("name", "")) if isinstance(item.get("metadata"), dict) else ""
        return Pod(job=name, name=name, broken=f"pod {name!r} cannot be read ({error!r}); dump it again")


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
        start_second=_second(since) if since else None,
        finished=_finished(status, conditions.values()),
        last_told=max((_second(text) for text in _instants(status)), default=None),
        resources=orjson.dumps(_effective(item, policy), option=orjson.OPT_SORT_KEYS).decode(),
        kind=kinds.get(node) or str(asked),
    )


def _second(text: str) -> int:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text} names no zone")
    return int(instant.timestamp())


def _finished(status: Item, conditions: Iterable[Item]) -> int | None:
    """Return when the last container ended; of a pod that was evicted before any ran, when its state last changed."""
    states = [container.get("state") or {} for container in status.get("containerStatuses") or ()]
    ends = [_second(state["terminated"]["finishedAt"]) for state in states if state.get("terminated")]
    if ends:
        return max(ends)
    return max((_second(c["lastTransitionTime"]) for c in conditions if c.get("lastTransitionTime")), default=None)


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


def _effective(item: Item, policy: PodPolicy) -> dict[str, str]:
    """Return what the scheduler sets aside for a pod, as exact quantities in text.

    Containers hold together; those that prepare the pod hold one after the other, beside the side-cars begun before.
    """
    spec = item["spec"]
    share = str((item["metadata"].get("annotations") or {}).get(policy.share_annotation, ""))
    together: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        amounts = _amounts(container, policy, share)
        if container.get("restartPolicy") == "Always":
            together = _sum(together, amounts)
            peak = _larger(peak, together)
        else:
            peak = _larger(peak, _sum(together, amounts))
    for container in spec["containers"]:
        together = _sum(together, _amounts(container, policy, share))
    overhead = {name: quantity(str(text)) for name, text in (spec.get("overhead") or {}).items()}
    total = _sum(_larger(peak, together), overhead)
    return {name: _text(amount) for name, amount in total.items() if amount}


def _amounts(container: Item, policy: PodPolicy, share_per_card: str) -> Amounts:
    """Return a container's amounts: what it requests, else its limits; of cards both are the same."""
    resources = container.get("resources") or {}
    said = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    amounts = {str(name): quantity(str(text)) for name, text in said.items()}
    per_cent = amounts.pop(policy.share_resource, None)
    devices = amounts.get(policy.share_of, Fraction(0))
    # A container with whole cards beside one with a part of a card holds them whole.
    each = quantity(share_per_card) if share_per_card else Fraction(1000)
    if devices and (policy.share_resource or policy.share_annotation):
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
