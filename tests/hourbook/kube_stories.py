"""What the stories about a Kubernetes cluster share: its API server, its pods, and what was recorded of them."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from hourbook.collecting_pods import PodSource
from hourbook.database import read_session
from hourbook.importing import OtherLog
from hourbook.kube_access import kube_access
from hourbook.settings import Home
from metering import store as metering
from metering.collectors.kubernetes import KubernetesOptions
from metering.collectors.registry import COLLECTORS
from metering.identity import mark
from tests.fakes.kube_server import TOKEN

ROOT = Path(__file__).resolve().parents[2]
Said = dict[str, Any]


@dataclass
class Cluster:
    """A running API server, and a file that says how to reach it."""

    folder: Path
    port: int
    process: subprocess.Popen[str]
    trusted: ssl.SSLContext

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def do(self, what: str, **said: object) -> None:
        url = f"https://127.0.0.1:{self.port}/_/{what}"
        with httpx.Client(verify=self.trusted, trust_env=False) as client:
            client.post(url, json=said).raise_for_status()

    def put(self, thing: Said) -> None:
        self.do("put", **thing)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def start(self) -> None:
        self.process = start_process(self.folder, self.port)


def start_process(folder: Path, port: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "tests.fakes.kube_server",
        str(port),
        str(folder / "both.pem"),
        str(folder / "etcd"),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def make_cluster(folder: Path) -> Cluster:
    """Start an API server with a certificate of its own."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl for a certificate")
    names = ["-subj", "/CN=kube", "-addext", "subjectAltName=IP:127.0.0.1"]
    key, certificate = folder / "key.pem", folder / "ca.pem"
    made = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(["openssl", *made, *names], check=True, capture_output=True)
    (folder / "both.pem").write_text(certificate.read_text("ascii") + key.read_text("ascii"), "ascii")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    (folder / "kubeconfig").write_text(
        f"""
apiVersion: v1
kind: Config
current-context: ours
contexts: [{{name: ours, context: {{cluster: ai1, user: meter}}}}]
clusters: [{{name: ai1, cluster: {{server: "https://127.0.0.1:{port}", certificate-authority: ca.pem}}}}]
users: [{{name: meter, user: {{token: {TOKEN}}}}}]
""",
        encoding="utf-8",
    )
    process = start_process(folder, port)
    trusted = ssl.create_default_context(cafile=str(certificate))
    return Cluster(folder, port, process, trusted)


def at(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(uid: str, since: datetime, *, cards: int = 1, ended: datetime | None = None, node: str = "n1") -> Said:
    """Return a pod that runs since an instant, or has ended."""
    state: Said = {"running": {"startedAt": at(since)}}
    if ended:
        state = {"terminated": {"finishedAt": at(ended), "exitCode": 0}}
    limits = {"nvidia.com/gpu": str(cards), "cpu": "4", "memory": "1Gi"} if cards else {"cpu": "1"}
    return {
        "kind": "Pod",
        "metadata": {"name": f"train-{uid}", "namespace": "vision", "uid": uid, "managedFields": [{"manager": "x"}]},
        "spec": {
            "nodeName": node,
            "serviceAccountName": "li",
            "containers": [{"name": "c", "resources": {"limits": limits}}],
        },
        "status": {
            "phase": "Succeeded" if ended else "Running",
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(since)}],
            "startTime": at(since),
            "containerStatuses": [{"name": "c", "state": state}],
        },
    }


def node(name: str = "n1", product: str = "NVIDIA-A100") -> Said:
    return {
        "kind": "Node",
        "metadata": {"name": name, "uid": f"node-{name}", "labels": {"nvidia.com/gpu.product": product}},
    }


def pods_of(cluster: Cluster, options: KubernetesOptions | None = None) -> PodSource:
    return PodSource(OtherLog(COLLECTORS["kubernetes"], "ai1", options=options), kube_access(str(cluster.kubeconfig)))


def recorded(home: Home) -> pl.DataFrame:
    """Every recorded event with what became of it."""
    with read_session(home.engine) as session:
        return mark(pl.concat([metering.batch_events(batch) for batch in metering.unsealed(session, 10**9)]))


def counted(home: Home) -> dict[str, Said]:
    """The event of each pod that counts."""
    return {row["id"]: row for row in recorded(home).filter(pl.col("status") == "kept").iter_rows(named=True)}
