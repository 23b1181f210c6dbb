"""Collecting pods from a Kubernetes cluster's API: what runs, what ended, and what vanished between two looks.

A look is a watch from where the last list left off, and a new list. What the watch tells of pods that came and went is
thereby not lost; a pod that is not listed any more, and was not seen to go, is ended as far as it is known. Pods that
hold something are remembered in the database, committed together with what was recorded of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import orjson
from sqlmodel import Session

from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.importing import OtherLog, accept_in, catalog_of
from hourbook.kube_access import KubeAccess
from hourbook.kube_api import HistoryGoneError, KubeApi, connected
from hourbook.settings import Home
from metering import store as metering
from metering.clusters import Cluster
from metering.collectors.kubernetes import KubernetesOptions
from metering.collectors.pods import FINAL_PHASES
from metering.events import Collected
from metering.store import BatchReceipt, KnownPodRow, LogCursorRow

PODS, NODES = "/api/v1/pods", "/api/v1/nodes"
# A pod that runs on is recorded again this often; one that changed, at once.
RESTATE_SECONDS = 300
# One that was taken for gone is remembered so long, should it be seen again.
REMEMBER = timedelta(days=30)
# What a watch tells at once happened before it began.
CATCHING_UP = timedelta(seconds=2)

Item = Mapping[str, Any]


@dataclass(frozen=True)
class PodSource:
    """A cluster whose pods are collected."""

    log: OtherLog
    access: KubeAccess

    @property
    def source(self) -> str:
        """Under which name it is remembered what was seen."""
        return f"kubernetes:{self.log.cluster}"


@dataclass
class PodsPolled:
    """What one look found."""

    receipts: list[BatchReceipt] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    pods: int = 0  # listed


@dataclass(frozen=True)
class _Before:
    """What is known from the look before."""

    version: str = ""
    seen_at: datetime | None = None  # of the last list
    stated_at: int = 0  # when running pods were last recorded
    pods: Mapping[str, KnownPodRow] = field(default_factory=dict)


@dataclass
class _Look:
    """What a look saw: pods by uid as they were last told of, and those that were seen to go, with the instant."""

    began: datetime
    listing: datetime  # when the list was asked for
    ended: datetime  # and when it had come
    pods: dict[str, Item] = field(default_factory=dict)
    gone: dict[str, datetime] = field(default_factory=dict)
    caught_up: set[str] = field(default_factory=set)  # of the gone: those told of when a watch began
    listed: set[str] = field(default_factory=set)
    models: dict[str, str] = field(default_factory=dict)  # cards by node
    version: str = ""


def poll_pods(home: Home, source: PodSource, *, watch_seconds: int = 1) -> PodsPolled:
    """Watch for so long, list, and record what is new; an interrupted look records nothing and is made up for."""
    before = _before(home, source)
    polled = PodsPolled()
    with connected(source.access) as api:
        began = home.now()
        look = _Look(began, began, began)
        if before.version:
            try:
                _watch(home, api, before.version, watch_seconds, look)
            except HistoryGoneError:
                since = before.seen_at.isoformat(timespec="seconds") if before.seen_at else "then"
                polled.problems.append(
                    f"{source.access.server} no longer knows what changed since {since}: pods that came and went "
                    "unseen until now are not recorded; look more often"
                )
        _list(home, api, look, _settings(source))
    polled.pods = len(look.listed)
    receipt = _record(home, source, before, look)
    polled.receipts += [receipt] if receipt else []
    return polled


def _before(home: Home, source: PodSource) -> _Before:
    with read_session(home.engine) as session:
        cursors = metering.log_cursors(session, source.source)
        pods = metering.known_pods(session, source.source)
        session.expunge_all()
    if not cursors:
        return _Before(pods=pods)
    said = orjson.loads(cursors[0].position)
    return _Before(said["version"], cursors[0].read_at, said["stated_at"], pods)


def _watch(home: Home, api: KubeApi, version: str, seconds: int, look: _Look) -> None:
    for event in api.watch(PODS, version, seconds):
        pod, now = event.get("object") or {}, home.now()
        uid = _uid(pod)
        look.pods[uid] = pod
        look.gone.pop(uid, None)
        if event.get("type") == "DELETED":
            look.gone[uid] = now
            if now - look.began < CATCHING_UP:
                look.caught_up.add(uid)


def _list(home: Home, api: KubeApi, look: _Look, settings: KubernetesOptions) -> None:
    nodes, _ = api.list_all(NODES)
    look.models = {node["metadata"]["name"]: _label(node, settings.model_label) for node in nodes}
    look.listing = home.now()
    pods, look.version = api.list_all(PODS)
    look.ended = home.now()
    for pod in pods:
        look.pods[_uid(pod)] = pod
        look.gone.pop(_uid(pod), None)
        look.listed.add(_uid(pod))


def _record(home: Home, source: PodSource, before: _Before, look: _Look) -> BatchReceipt | None:
    """Commit what a look saw, together with what is known of each pod from now on."""
    restating = int(look.listing.timestamp()) - before.stated_at >= RESTATE_SECONDS
    items, known = [], []
    for uid in sorted({*look.pods, *(uid for uid, row in before.pods.items() if row.status == "held")}):
        item, row = _told(source.source, uid, before, look)
        running_on = restating and row.status == "held"
        if item is not None and (running_on or _changed(row, before.pods.get(uid))):
            items.append(item)
        known.append(row)
    forgotten = _forgotten(before, look)
    payload = orjson.dumps({"kind": "List", "items": items})
    collected = _collected(home, source, payload, look) if items else None
    said = {"version": look.version, "stated_at": _stated_at(before, look, restating=restating)}
    cursor = LogCursorRow(
        source=source.source,
        path=source.access.server,
        marks="",
        read_bytes=0,
        read_lines=0,
        head_bytes=0,
        head_digest="",
        tail_digest="",
        position=orjson.dumps(said).decode(),
        read_at=look.listing,
    )

    def work(session: Session) -> BatchReceipt | None:
        metering.save_known_pods(session, [row for row in known if row.uid not in forgotten])
        metering.forget_pods(session, source.source, forgotten)
        metering.save_log_cursor(session, cursor)
        receipt = None
        if collected is not None and collected.rows:
            origin = f"{source.access.server} {look.listing:%Y-%m-%dT%H:%M:%SZ}"
            receipt = accept_in(session, home, payload, collected, kind="kubernetes", origin=origin)
        crash_point("collect:before_commit")
        return receipt

    receipt = run_write(home.engine, work)
    crash_point("collect:after_commit")
    return receipt


def _collected(home: Home, source: PodSource, payload: bytes, look: _Look) -> Collected:
    name = source.log.cluster
    options = _settings(source).model_copy(update={"as_of": look.listing.replace(microsecond=0)})
    cluster = catalog_of(home).clusters.get(name) or Cluster(name=name)
    return source.log.collector.read(payload, cluster=cluster, options=options)


def _told(source: str, uid: str, before: _Before, look: _Look) -> tuple[Item | None, KnownPodRow]:
    """Return what is told of a pod now, if there is anything to tell, and what is known of it from now on."""
    was = before.pods.get(uid)
    remembered = orjson.loads(was.body) if was is not None and was.body else {}
    pod = look.pods.get(uid) or remembered.get("object") or {}
    model = look.models.get((pod.get("spec") or {}).get("nodeName") or "", "") or str(remembered.get("cardModel", ""))
    times_gone = was.times_gone if was is not None else 0
    item = {"type": "MODIFIED", "object": _bare(pod), "timesGone": times_gone, "cardModel": model}
    row = KnownPodRow(
        source=source,
        uid=uid,
        status="held",
        version=str(pod.get("metadata", {}).get("resourceVersion", "")),
        body=orjson.dumps(item).decode(),
        times_gone=times_gone,
        changed_at=look.ended,
    )
    if not (pod.get("spec") or {}).get("nodeName"):
        row.status, row.body = "over", ""
        return None, row  # it holds nothing yet, or never did
    if (pod.get("status") or {}).get("phase") in FINAL_PHASES:
        row.status, row.body = "over", ""
    elif uid not in look.listed:
        item |= {"type": "DELETED", **_when_it_went(uid, before, look)}
        row.status, row.body, row.times_gone = "gone", "", times_gone + 1
    return item, row


def _when_it_went(uid: str, before: _Before, look: _Look) -> dict[str, str]:
    """Return between which instants a pod went: one that was seen to go, went then."""
    gone_by = look.gone.get(uid, look.ended)
    seen_to_go = uid in look.gone and uid not in look.caught_up
    seen = gone_by if seen_to_go else before.seen_at
    return {"goneBy": _text(gone_by), **({"lastSeen": _text(seen)} if seen else {})}


def _changed(row: KnownPodRow, was: KnownPodRow | None) -> bool:
    """Tell whether there is something to record at once: not of a pod whose end is, nor of one that only runs on."""
    return was is None or (was.status, was.version) != (row.status, row.version)


def _forgotten(before: _Before, look: _Look) -> set[str]:
    """Return the pods of which nothing more is to come."""
    over = {uid for uid, row in before.pods.items() if row.status == "over" and uid not in look.listed}
    old = {
        uid
        for uid, row in before.pods.items()
        if row.status == "gone" and uid not in look.pods and look.ended - row.changed_at > REMEMBER
    }
    return over | old


def _stated_at(before: _Before, look: _Look, *, restating: bool) -> int:
    return int(look.listing.timestamp()) if restating else before.stated_at


def _settings(source: PodSource) -> KubernetesOptions:
    return cast("KubernetesOptions", source.log.options) if source.log.options else KubernetesOptions()


def _uid(pod: Item) -> str:
    return str(pod["metadata"]["uid"])


def _label(node: Item, label: str) -> str:
    return str((node["metadata"].get("labels") or {}).get(label, ""))


def _bare(pod: Item) -> dict[str, Any]:
    """Leave out who last wrote which field: it is long, and no usage."""
    about = {name: part for name, part in (pod.get("metadata") or {}).items() if name != "managedFields"}
    return {"kind": "Pod", **pod, "metadata": about}


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="seconds")
