"""Pods from the API of a cluster: each holds its cards from scheduling to its end, seen or not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import Session

from hourbook.collecting_pods import PodsPolled, poll_pods
from hourbook.database import create_home, run_write
from hourbook.kube_access import KubeConfigError, kube_access
from hourbook.kube_api import KubeError
from hourbook.settings import Home, Settings
from metering import store as metering
from metering.clusters import Cluster as Described
from metering.collectors.kubernetes import KubernetesOptions, read_kubernetes
from metering.log_sources import IN_CLUSTER
from metering.sealing import recorded as as_recorded
from tests.homes import NewHome

from .job_stories import START, Calendar
from .kube_stories import Cluster, at, counted, make_cluster, node, pod, pods_of, recorded

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = make_cluster(tmp_path_factory.mktemp("kube"))
    yield made
    made.kill()


@pytest.fixture
def cluster(server: Cluster) -> Cluster:
    """An API server of an empty cluster with one node."""
    server.kill()
    (server.folder / "etcd").unlink(missing_ok=True)
    server.start()
    server.put(node())
    return server


@pytest.fixture
def calendar() -> Calendar:
    return Calendar(START)


@pytest.fixture
def home(tmp_path: Path, calendar: Calendar) -> Iterator[Home]:
    made = create_home(tmp_path / "home", settings=Settings(database_url=""))
    moved = Home(made.path, made.engine, clock=calendar)
    yield moved
    made.close()


def look(home: Home, cluster: Cluster, options: KubernetesOptions | None = None) -> PodsPolled:
    polled = poll_pods(home, pods_of(cluster, options), watch_seconds=1)
    assert not polled.problems
    return polled


def second(instant: datetime) -> int:
    return int(instant.timestamp())


def test_a_running_pod_grows_from_look_to_look_and_ends_when_its_containers_did(
    home: Home, calendar: Calendar, cluster: Cluster
) -> None:
    cluster.put(pod("a", START - HOUR, cards=2))
    look(home, cluster)
    event = counted(home)["a"]
    assert (event["start_second"], event["end_second"], event["ended"]) == (second(START - HOUR), second(START), False)
    assert (event["cards"], event["cpus"], event["account"]) == ("nvidia-a100:2000", 4, "vision")
    calendar.now += HOUR
    look(home, cluster)
    assert counted(home)["a"]["end_second"] == second(START + HOUR)
    cluster.put(pod("a", START - HOUR, cards=2, ended=START + 30 * MINUTE))
    calendar.now += HOUR
    look(home, cluster)
    event = counted(home)["a"]
    assert (event["end_second"], event["ended"], event["state"]) == (second(START + 30 * MINUTE), True, "COMPLETED")


def test_a_pod_that_neither_changed_nor_grew_much_is_not_recorded_again(
    home: Home, calendar: Calendar, cluster: Cluster
) -> None:
    cluster.put(pod("a", START - HOUR))
    cluster.put(pod("b", START - HOUR, ended=START - MINUTE))
    look(home, cluster)
    calendar.now += MINUTE
    assert look(home, cluster).receipts == []
    calendar.now += 10 * MINUTE
    look(home, cluster)
    assert sorted(recorded(home)["id"]) == ["a", "a", "b"]


def test_a_pod_that_vanished_between_two_looks_ends_when_it_was_last_seen(
    home: Home, calendar: Calendar, cluster: Cluster
) -> None:
    cluster.put(pod("a", START - HOUR))
    look(home, cluster)
    calendar.now += 10 * MINUTE
    look(home, cluster)
    cluster.do("delete", uid="a")
    cluster.do("compact")
    calendar.now += HOUR
    assert poll_pods(home, pods_of(cluster)).problems, "what happened meanwhile is not known any more"
    event = counted(home)["a"]
    assert (event["end_second"], event["ended"], event["state"]) == (second(START + 10 * MINUTE), True, "DELETED")
    assert json.loads(event["evidence"])["end_from"] == "last_seen"
    assert look(home, cluster).receipts == []


def test_a_pod_that_was_told_to_go_ends_with_its_grace(home: Home, calendar: Calendar, cluster: Cluster) -> None:
    told = pod("a", START - HOUR)
    told["metadata"]["deletionTimestamp"] = at(START + 2 * MINUTE)
    cluster.put(told)
    look(home, cluster)
    cluster.do("delete", uid="a")
    cluster.do("compact")
    calendar.now += HOUR
    poll_pods(home, pods_of(cluster))
    event = counted(home)["a"]
    assert event["end_second"] == second(START + 2 * MINUTE)
    assert json.loads(event["evidence"])["end_from"] == "deletion_timestamp"


def test_what_is_learnt_later_of_a_pods_end_replaces_what_was_reckoned(
    home: Home, calendar: Calendar, cluster: Cluster
) -> None:
    cluster.put(pod("a", START - HOUR))
    look(home, cluster)
    cluster.do("delete", uid="a")
    calendar.now += HOUR
    look(home, cluster)
    reckoned = recorded(home).drop("status")
    dump = json.dumps({"items": [pod("a", START - HOUR, ended=START - MINUTE)]}).encode()
    truth = read_kubernetes(dump, cluster=Described(name="ai1")).events
    assert truth["revision"][0] > reckoned["revision"].max()
    assert as_recorded(truth, first_seq=9, batch_seq=9)["key_hash"][0] == reckoned["key_hash"][0]


def test_a_pod_that_came_and_went_between_two_looks_is_told_by_the_watch(
    home: Home, calendar: Calendar, cluster: Cluster
) -> None:
    look(home, cluster)
    cluster.put(pod("short", START + MINUTE))
    cluster.put(pod("short", START + MINUTE, ended=START + 5 * MINUTE))
    cluster.do("delete", uid="short")
    cluster.put(pod("forced", START + MINUTE))
    cluster.do("delete", uid="forced")
    calendar.now += 10 * MINUTE
    look(home, cluster)
    events = counted(home)
    assert events["short"]["end_second"] == second(START + 5 * MINUTE)
    # Nobody saw when it went; it was there when it was scheduled, and that is all that is known.
    assert events["forced"]["end_second"] == second(START + MINUTE)


def test_a_pod_that_is_seen_to_go_ends_at_that_moment(home: Home, calendar: Calendar, cluster: Cluster) -> None:
    cluster.put(pod("a", START - HOUR))
    look(home, cluster)

    def later() -> None:
        time.sleep(1)
        calendar.now += 7 * MINUTE
        cluster.do("delete", uid="a")

    deleting = threading.Thread(target=later)
    deleting.start()
    poll_pods(home, pods_of(cluster), watch_seconds=3)
    deleting.join()
    assert counted(home)["a"]["end_second"] == second(START + 7 * MINUTE)


def test_a_pod_taken_for_gone_that_is_seen_again_goes_on(home: Home, calendar: Calendar, cluster: Cluster) -> None:
    cluster.put(pod("a", START - HOUR))
    look(home, cluster)
    cluster.do("delete", uid="a")
    calendar.now += HOUR
    look(home, cluster)
    assert counted(home)["a"]["ended"]
    cluster.put(pod("a", START - HOUR))  # a backup of the cluster was restored
    calendar.now += HOUR
    look(home, cluster)
    event = counted(home)["a"]
    assert (event["ended"], event["end_second"]) == (False, second(START + 2 * HOUR))
    cluster.put(pod("a", START - HOUR, ended=START + HOUR))
    look(home, cluster)
    event = counted(home)["a"]
    assert (event["ended"], event["end_second"], event["revision"] < 2**50) == (True, second(START + HOUR), True)


def test_pods_are_listed_in_pages_and_a_list_that_is_cut_off_is_begun_again(
    home: Home, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hourbook.kube_api.PAGE", 7)
    for number in range(20):
        cluster.put(pod(f"p{number}", START - HOUR))
    cluster.do("expire", pages=2)
    assert look(home, cluster).pods == 20
    assert len(counted(home)) == 20
    cluster.do("expire", pages=99)
    with pytest.raises(KubeError, match="to its end"):
        poll_pods(home, pods_of(cluster))
    cluster.do("expire", pages=0)
    assert not any(event["ended"] for event in counted(home).values()), "half a list ends nobody"


def test_a_server_that_is_away_ends_nobody_and_is_caught_up_with(
    home: Home, calendar: Calendar, cluster: Cluster
) -> None:
    cluster.put(pod("a", START - HOUR))
    look(home, cluster)
    cluster.kill()
    calendar.now += HOUR
    with pytest.raises(KubeError, match="cannot be reached"):
        poll_pods(home, pods_of(cluster))
    assert not counted(home)["a"]["ended"]
    cluster.start()
    look(home, cluster)
    assert counted(home)["a"]["end_second"] == second(START + HOUR)


def test_a_watch_that_breaks_off_is_made_up_for_by_the_list(home: Home, calendar: Calendar, cluster: Cluster) -> None:
    cluster.put(pod("a", START - HOUR))
    look(home, cluster)

    def restart() -> None:
        time.sleep(1)
        cluster.kill()
        cluster.start()
        cluster.put(pod("b", START))

    restarting = threading.Thread(target=restart)
    restarting.start()
    with suppress(KubeError):  # where the list meets the server before it is back
        poll_pods(home, pods_of(cluster), watch_seconds=20)
    restarting.join()
    calendar.now += HOUR
    look(home, cluster)
    assert counted(home).keys() == {"a", "b"}


def test_what_was_known_may_be_lost_without_counting_twice(new_home: NewHome, cluster: Cluster) -> None:
    home = new_home(Path(cluster.folder / f"home{time.monotonic_ns()}"), START)
    cluster.put(pod("a", START - HOUR))
    cluster.put(pod("b", START - HOUR, ended=START - MINUTE))
    look(home, cluster)
    before = {uid: (event["revision"], event["end_second"]) for uid, event in counted(home).items()}

    def lose(session: Session) -> None:
        metering.forget_log_cursors(session, "kubernetes:ai1")
        metering.forget_pods(session, "kubernetes:ai1", ["a", "b"])

    run_write(home.engine, lose)
    look(home, cluster)
    assert {uid: (event["revision"], event["end_second"]) for uid, event in counted(home).items()} == before
    assert recorded(home).height == 4


def test_pods_of_the_system_and_without_cards_are_left_out_where_that_is_agreed(home: Home, cluster: Cluster) -> None:
    cluster.put(pod("a", START - HOUR))
    cluster.put(pod("b", START - HOUR, cards=0))
    system = pod("c", START - HOUR)
    system["metadata"]["namespace"] = "kube-system"
    cluster.put(system)
    options = KubernetesOptions(skipped_namespaces=("kube-system",), cards_only=True)
    (receipt,) = look(home, cluster, options).receipts
    assert counted(home).keys() == {"a"}
    assert receipt.no_usage == {"no_cards": 1, "skipped_namespace": 1}


def test_a_pod_that_waits_for_a_node_holds_nothing_and_is_counted_when_it_is_placed(
    home: Home, cluster: Cluster
) -> None:
    waiting = pod("a", START)
    waiting["spec"].pop("nodeName")
    waiting["status"] = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]}
    cluster.put(waiting)
    assert look(home, cluster).receipts == []
    cluster.put(pod("a", START - MINUTE))
    look(home, cluster)
    assert counted(home)["a"]["start_second"] == second(START - MINUTE)


# Access


def test_a_token_that_is_refused_says_what_to_do(home: Home, cluster: Cluster) -> None:
    source = pods_of(cluster)
    wrong = type(source)(source.log, type(source.access)(source.access.server, source.access.authority, "wrong"))
    with pytest.raises(KubeError, match="renew the token"):
        poll_pods(home, wrong)


def test_a_server_with_another_certificate_is_not_asked(home: Home, cluster: Cluster) -> None:
    source = pods_of(cluster)
    stranger = type(source)(source.log, type(source.access)(source.access.server, "", source.access.token))
    with pytest.raises(KubeError, match="certificate"):
        poll_pods(home, stranger)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("https://", "http://"), "without checking"),
        (("certificate-authority: ca.pem", "insecure-skip-tls-verify: true"), "without checking"),
        (("token: let-me-look", "exec: {command: login}"), "service account"),
        (("current-context: ours", "current-context: theirs"), "theirs"),
        (("current-context: ours", ""), "current context"),
        (("apiVersion: v1", "a: ["), "no kubeconfig"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_refused_by_name(
    server: Cluster, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = server.kubeconfig.read_text("utf-8")
    assert change[0] in text
    (tmp_path / "kubeconfig").write_text(text.replace(*change), "utf-8")
    (tmp_path / "ca.pem").write_bytes((server.folder / "ca.pem").read_bytes())
    with pytest.raises(KubeConfigError, match=message):
        kube_access(str(tmp_path / "kubeconfig"))


def test_a_pod_reaches_its_cluster_by_its_service_account(
    server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KubeConfigError, match="no pod"):
        kube_access(IN_CLUSTER, service_account=tmp_path)
    (tmp_path / "token").write_text("first\n", "utf-8")
    (tmp_path / "ca.crt").write_bytes((server.folder / "ca.pem").read_bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    access = kube_access(IN_CLUSTER, service_account=tmp_path)
    assert access.headers() == {"Authorization": "Bearer first"}
    (tmp_path / "token").write_text("renewed\n", "utf-8")
    assert access.headers() == {"Authorization": "Bearer renewed"}
