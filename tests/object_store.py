"""An object store of the tests' own: SeaweedFS, which speaks S3, in a process of its own, gone when the tests end."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

START_SECONDS = 60
BUCKET = "lake"
KEY, SECRET = "hourbook-tests", secrets.token_hex(16)
MEMORY = Path("/dev/shm")  # noqa: S108 - what is made in it is ours alone
PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
    *("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc"),
)
QUIET = ("-master.telemetry=false", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0")
SMALL = ("-volume.max=16", "-master.volumeSizeLimitMB=64")


@dataclass(frozen=True)
class ObjectStore:
    """A running store with an empty bucket, and how to reach it."""

    endpoint: str
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> Mapping[str, str]:
        """What an operator would put into the environment to use it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Let this test, and whatever processes it starts, reach the store."""
        for name, value in self.environment.items():
            patch.setenv(name, value)

    def new_place(self) -> str:
        """Name a prefix that nobody has used."""
        return f"s3://{BUCKET}/{secrets.token_hex(8)}"


@contextmanager
def running_store() -> Iterator[ObjectStore]:
    """Start a store on free ports of this machine, and stop it and remove what it kept at the end."""
    program = Path(sysconfig.get_path("scripts")) / "weed"
    folder = Path(tempfile.mkdtemp(prefix="hourbook-s3-", dir=MEMORY if MEMORY.is_dir() else None))
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    (folder / "data").mkdir()
    (folder / "s3.json").write_text(json.dumps({"identities": [_identity()]}), encoding="utf-8")
    options = [f"-{name}={port}" for name, port in ports.items()]
    command = [str(program), "server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-s3.config=s3.json"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *QUIET, *SMALL, *options], cwd=folder, stdout=log, stderr=log)
    try:
        _make_bucket(program, folder, f"127.0.0.1:{ports['master.port']}.{ports['master.port.grpc']}")
        _wait_for(ports["s3.port"], folder, process)
        yield ObjectStore(f"http://127.0.0.1:{ports['s3.port']}", process)
    finally:
        process.kill()  # nothing of it is wanted any more
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _identity() -> Mapping[str, object]:
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions}


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports: list[int] = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _make_bucket(program: Path, folder: Path, master: str) -> None:
    wanted = f"s3.bucket.create -name {BUCKET}\n".encode()
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        done = subprocess.run(
            [program, "shell", f"-master={master}"], input=wanted, capture_output=True, cwd=folder, check=False
        )
        if b"created bucket" in done.stdout:
            return
        time.sleep(0.1)
    raise AssertionError(f"the object store did not start: {_last_words(folder)}")


def _wait_for(port: int, folder: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"the object store did not start: {_last_words(folder)}")


def _last_words(folder: Path) -> str:
    return (folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]
