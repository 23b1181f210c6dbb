"""Pods of a Kubernetes cluster: a dump of kubectl, and a list as CSV."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import pytest

from metering.clusters import CardGres, Cluster, CpusPerCore
from metering.collectors.common import LogFileError
from metering.collectors.kubernetes import KubernetesOptions, read_kubernetes
from metering.collectors.quantities import quantity
from metering.collectors.tres import TresError
from metering.events import Collected

from .collecting import hours_in_all, only, quantities, refusal, said, statuses

AI = Cluster(name="ai1")
MILLICORES = Cluster(name="ai1", cpus_per_core=(CpusPerCore(cpus=1000),))
START = 1_795_276_800
AS_OF = KubernetesOptions(as_of=datetime.fromtimestamp(START + 7200, tz=UTC))


def at(second: int) -> str:
    return datetime.fromtimestamp(second, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Said = dict[str, Any]


def container(gpus: int = 0, cpu: str = "2", limits: Said | None = None, **more: str) -> Said:
    cards = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    resources = {"requests": {"cpu": cpu}, "limits": {"memory": "1Gi", **cards, **(limits or {})}}
    return {"name": "c", "resources": resources, **more}


def pod(phase: str = "Succeeded", *, gpus: int = 0, ended: int | None = START + 3600, **more: Said) -> Said:
    """Return a pod that was scheduled at START and ran for an hour, but for what is stated."""
    state = {"terminated": {"finishedAt": at(ended)}} if ended else {"running": {"startedAt": at(START + 20)}}
    return {
        "kind": "Pod",
        "metadata": {"name": "train", "namespace": "vision", "uid": "u-1", **more.get("metadata", {})},
        "spec": {"nodeName": "n1", "serviceAccountName": "li", "containers": [container(gpus)], **more.get("spec", {})},
        "status": {
            "phase": phase,
            "qosClass": "Burstable",
            "startTime": at(START + 1),
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(START)}],
            "containerStatuses": [{"name": "c", "state": state}],
            **more.get("status", {}),
        },
    }


def node(name: str, product: str) -> dict[str, Any]:
    return {"kind": "Node", "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}}}


def read(*items: object, cluster: Cluster = AI, options: KubernetesOptions | None = None) -> Collected:
    collected = read_kubernetes(json.dumps({"kind": "List", "items": items}).encode(), cluster=cluster, options=options)
    assert collected.rows == len(items)
    return collected


# A real list of pods


@pytest.fixture
def pod_list(shared_data: Path) -> bytes:
    return (shared_data / "traces/alibaba-gpu-2023/openb_pod_list_default.csv.gz").read_bytes()


@pytest.mark.shared
def test_fractional_cards_give_the_traces_known_hours(pod_list: bytes) -> None:
    collected = read_kubernetes(pod_list, cluster=MILLICORES)
    assert (collected.rows, collected.rejected, collected.no_usage) == (8152, (), {"pending": 897})
    assert round(hours_in_all(collected, clusters=[MILLICORES])["card_hours"]) == 51_471


@pytest.mark.shared
def test_whole_cards_by_policy_give_its_other_known_hours(pod_list: bytes) -> None:
    collected = read_kubernetes(pod_list, cluster=MILLICORES, options=KubernetesOptions(shares="whole"))
    assert round(hours_in_all(collected, clusters=[MILLICORES])["card_hours"]) == 59_612


@pytest.mark.shared
def test_millicores_are_counted_exactly_where_the_cluster_counts_them(pod_list: bytes) -> None:
    rows = list(csv.DictReader(gzip.decompress(pod_list).decode().splitlines()))
    ran = [row for row in rows if row["scheduled_time"]]
    exact = Fraction(sum(seconds(row) * int(row["cpu_milli"]) for row in ran), 3_600_000)
    whole = Fraction(sum(seconds(row) * -(-int(row["cpu_milli"]) // 1000) for row in ran), 3600)
    fine = hours_in_all(read_kubernetes(pod_list, cluster=MILLICORES), clusters=[MILLICORES])
    assert fine["core_hours"] == round(Fraction(exact) * 10**6) / Fraction(10**6)
    assert quantities(read_kubernetes(pod_list, cluster=AI))["cpu"] == whole > exact


def seconds(row: dict[str, str]) -> int:
    return int(row["deletion_time"]) - int(row["scheduled_time"])


@pytest.mark.shared
def test_time_spent_waiting_for_a_card_is_not_counted(pod_list: bytes) -> None:
    rows = csv.DictReader(gzip.decompress(pod_list).decode().splitlines())
    naive = sum(
        (int(r["deletion_time"]) - int(r["creation_time"])) * int(r["num_gpu"]) * int(r["gpu_milli"]) for r in rows
    )
    assert round(Fraction(naive, 3_600_000)) == 51_600
    assert round(quantities(read_kubernetes(pod_list, cluster=AI))["card:unknown"]) == 51_471


@pytest.mark.shared
def test_the_list_imported_twice_counts_once(pod_list: bytes) -> None:
    collected = read_kubernetes(pod_list, cluster=AI)
    assert statuses(collected, collected) == {"kept": 7255, "duplicate": 7255}


LIST = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("p,1000,1,1,500,,LS,Running,0,60\n", "broken_row"),
        ("p,1000,1,1,x,,LS,Running,0,60,1\n", "broken_row"),
        ("p,1000,1,1,500,,LS,Sleeping,0,60,1\n", "unknown_state"),
        ("p,1000,1,1,1500,,LS,Running,0,60,1\n", "bad_cards"),
        ("p,1000,1,1,500,,LS,Running,0,1,60\n", "inconsistent_time"),
    ],
)
def test_a_row_of_a_list_that_cannot_be_used_is_refused(row: str, code: str) -> None:
    refused = refusal(read_kubernetes((LIST + row).encode(), cluster=AI))
    assert (refused.code, refused.line, refused.raw) == (code, 2, row.rstrip("\n").encode())


def test_several_models_are_what_a_pod_would_take_not_what_it_got() -> None:
    rows = "a,1000,1,1,1000,V100M16|V100M32,LS,Running,0,60,0\nb,1000,1,1,1000,V100M16,LS,Running,0,60,0\n"
    collected = read_kubernetes((LIST + rows).encode(), cluster=AI)
    assert collected.events["cards"].to_list() == ["unknown:1000", "v100m16:1000"]


# A dump


def test_a_pod_holds_its_cards_from_scheduling_to_its_end() -> None:
    event = only(read(pod(gpus=2)))
    assert (event["start_second"], event["end_second"], event["ended"]) == (START, START + 3600, True)
    assert (event["cards"], event["cpus"], event["nodes"]) == ("unknown:2000", 2, 1)
    assert (event["source"], event["id"], event["job"]) == ("kubernetes:ai1", "u-1", "vision/train")
    assert (event["account"], event["user"], event["memory_bytes"]) == ("vision", "li", 1024**3)


def test_nodes_in_the_dump_tell_the_model() -> None:
    cluster = Cluster(name="ai1", card_models={"nvidia-a100-sxm4-80gb": "a100"})
    collected = read(pod(gpus=1), node("n1", "NVIDIA-A100-SXM4-80GB"), cluster=cluster)
    assert collected.events["cards"].to_list() == ["a100:1000"]
    assert collected.no_usage == {"node": 1}


def test_a_running_pod_counts_until_the_dump_and_grows_with_the_next() -> None:
    running = pod("Running", gpus=1, ended=None)
    later = KubernetesOptions(as_of=datetime.fromtimestamp(START + 10_800, tz=UTC))
    early, late = read(running, options=AS_OF), read(running, options=later)
    assert not only(early)["ended"]
    assert statuses(late, early) == {"kept": 1, "superseded": 1}
    assert quantities(late, early)["wall"] == 3
    ended = read(pod(gpus=1, ended=START + 5400))
    assert quantities(ended, late)["wall"] == Fraction(3, 2), "what has ended is the last word, though it is less"


def test_without_the_dumps_instant_a_running_pod_counts_until_it_last_told_anything() -> None:
    collected = read(pod("Running", ended=None))
    assert only(collected)["end_second"] == START + 20
    assert any("as_of" in note for note in collected.notes)


def test_a_pod_that_was_not_scheduled_is_no_usage() -> None:
    waiting = {"conditions": [{"type": "PodScheduled", "status": "False"}], "startTime": None}
    assert read(pod("Pending", ended=None, status=waiting)).no_usage == {"pending": 1}
    assert read(pod("Failed", status=waiting)).no_usage == {"never_started": 1}


def test_a_scheduled_pod_that_still_loads_its_image_holds_its_cards() -> None:
    event = only(read(pod("Pending", gpus=1, ended=None, status={"containerStatuses": []}), options=AS_OF))
    assert (event["state"], event["cards"], event["end_second"]) == ("PENDING", "unknown:1000", START + 7200)


def test_an_evicted_pod_ended_when_its_state_last_changed() -> None:
    conditions = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(START)},
        {"type": "Ready", "status": "False", "lastTransitionTime": at(START + 900)},
    ]
    evicted = pod("Failed", status={"conditions": conditions, "containerStatuses": None, "reason": "Evicted"})
    assert only(read(evicted))["end_second"] == START + 900


def test_containers_add_up_and_those_that_prepare_the_pod_do_not() -> None:
    spec = {"containers": [container(1), container(1, "500m")], "initContainers": [container(4, "1")]}
    event = only(read(pod(spec=spec), cluster=MILLICORES))
    assert (event["cards"], event["cpus"]) == ("unknown:4000", 2500), "the larger of both, per resource"
    naive = 1 + 1 + 4
    assert event["cards"] != f"unknown:{naive}000"


def test_side_cars_run_beside_the_containers() -> None:
    spec = {"containers": [container(1)], "initContainers": [container(0, "1", restartPolicy="Always")]}
    assert only(read(pod(spec={**spec, "overhead": {"cpu": "250m"}}), cluster=MILLICORES))["cpus"] == 3250


@pytest.mark.parametrize(("shares", "cards"), [("fractional", "unknown:300"), ("whole", "unknown:1000")])
def test_a_part_of_a_card_counts_by_policy(shares: Literal["fractional", "whole"], cards: str) -> None:
    by_resource = pod(
        spec={"containers": [container(1, limits={"nvidia.com/gpucores": "30", "nvidia.com/gpumem": "3000"})]}
    )
    options = KubernetesOptions(shares=shares, share_resource="nvidia.com/gpucores")
    assert only(read(by_resource, options=options))["cards"] == cards
    by_annotation = pod(gpus=1, metadata={"annotations": {"alibabacloud.com/gpu-milli": "300"}})
    options = KubernetesOptions(shares=shares, share_annotation="alibabacloud.com/gpu-milli")
    assert only(read(by_annotation, options=options))["cards"] == cards


def test_a_container_with_a_whole_card_beside_one_with_a_part_holds_it_whole() -> None:
    spec = {"containers": [container(1, limits={"nvidia.com/gpucores": "30"}), container(1)]}
    options = KubernetesOptions(share_resource="nvidia.com/gpucores")
    assert only(read(pod(spec=spec), options=options))["cards"] == "unknown:1300"


def test_slices_of_a_card_count_as_the_cluster_declares_them() -> None:
    cluster = Cluster(name="ai1", cards=(CardGres(gres="nvidia.com/mig-1g.10gb", model="h100", thousandths=125),))
    slices = pod(spec={"containers": [container(limits={"nvidia.com/mig-1g.10gb": "2"})]})
    assert only(read(slices, cluster=cluster))["cards"] == "h100:250"


def test_a_resource_that_is_neither_a_card_nor_ignored_is_refused_by_name() -> None:
    odd = pod(spec={"containers": [container(limits={"example.com/fpga": "1"})]})
    refused = refusal(read(odd))
    assert refused.code == "unknown_gres"
    assert "example.com/fpga" in refused.message
    assert only(read(odd, cluster=Cluster(name="ai1", ignored_gres=("example.com/fpga",))))["cards"] == ""


@pytest.mark.parametrize("item", [{"kind": "Service"}, {"kind": "Pod", "metadata": {"name": "x"}}, 17])
def test_what_is_no_pod_is_kept_in_quarantine(item: object) -> None:
    refused = refusal(read(item))
    assert refused.code == "broken_row"
    assert json.loads(refused.raw) == item


def test_a_quantity_that_cannot_be_read_refuses_its_pod_and_keeps_its_neighbour() -> None:
    collected = read(pod(spec={"containers": [container(cpu="two")]}), pod(metadata={"uid": "u-2"}))
    assert collected.events["id"].to_list() == ["u-2"]
    assert [refused.code for refused in collected.rejected] == ["broken_row"]


def test_labels_may_name_account_user_and_queue() -> None:
    options = KubernetesOptions(account_label="grant", user_label="owner", queue_label="queue")
    labels = {"grant": "G-7", "owner": "wang", "queue": "gold"}
    event = only(read(pod(metadata={"labels": labels}), options=options))
    assert (event["account"], event["user"], event["partition"]) == ("G-7", "wang", "gold")


def test_a_dump_cut_short_is_refused() -> None:
    with pytest.raises(LogFileError, match="no JSON"):
        read_kubernetes(b'{"items": [', cluster=AI)


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", Fraction(1, 2)), ("2", 2), ("1.5", Fraction(3, 2)), ("1Gi", 2**30), ("129e6", 129 * 10**6), ("1k", 1000)],
)
def test_quantities_are_exact(text: str, value: Fraction) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1 Gi", "1ki", "1e", "٣"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(TresError):
        quantity(text)


def test_evidence_says_on_which_node_it_ran() -> None:
    assert said(only(read(pod())))["node"] == "n1"


def test_the_deadline_of_a_pod_is_its_time_limit() -> None:
    assert said(only(read(pod())))["time_limit_seconds"] is None
    assert said(only(read(pod(spec={"activeDeadlineSeconds": 600}))))["time_limit_seconds"] == 600
